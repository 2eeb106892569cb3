"""What Greenroom promises, on real pods of a real cluster, installed as a user installs it."""

import json

import pytest

from e2e.conftest import TrainedModels
from e2e.operators import count_restarts, kill_operator
from e2e.penguins import NAME, Penguins, ask, reached
from e2e.terminal import Terminal
from e2e.traffic import Traffic
from tests.support.kubectl import Kubectl

pytestmark = pytest.mark.usefixtures("operator")


def test_what_is_applied_answers_as_it_was_trained(url: str, models: TrainedModels) -> None:
    """Applied, Ready, and through the Service each held-back row gets the training pipeline's own answer."""
    for row in models.holdout:
        answer = ask(url, row["features"])
        assert answer.status_code == 200, answer.text
        trained = row["answers"]["v1"]
        assert answer.json()["prediction"] == trained["prediction"]
        given = list(answer.json()["probabilities"].values())
        assert given == pytest.approx(trained["probabilities"], abs=1e-5)
        assert answer.headers["X-Model-Version"] == "v1"


def test_the_alias_flips_under_load(url: str, penguins: Penguins, models: TrainedModels) -> None:
    """spec.version changed under load: no failed request, no pod touched, each client goes v1 to v2 once."""
    before = penguins.lives()
    with Traffic(url, models.rows) as traffic:
        traffic.wait_for_every_client("v1")
        penguins.apply(version="v2", wait=False)
        penguins.until_promoted("v2")
        traffic.wait_for_every_client("v2")
    assert traffic.failed == []
    kept = {client: seen for client, seen in traffic.versions_by_client().items() if "kept" in client}
    assert all(seen == ["v1", "v2"] for seen in kept.values()), kept
    last_v1 = max(answer.at for answer in traffic.answers if answer.version == "v1")
    assert all(answer.version == "v2" for answer in traffic.answers if answer.at > last_v1)
    assert penguins.lives() == before


def test_the_way_back_is_instant(url: str, penguins: Penguins, models: TrainedModels) -> None:
    """After a promotion the version before is at hand: spec.version set back flips back, nothing fails."""
    with Traffic(url, models.rows) as traffic:
        penguins.apply(version="v2", wait=False)
        assert penguins.until_promoted("v2")["status"]["previousVersion"] == "v1"
        penguins.apply(version="v1", wait=False)
        assert penguins.until_promoted("v1")["status"]["previousVersion"] == "v2"
        traffic.wait_for_every_client("v1")
    assert traffic.failed == []


def test_a_version_that_does_not_exist_is_refused(
    url: str, penguins: Penguins, models: TrainedModels
) -> None:
    """A version that is nowhere leaves production serving; status says which, where and what to do."""
    with Traffic(url, models.rows) as traffic:
        penguins.apply(version="v9", wait=False)
        status = penguins.until_refused("v9")["status"]
    assert traffic.failed == []
    assert {answer.version for answer in traffic.answers} == {"v1"}
    assert status["version"] == "v1"
    assert status["lastFailure"]["reason"] == "NoSuchVersion"
    assert "v9" in status["lastFailure"]["message"]
    conditions = {condition["type"]: condition for condition in status["conditions"]}
    assert conditions["Ready"]["status"] == "True"
    assert (conditions["Degraded"]["status"], conditions["Degraded"]["reason"]) == (
        "True",
        "VerificationFailed",
    )
    assert conditions["Stalled"]["status"] == "True"
    penguins.until_told("VerificationFailed")


def test_a_version_with_skew_is_refused(url: str, penguins: Penguins, models: TrainedModels) -> None:
    """A version whose golden samples differ is refused with sample, expected and found; v1 goes on."""
    penguins.apply(version="v3-broken", wait=False)
    failure = penguins.until_refused("v3-broken")["status"]["lastFailure"]
    assert failure["reason"] == "GoldenMismatch"
    assert failure["sample"] >= 0
    assert failure["expected"] != failure["found"]
    assert failure["pod"] in penguins.lives()
    assert ask(url, models.rows[0]).headers["X-Model-Version"] == "v1"


def test_new_pods_come_up_on_production_whatever_the_new_version(
    url: str, penguins: Penguins, models: TrainedModels
) -> None:
    """A refused version does not keep new pods from serving production, and a retry can mend it."""
    penguins.apply(version="v7", wait=False)
    penguins.until_refused("v7")
    penguins("scale", "md", NAME, "--replicas=3")
    penguins.until(lambda found: found["status"].get("readyReplicas") == 3)
    bundle = json.loads((models.directory / "v2" / "bundle.json").read_text())
    late = models.directory.parent / "late" / "v7"
    late.mkdir(parents=True, exist_ok=True)
    for file in (models.directory / "v2").iterdir():
        (late / file.name).write_bytes(file.read_bytes())
    (late / "bundle.json").write_text(json.dumps(bundle | {"version": "v7"}))
    models.store.upload(late.parent, prefix="penguins")
    penguins("annotate", "md", NAME, "greenroom.dev/action=retry/v7/now")
    assert penguins.until_promoted("v7")["status"]["lastHandledAction"] == "retry/v7/now"
    assert ask(url, models.rows[0]).headers["X-Model-Version"] == "v7"


