"""The models, as the operator and the toolkit read and write them."""

from typing import Any

import pytest
from pydantic import ValidationError

from greenroom_operator.api.modeldeployment import ModelDeployment, ModelDeploymentStatus, VersionStatus
from greenroom_operator.api.times import parse_duration
from greenroom_runtime.contract.config import Limits as RuntimeLimits
from tests.support.manifests import model_deployment


def read(document: dict[str, Any]) -> ModelDeployment:
    """Parse a manifest."""
    return ModelDeployment.model_validate(document)


def test_the_smallest_manifest_has_every_default() -> None:
    """Source and version are enough; a manifest from a file has no uid, and no namespace but the default."""
    spec = read(model_deployment()).spec
    assert spec.replicas == 1
    assert spec.verification.golden == "Optional"
    assert parse_duration(spec.progress_deadline).total_seconds() == 600
    assert parse_duration(spec.drain).total_seconds() == 5
    assert read(model_deployment()).metadata.namespace == "default"


def test_limits_default_to_the_runtimes_own() -> None:
    """The operator and `greenroom serve` bound requests alike."""
    limits = read(model_deployment()).spec.limits
    assert limits.model_dump(by_alias=False) == RuntimeLimits().model_dump()


def test_fields_of_a_newer_release_are_ignored() -> None:
    """An operator that was rolled back goes on with what it knows."""
    document = model_deployment(telepathy={"depth": 3})
    document["metadata"]["managedFields"] = [{}]
    document["status"] = {"version": "v1", "telepathy": "deep"}
    assert read(document).status == ModelDeploymentStatus(version="v1")


@pytest.mark.parametrize("missing", ["source", "version"])
def test_a_file_without_the_essentials_is_refused(missing: str) -> None:
    """The error names the field, for tools that read files without an API server."""
    document = model_deployment()
    del document["spec"][missing]
    with pytest.raises(ValidationError, match=f"spec.{missing}"):
        read(document)


def test_status_is_dumped_without_nulls_in_camel_case() -> None:
    """Server-side apply refuses nulls; zeros and empty lists are statements and stay."""
    status = ModelDeploymentStatus(ready_replicas=0, versions=(VersionStatus(name="v1"),))
    assert status.model_dump(by_alias=True, exclude_none=True, mode="json") == {
        "conditions": [],
        "history": [],
        "readyReplicas": 0,
        "versions": [{"name": "v1", "digest": "", "podsReady": 0}],
    }


def test_objects_are_frozen() -> None:
    """A pass decides on what it observed; nothing changes it underway."""
    with pytest.raises(ValidationError, match="frozen"):
        read(model_deployment()).spec.version = "v2"  # type: ignore[misc]
