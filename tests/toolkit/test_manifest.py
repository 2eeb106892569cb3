"""``greenroom run`` takes and refuses what a cluster would, in the same words."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from greenroom.local.errors import LocalError
from greenroom.local.manifest import ManifestError, parse_manifest
from greenroom.local.process import LocalRuntime
from greenroom.local.run import source_uri
from greenroom_operator.api.modeldeployment import ModelDeployment
from greenroom_operator.resources.config import build_runtime_config
from tests.support.manifests import model_deployment, patched

GOLDEN = Path(__file__).parents[1] / "golden" / "crd"
ACCEPTED: list[dict[str, Any]] = yaml.safe_load((GOLDEN / "accepted.yaml").read_text(encoding="utf-8"))
MISTAKES: list[dict[str, Any]] = [
    case
    for case in yaml.safe_load((GOLDEN / "mistakes.yaml").read_text(encoding="utf-8"))
    if {"predictionLog", "features", "shadow"} & (case["patch"].get("spec") or {}).keys()
]


def parse(patch: dict[str, Any]) -> ModelDeployment:
    """Read the smallest ModelDeployment with a merge patch, as from a file."""
    document = patched(model_deployment(), patch)
    return parse_manifest(yaml.safe_dump(document).encode(), path=Path("churn.yaml"))


@pytest.mark.parametrize("patch", ACCEPTED, ids=str)
def test_what_a_cluster_takes_is_taken(patch: dict[str, Any]) -> None:
    """No rule here is stricter than the API server's."""
    assert parse(patch).metadata.name


@pytest.mark.parametrize("case", MISTAKES, ids=[case["mistake"] for case in MISTAKES])
def test_a_log_or_features_that_a_cluster_refuses_are_refused(case: dict[str, Any]) -> None:
    """The rules of the API server hold here too, with the same remedy where it is ours."""
    with pytest.raises(ManifestError) as refused:
        parse(case["patch"])
    ours = case["text"].rpartition('Invalid value: "object": ')[2]
    assert len(str(refused.value).splitlines()) == 1
    assert not {"sink", "features"} & set(ours.split()) or ours in str(refused.value)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"source": {"uri": "pvc://models/../a"}}, "spec.source.uri must be pvc://CLAIM/PATH"),
        ({"resources": {"limits": {"memory": "1 GB"}}}, "'1 GB' is no quantity such as 256Mi or 1G"),
        ({"resources": {"limits": {"memory": "-1Gi"}}}, "Input should be greater than 0, found -1073741824"),
    ],
)
def test_what_no_pod_could_be_started_with_is_refused(spec: dict[str, Any], message: str) -> None:
    """It is one line, and no traceback once the process should start."""
    with pytest.raises(ManifestError) as refused:
        parse({"spec": spec})
    assert message in str(refused.value)
    assert len(str(refused.value).splitlines()) == 1


def test_a_claim_is_replaced_by_a_directory(tmp_path: Path) -> None:
    """There are no volumes of a cluster here: it says what to give instead."""
    claimed = parse({"spec": {"source": {"uri": "pvc://models/churn"}}})
    with pytest.raises(LocalError, match="is a volume of a cluster: name a directory that holds"):
        source_uri(claimed, source=None)
    assert source_uri(claimed, source=str(tmp_path)) == tmp_path.as_uri()


@pytest.mark.parametrize("scheme", ["s3", "gs", "az", "https"])
def test_stores_are_read_as_in_a_cluster(scheme: str) -> None:
    """What pods fetch from, this machine fetches from."""
    uri = f"{scheme}://models/churn"
    assert source_uri(parse({"spec": {"source": {"uri": uri}}}), source=None) == uri


@pytest.mark.parametrize("sink", ["Files", "Stdout"])
def test_predictions_stay_in_the_state_directory(sink: str) -> None:
    """The log is the manifest's in all but its place: nothing of a pod's own disk is touched."""
    config = build_runtime_config(parse({"spec": {"predictionLog": {"sink": sink, "percent": 5}}}))
    with LocalRuntime(port=0, admin_port=0) as runtime:
        log = runtime.localize(config).prediction_log
        assert log is not None
        assert (log.sink, log.percent) == (sink, 5)
        assert Path(log.directory) == runtime.predictions
        assert runtime.predictions.parent == runtime.output.parent


def test_no_log_stays_none() -> None:
    """Who wants no log gets none here either."""
    config = build_runtime_config(parse({"spec": {"predictionLog": {"sink": "None"}}}))
    with LocalRuntime(port=0, admin_port=0) as runtime:
        assert runtime.localize(config).prediction_log is None