def test_a_bad_first_version_is_told_and_mended(
    penguins: Penguins, terminal: Terminal, models: TrainedModels
) -> None:
    """A first version that is refused makes no pod ready and says why; naming a good one mends it."""
    penguins.apply(version="v3-broken", wait=False)
    found = penguins.until(
        lambda found: any(
            condition["type"] == "Stalled" for condition in found.get("status", {}).get("conditions", [])
        )
    )
    assert found["status"].get("readyReplicas", 0) == 0
    assert penguins.condition("Ready")["reason"] == "VerificationFailed"
    assert found["status"]["lastFailure"]["reason"] == "GoldenMismatch"
    penguins.apply(version="v1")
    with reached(terminal, penguins.namespace) as url:
        assert ask(url, models.rows[0]).headers["X-Model-Version"] == "v1"


def test_scaling(url: str, penguins: Penguins) -> None:
    """Scaling by kubectl works as for a Deployment; zero is told as what it is, and one comes back."""
    assert url
    penguins("scale", "md", NAME, "--replicas=3")
    penguins.until(lambda found: found["status"].get("replicaSummary") == "3/3")
    penguins("scale", "md", NAME, "--replicas=0")
    penguins.until(lambda found: found["status"].get("replicas") == 0)
    assert penguins.condition("Ready")["reason"] == "ScaledToZero"
    penguins("scale", "md", NAME, "--replicas=1")
    penguins.until(lambda found: found["status"].get("replicaSummary") == "1/1")
    assert penguins.condition("Ready")["status"] == "True"


def test_new_settings_roll_without_a_failed_request(
    url: str, penguins: Penguins, models: TrainedModels
) -> None:
    """What needs new pods gets them one by one, and no client notices."""
    before = set(penguins.lives())
    with Traffic(url, models.rows) as traffic:
        penguins.apply(env=[{"name": "TEAM", "value": "ornithology"}], wait=False)
        penguins.until(
            lambda _: (
                len(penguins.pods()) == 2 and not before & {p["metadata"]["name"] for p in penguins.pods()}
            )
        )
        penguins.apply(env=[{"name": "TEAM", "value": "ornithology"}])
    assert traffic.failed == []


def test_deleting_leaves_nothing(url: str, penguins: Penguins) -> None:
    """Deleting the ModelDeployment takes all with it: no finalizer, no orphan."""
    assert url
    penguins("delete", "md", NAME, "--wait=true")
    kinds = "deployments,replicasets,pods,services,serviceaccounts,configmaps,endpointslices"
    labelled = f"greenroom.dev/deployment={NAME}"
    penguins("wait", "--for=delete", "pods", "-l", labelled, "--timeout=120s")
    penguins("wait", "--for=delete", kinds.replace("pods,", ""), "-l", labelled, "--timeout=60s")
    assert json.loads(penguins("get", kinds, "-l", labelled, "--output=json"))["items"] == []


def test_the_operator_may_die_at_any_time(
    url: str, penguins: Penguins, models: TrainedModels, kubectl: Kubectl, operator: str
) -> None:
    """The operator killed by SIGKILL in a promotion: users notice nothing, and it goes on when it is back."""
    with Traffic(url, models.rows) as traffic:
        penguins.apply(version="v2", wait=False)
        penguins.until(lambda found: found["status"].get("promotion", {}).get("version") == "v2")
        before = count_restarts(kubectl, operator)
        kill_operator(kubectl, operator)
        penguins.until_promoted("v2")
        traffic.wait_for_every_client("v2")
        penguins.until(lambda _: count_restarts(kubectl, operator) > before)
    assert traffic.failed == []
    assert set(penguins.lives()) == {pod["metadata"]["name"] for pod in penguins.pods()}


def test_bad_yaml_is_refused_with_field_and_remedy(penguins: Penguins) -> None:
    """A mistake is refused at apply, naming the field and what to write instead."""
    refused = penguins.kubectl.run(
        *("--namespace", penguins.namespace, "apply", "--filename=-"),
        document={
            "apiVersion": "greenroom.dev/v1alpha1",
            "kind": "ModelDeployment",
            "metadata": {"name": NAME},
            "spec": {"source": {"uri": "ftp://models"}, "version": "production"},
        },
    )
    assert refused.returncode != 0
    assert "spec.version" in refused.stderr
    assert "such as v2" in refused.stderr
    assert "spec.source.uri" in refused.stderr
    assert "s3://" in refused.stderr


def test_applying_the_same_again_changes_nothing(url: str, penguins: Penguins) -> None:
    """Git may apply for ever: kubectl diff shows nothing, and neither object nor pods change."""
    assert url
    before, lives = penguins.found["metadata"]["generation"], penguins.lives()
    penguins.apply()
    penguins.apply()
    assert penguins.found["metadata"]["generation"] == before
    assert penguins.lives() == lives
