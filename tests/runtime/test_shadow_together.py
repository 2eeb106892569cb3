"""A serving process and a shadow's container side by side, as they are in a pod."""

import os
import signal
from pathlib import Path

import pytest

from greenroom_runtime.contract.report import VersionState
from greenroom_runtime.contract.shadow import EndReason
from tests.support.bundles import regress, write_regressor
from tests.support.serving import ServingProcess
from tests.support.shadows import ShadowPod, shadowing

ROWS = 60


@pytest.fixture
def pair(tmp_path: Path) -> tuple[ServingProcess, ShadowPod]:
    """Return a serving process with v1 and a shadow with v2, whose answers are higher by 5, not begun yet."""
    source = tmp_path / "source"
    write_regressor(source, "v1")
    write_regressor(source, "v2", bias=5.0)
    log = {"sink": "Files"}
    shadow = ShadowPod(tmp_path / "shadow", source=source, prediction_log=log)
    serving = ServingProcess(
        tmp_path / "serving",
        source_uri=source.as_uri(),
        shadow={"address": f"unix:{shadow.socket}"},
        prediction_log=log | {"directory": str(tmp_path / "predictions")},
    )
    for flags in (serving.flags, shadow.flags):
        flags.write(shadowing("v2"))
    return serving, shadow


def test_each_answer_is_compared_once(pair: tuple[ServingProcess, ShadowPod]) -> None:
    """What the serving process says it has sent is what the shadow says it has received, row by row."""
    serving, pod = pair
    with serving, pod:
        serving.wait_ready("v1")
        pod.wait_state("v2", VersionState.READY)
        serving.wait_mirroring(ask=lambda: _ask(serving, 0))
        before = pod.wait_received(_sent(serving)).counts
        for number in range(ROWS):
            _ask(serving, number)
        sent = _sent(serving)
        counts = pod.wait_received(sent).counts
        assert counts.received == sent
        assert counts.compared - before.compared == ROWS
        assert counts.disagreed == counts.compared


def test_a_shadow_that_dies_and_hangs_changes_no_answer(pair: tuple[ServingProcess, ShadowPod]) -> None:
    """While its process is killed, stopped and replaced every request is answered, and counts go on."""
    serving, pod = pair
    with serving, pod:
        serving.wait_ready("v1")
        pod.wait_state("v2", VersionState.READY)
        serving.wait_mirroring(ask=lambda: _ask(serving, 0))
        with pod.restarted():
            pod.kill_process()
            for number in range(ROWS):
                _ask(serving, number)
        os.kill(pod.process_id(), signal.SIGSTOP)
        for number in range(ROWS):
            _ask(serving, number)
        os.kill(pod.process_id(), signal.SIGCONT)
        told = pod.wait_state("v2", VersionState.READY)
        compared = told.counts.compared
        serving.wait_mirroring(ask=lambda: _ask(serving, 0))
        assert pod.wait_until(lambda told: told.counts.compared > compared)
        report = pod.supervised.report()
        assert report.end is not None
        assert report.end.reason is EndReason.CRASHED


def _sent(serving: ServingProcess) -> int:
    """Return how many frames were sent, once none is on its way."""
    mirror = serving.wait_until(lambda told: told.mirror is not None and told.mirror.pending == 0).mirror
    assert mirror is not None
    return mirror.sent


def _ask(serving: ServingProcess, number: int) -> None:
    """Ask for one row, which must be answered by production and as production does."""
    row = {"x1": float(number), "x2": 0.5, "member": True}
    answer = serving.predict(row, user_id=f"u{number}")
    assert answer.status_code == 200
    assert answer.json()["prediction"] == regress(row, 0.0)
