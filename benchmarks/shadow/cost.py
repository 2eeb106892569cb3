"""What mirroring one answer costs the event loop's thread: CPU time, system calls included."""

import tempfile
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from benchmarks.shadow.cells import read_and_forget
from greenroom_runtime.contract.flags import FlagStore, Shadow
from greenroom_runtime.models.session import Prediction
from greenroom_runtime.shadow.link import UnixLink
from greenroom_runtime.shadow.mirror import Mirror

_ROUNDS = 15
_BURSTS = 400
_TOGETHER = 20
"""Answers that one turn finds: what comes in five milliseconds at 4,000 a second."""
_FEATURES = {f"feature_{number}": 1.5 * number for number in range(8)} | {"place": "north", "plan": "team"}
_IDS = [f"4f0d2c1b9a8e7d6c5b4a{number:012x}" for number in range(_TOGETHER)]
_ANSWER = Prediction(1, [0.25, 0.75])


@dataclass(frozen=True, kw_only=True)
class Cost:
    """Microseconds an answer: the median of rounds, and the least."""

    name: str
    median_us: float
    least_us: float


def costs() -> list[Cost]:
    """Measure all answers, one in a hundred, and none that anybody reads."""
    with tempfile.TemporaryDirectory(prefix="bench-mirror-") as directory:
        path = Path(directory) / "frames.sock"
        threading.Thread(target=read_and_forget, args=(f"unix:{path}",), daemon=True).start()
        while not path.exists():
            time.sleep(0.001)
        return [
            _cost("each mirrored", str(path), hundredths=10_000),
            _cost("one in a hundred mirrored", str(path), hundredths=100),
            _cost("each mirrored, and nobody listens", f"{directory}/none", hundredths=10_000),
        ]


def _cost(name: str, path: str, *, hundredths: int) -> Cost:
    stage = _Stage(path, hundredths=hundredths)
    times = [sum(stage.play() for _ in range(_BURSTS)) / (_BURSTS * _TOGETHER) * 1e6 for _ in range(_ROUNDS)]
    return Cost(name=name, median_us=median(times), least_us=min(times))


class _Stage:
    """A mirror, and a clock of its thread's CPU time."""

    def __init__(self, path: str, *, hundredths: int) -> None:
        self._due: deque[Callable[[], None]] = deque()
        self._mirror = Mirror(
            UnixLink(path), queue_bytes=1 << 24, schedule=lambda _, turn: self._due.append(turn)
        )
        shadow = Shadow(
            version="v4", hundredths=hundredths, salt="ml/churn", epoch="bench#1", latency_ratio=2.0
        )
        self._target = self._mirror.obey(FlagStore(production="v1", resident=("v1",), shadow=shadow))

    def play(self) -> float:
        """Offer what comes together, and take the turns until all is sent; return the seconds of both."""
        spent = _seconds(self._offer)
        while True:
            time.sleep(0)  # whoever reads shares this process, and its turns are not in the number
            if self._due:
                spent += _seconds(self._due.popleft())
            if not self._mirror.pending:
                return spent

    def _offer(self) -> None:
        assert self._target is not None
        for request_id in _IDS:
            self._mirror.offer(
                self._target,
                request_id=request_id,
                key="user-1",
                context={},
                version="v1",
                features=_FEATURES,
                prediction=_ANSWER,
                classes=None,
                error="",
                seconds=0.001,
                size=250,
            )


def _seconds(run: Callable[[], None]) -> float:
    started = time.thread_time()
    run()
    return time.thread_time() - started
