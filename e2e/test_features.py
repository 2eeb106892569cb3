"""Features that requests leave out, on real pods: fetched from a service and a Redis in the cluster."""

import json
from typing import Any

import pytest

from e2e.cluster import Cluster
from e2e.conftest import TrainedModels
from e2e.penguins import Penguins, ask, reached
from e2e.terminal import ROOT, Terminal
from e2e.traffic import Traffic
from tests.support.kubectl import Kubectl

pytestmark = pytest.mark.usefixtures("operator")

HERE = ROOT / "e2e" / "features"
IMAGE = "localhost/greenroom/features:dev"
SENT = ("island", "sex")
"""What requests bring; the rest is fetched."""
FEATURES: dict[str, Any] = {
    "ttl": "1s",
    "redis": {"url": "redis://cache:6379", "secretRef": {"name": "cache"}, "timeout": "100ms"},
    "compute": {"url": "http://features/{entity}", "timeout": "2s"},
}


@pytest.fixture
def penguins(
    cluster: Cluster, kubectl: Kubectl, terminal: Terminal, namespace: str, models: TrainedModels
) -> Penguins:
    """Start Redis and a service that knows each held-back penguin; return the example, not applied yet."""
    cluster.build_and_load(IMAGE, HERE / "Dockerfile")
    known = {
        f"penguin-{number}": {name: value for name, value in row["features"].items() if name not in SENT}
        for number, row in enumerate(models.holdout)
    }
    example = Penguins(kubectl, namespace)
    document = {"apiVersion": "v1", "metadata": {"name": "known"}, "data": {"known.json": json.dumps(known)}}
    example("apply", "--filename=-", document={**document, "kind": "ConfigMap"})
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "cache"}}
    example("apply", "--filename=-", document={**secret, "stringData": {"PASSWORD": "only-for-tests"}})
    example("apply", "--filename", str(HERE / "features.yaml"))
    for name in ("cache", "features"):
        terminal.kubectl(namespace, "rollout", "status", f"deployment/{name}", "--timeout=2m")
    return example


def requests(models: TrainedModels) -> list[dict[str, Any]]:
    """Return a request about each held-back penguin, with most of its features left out."""
    return [
        {
            "features": {name: row["features"][name] for name in SENT},
            "user_id": f"penguin-{number}",
        }
        for number, row in enumerate(models.holdout)
    ]


def healthy(penguins: Penguins, status: str) -> dict[str, Any]:
    """Wait until the condition FeaturesHealthy is this; return the ModelDeployment as it then was."""
    return penguins.until(lambda found: condition(found, "FeaturesHealthy").get("status") == status)


def condition(found: dict[str, Any], name: str) -> dict[str, Any]:
    """Return a condition of a ModelDeployment; an empty one where it is not there."""
    conditions = found.get("status", {}).get("conditions", [])
    return next((one for one in conditions if one["type"] == name), {})


def test_features_are_fetched_and_a_dead_redis_fails_nobody(
    penguins: Penguins, terminal: Terminal, models: TrainedModels
) -> None:
    """Answers are the whole rows'; a dead Redis costs no request, and status tells of it until it is back."""
    penguins.apply(features=FEATURES)
    with reached(terminal, penguins.namespace) as url:
        for row, request in zip(models.holdout, requests(models), strict=True):
            answer = ask(url, **request)
            assert answer.status_code == 200, answer.text
            assert answer.json()["prediction"] == row["answers"]["v1"]["prediction"]
            assert answer.headers["X-Feature-Source"] in ("compute", "redis", "memory", "stale")
        healthy(penguins, "True")
        with Traffic(url, [], requests=requests(models)) as traffic:
            penguins("scale", "deployment/cache", "--replicas=0")
            found = healthy(penguins, "False")
            penguins("scale", "deployment/cache", "--replicas=1")
            healthy(penguins, "True")
    assert traffic.failed == []
    assert found["status"]["features"]["redis"] == "LeftAlone"
    assert found["status"]["features"]["compute"] == "Asked"
    assert "Redis" in found["status"]["features"]["error"]
    assert condition(found, "Ready")["status"] == "True"
    penguins.until_told("FeatureSourceFailing", "FeatureSourceRecovered")
