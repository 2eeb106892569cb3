"""The shadow process, supervised as it is in its container: real models, real sockets, real frames."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from greenroom_runtime.contract.report import VersionState
from tests.support.bundles import write_regressor
from tests.support.shadows import Sender, ShadowPod, frame, shadowing


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Return a source with v2, whose answers are production's, and v3, whose are higher by 5."""
    place = tmp_path / "source"
    write_regressor(place, "v2")
    write_regressor(place, "v3", bias=5.0)
    return place


@pytest.fixture
def sender(tmp_path: Path) -> Iterator[Sender]:
    """Return what sends to the pod of the test."""
    with Sender(tmp_path / "run" / "frames.sock") as one:
        yield one


def test_answers_that_agree_are_counted(tmp_path: Path, source: Path, sender: Sender) -> None:
    """A shadow that answers as production does agrees, and each count is exact."""
    with ShadowPod(tmp_path, source=source) as pod:
        pod.flags.write(shadowing("v2"))
        told = pod.wait_state("v2", VersionState.READY)
        assert (told.production, told.epoch) == ("v1", "e1")
        sender.send(*(frame(number) for number in range(100)))
        counts = pod.wait_received(100).counts
        assert (counts.received, counts.compared, counts.disagreed) == (100, 100, 0)
        assert sum(counts.differences) == sum(counts.seconds) == sum(counts.production_seconds) == 100


def test_answers_that_differ_are_counted(tmp_path: Path, source: Path, sender: Sender) -> None:
    """A shadow whose numbers are out of tolerance disagrees."""
    with ShadowPod(tmp_path, source=source) as pod:
        pod.flags.write(shadowing("v3"))
        pod.wait_state("v3", VersionState.READY)
        sender.send(*(frame(number) for number in range(10)))
        told = pod.wait_received(10)
        assert (told.counts.compared, told.counts.disagreed) == (10, 10)
        assert told.trials.seen == told.trials.disagreed
        assert told.trials.seen.count == 10
        assert told.trials.failed.count == told.trials.slow.count == 0
