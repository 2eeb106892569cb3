"""What is read off a pod's own status."""

from datetime import UTC, datetime
from typing import Any

import pytest

from greenroom_operator.controller.context import find_crash
from tests.support.builders import stored_pod

FINISHED = "2026-11-03T09:31:07Z"


def ended(code: int | None, *, finished: str | None = FINISHED) -> dict[str, Any]:
    """Return the state of a container that has ended, as kubelet writes it."""
    return {"terminated": {"exitCode": code, "finishedAt": finished, "reason": "Error"}}


def pod(*containers: dict[str, Any]) -> dict[str, Any]:
    """Return a pod with these accounts of its containers."""
    found = stored_pod()
    return {**found, "status": {**found["status"], "containerStatuses": list(containers)}}


@pytest.mark.parametrize("state", ["state", "lastState"])
def test_a_crash_is_told_with_its_time(state: str) -> None:
    """A serving process that ended with an error has crashed, whether it runs again or not yet."""
    crashed = pod({"name": "serving", state: ended(139)})
    assert find_crash(crashed) == datetime(2026, 11, 3, 9, 31, 7, tzinfo=UTC)


@pytest.mark.parametrize(
    "container",
    [
        {"name": "serving", "state": {"running": {}}, "lastState": {}},
        {"name": "serving", "lastState": ended(0)},
        {"name": "serving", "lastState": ended(137, finished=None)},
        {"name": "proxy", "lastState": ended(1)},
    ],
    ids=["runs", "ended as it was told", "no time", "somebody else's"],
)
def test_what_is_no_crash(container: dict[str, Any]) -> None:
    """A clean end, another container's, and one of which no time is known are none."""
    assert find_crash(pod(container)) is None


def test_a_pod_that_has_not_started_has_not_crashed() -> None:
    """Before kubelet has looked there are no containers in status."""
    assert find_crash(stored_pod()) is None
