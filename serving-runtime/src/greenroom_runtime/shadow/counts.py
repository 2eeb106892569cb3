"""What one epoch of a shadow has come to: exact counts, histograms, and users in buckets. Pure."""

from bisect import bisect_left
from collections.abc import Sequence
from math import inf, isnan
from typing import Any

import mmh3
import numpy as np

from greenroom_runtime.contract.evidence import WIDE_BUCKETS, WideBitmap
from greenroom_runtime.contract.flags import Shadow
from greenroom_runtime.contract.shadow import (
    DIFFERENCE_BOUNDS,
    SECONDS_BOUNDS,
    ProcessReport,
    SegmentCounts,
    ShadowCounts,
    ShadowTrials,
)
from greenroom_runtime.shadow.compare import Outcome, Verdict
from greenroom_runtime.shadow.frame import Frame

_SEEN, _FAILED, _DISAGREED, _SLOW = 1, 2, 4, 8
_NUMBERS = (
    "received",
    "stale",
    "unready",
    "not_comparable",
    "compared",
    "disagreed",
    "missing",
    "failed",
    "production_failed",
    "both_failed",
)
_COUNTED_AS = {
    Outcome.AGREED: "compared",
    Outcome.DISAGREED: "compared",
    Outcome.NOT_COMPARABLE: "not_comparable",
    Outcome.FAILED: "failed",
    Outcome.PRODUCTION_FAILED: "production_failed",
    Outcome.BOTH_FAILED: "both_failed",
}


class Classes:
    """A histogram by inclusive upper bounds; NaN is above all of them."""

    def __init__(self, bounds: tuple[float, ...], counts: Sequence[int] = ()) -> None:
        self._bounds = bounds
        self._counts = list(counts) if len(counts) == len(bounds) + 1 else [0] * (len(bounds) + 1)

    def add(self, value: float) -> None:
        """Count one."""
        self._counts[len(self._bounds) if isnan(value) else bisect_left(self._bounds, value)] += 1

    def report(self) -> tuple[int, ...]:
        """Return the counts; empty for none yet."""
        return tuple(self._counts) if any(self._counts) else ()


class Tally:
    """The counts of one epoch. Belongs to one event loop."""

    def __init__(self, known: ProcessReport) -> None:
        """Go on from what was told of the epoch before, by this process or another."""
        counts, trials = known.counts, known.trials
        self.epoch = known.epoch
        self._ratio = inf
        self._numbers = {name: getattr(counts, name) for name in _NUMBERS}
        self._differences = Classes(DIFFERENCE_BOUNDS, counts.differences)
        self._seconds = Classes(SECONDS_BOUNDS, counts.seconds)
        self._production_seconds = Classes(SECONDS_BOUNDS, counts.production_seconds)
        self._segments = [[one.compared, one.disagreed] for one in counts.segments]
        self._marks = _marks(trials)
        self._trials: ShadowTrials | None = trials

    @classmethod
    def of(cls, shadow: Shadow, *, before: "Tally") -> "Tally":
        """Return what counts for this shadow: the tally from before, where it is still the same epoch."""
        tally = before if before.epoch == shadow.epoch else cls(ProcessReport(epoch=shadow.epoch))
        tally.obey(shadow)
        return tally

    def obey(self, shadow: Shadow) -> None:
        """Learn what the epoch is about, which a report alone does not tell."""
        self._ratio = shadow.latency_ratio
        self._segments += [[0, 0] for _ in range(len(shadow.segments) - len(self._segments))]

    def stale(self, frames: int = 1) -> None:
        """Count frames of another epoch, or of another version than production."""
        self._numbers["received"] += frames
        self._numbers["stale"] += frames

    def unready(self) -> None:
        """Count a frame that came while the version was not ready."""
        self._numbers["received"] += 1
        self._numbers["unready"] += 1

    def count(self, frame: Frame, verdict: Verdict, *, seconds: float) -> None:
        """Count one frame; ``seconds`` is what the shadow took for it, where it answered."""
        outcome = verdict.outcome
        self._numbers["received"] += 1
        self._numbers[_COUNTED_AS[outcome]] += 1
        compared = outcome in (Outcome.AGREED, Outcome.DISAGREED)
        if compared:
            self._count_compared(frame, verdict, seconds=seconds)
        if compared or outcome is Outcome.FAILED:
            self._try(frame, outcome, seconds=seconds)

    def report(self) -> tuple[ShadowCounts, ShadowTrials]:
        """Return what was counted since the epoch began."""
        if self._trials is None:
            self._trials = _bitmaps(self._marks)
        counts = ShadowCounts(
            **self._numbers,
            differences=self._differences.report(),
            seconds=self._seconds.report(),
            production_seconds=self._production_seconds.report(),
            segments=tuple(SegmentCounts(compared=one, disagreed=other) for one, other in self._segments),
        )
        return counts, self._trials

    def _count_compared(self, frame: Frame, verdict: Verdict, *, seconds: float) -> None:
        disagreed = verdict.outcome is Outcome.DISAGREED
        self._numbers["disagreed"] += disagreed
        self._numbers["missing"] += verdict.missing
        if verdict.difference is not None:
            self._differences.add(verdict.difference)
        self._seconds.add(seconds)
        self._production_seconds.add(frame.seconds)
        for place in set(frame.segments):
            if 0 <= place < len(self._segments):
                self._segments[place][0] += 1
                self._segments[place][1] += disagreed

    def _try(self, frame: Frame, outcome: Outcome, *, seconds: float) -> None:
        """Mark what the first request of a bucket came to; later ones say nothing new of the same users."""
        bucket = mmh3.mmh3_32_uintdigest(f"{self.epoch}:{frame.key}".encode()) % WIDE_BUCKETS
        if self._marks[bucket]:
            return
        mark = _SEEN
        if outcome is Outcome.FAILED:
            mark |= _FAILED
        else:
            mark |= _DISAGREED if outcome is Outcome.DISAGREED else 0
            mark |= _SLOW if seconds > self._ratio * frame.seconds else 0
        self._marks[bucket] = mark
        self._trials = None


def _marks(trials: ShadowTrials) -> bytearray:
    marks = np.zeros(WIDE_BUCKETS, np.uint8)
    seen, failed, disagreed, slow = trials.seen, trials.failed, trials.disagreed, trials.slow
    for bitmap, mark in ((seen, _SEEN), (failed, _FAILED), (disagreed, _DISAGREED), (slow, _SLOW)):
        packed = np.frombuffer(bitmap.bits.to_bytes(WIDE_BUCKETS // 8, "little"), np.uint8)
        marks |= np.unpackbits(packed, bitorder="little") * np.uint8(mark)
    return bytearray(marks.tobytes())


def _bitmaps(marked: bytearray) -> ShadowTrials:
    marks = np.frombuffer(bytes(marked), np.uint8)
    return ShadowTrials(
        seen=_bitmap(marks, _SEEN),
        failed=_bitmap(marks, _FAILED),
        disagreed=_bitmap(marks, _DISAGREED),
        slow=_bitmap(marks, _SLOW),
    )


def _bitmap(marks: np.ndarray[Any, np.dtype[np.uint8]], which: int) -> WideBitmap:
    return WideBitmap(int.from_bytes(np.packbits(marks & which != 0, bitorder="little").tobytes(), "little"))
