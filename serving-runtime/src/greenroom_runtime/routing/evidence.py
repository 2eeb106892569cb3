"""Counting what becomes of a rollout's users, beside what becomes of as many of production's.

**Whom.** Users about whom the percentage decides. Users of rules are chosen, not drawn by lot; a request
without a key belongs to nobody who could be told apart.

**Alike.** A second hash of the text that the router hashes, independent of the first, thins the larger of
the two arms. A share ``s`` of users has the rollout's version; they are counted at the rate ``min(1,
(1-s)/s)``, the others at ``min(1, s/(1-s))``. So a user is counted in either arm with the same probability
``min(s, 1-s)``, whoever it is: where the versions make no difference, each one who is counted is in either
arm with a probability of exactly 1/2. And both arms' buckets are filled alike: the fuller ones would have
hidden harm, since a bucket fails only once. For the same reason what one version could not have answered is
not counted of the other either (`predictor.py`).

**Once.** Some users send a thousand times as many requests as others, and fail each time or never. So what
is counted is not requests but buckets of users: whether one of a bucket's users was answered with a 5xx, and
whether the first answer of the bucket was slow.

**Slow.** An answer of production's is slow above a quantile of this pod's own latest answers by production,
which is learnt again and again; one of the rollout's above ``latency_ratio`` times that. A version that
is just so many times slower has as many slow answers as production, whatever else the pod is busy with and
however that changes, since the threshold is settled before the answers that it is applied to.
"""

from dataclasses import replace
from math import inf
from typing import Any

import mmh3
import numpy as np

from greenroom_runtime.contract.evidence import (
    BUCKETS,
    SLOW_QUANTILE,
    ArmEvidence,
    Bitmap,
    RolloutEvidence,
)
from greenroom_runtime.contract.flags import BUCKET_END, WHOLE, Rollout

_SEED = 1
"""The router's is 0, and the text that it hashes begins with a length."""
_HASHES = 2**32
_OK = 200
_SERVER_ERROR = 500
_RECENT = 256
"""Production's latest answers, of which the quantile is taken."""
_LEARN_EVERY = 64
"""Answers of production's after which the quantile is taken, the first time as well."""
_SEEN, _FAILED, _TIMED, _SLOW = 1, 2, 4, 8


class ArmCounter:
    """The users of one version."""

    __slots__ = ("errors", "limit", "marks", "requests", "threshold")

    def __init__(self, *, rate: float) -> None:
        """Count this share of the users in buckets."""
        self.limit = round(rate * _HASHES)
        self.marks = bytearray(BUCKETS)
        self.threshold = inf
        """Seconds above which an answer is slow; infinite as long as that is not known."""
        self.requests = 0
        self.errors = 0

    def first_marks(self, seconds: float) -> int:
        """Return the marks of a bucket that is answered well for the first time."""
        if self.threshold == inf:
            return _SEEN
        return _SEEN | _TIMED | _SLOW if seconds > self.threshold else _SEEN | _TIMED

    def report(self) -> ArmEvidence:
        """Return what was counted."""
        marks = np.frombuffer(bytes(self.marks), np.uint8)
        return ArmEvidence(
            seen=_bitmap(marks, _SEEN),
            failed=_bitmap(marks, _FAILED),
            timed=_bitmap(marks, _TIMED),
            slow=_bitmap(marks, _SLOW),
            requests=self.requests,
            errors=self.errors,
        )


class EvidenceCounter:
    """What one epoch of a rollout has come to in this process. Belongs to one event loop."""

    def __init__(self, rollout: Rollout) -> None:
        """Begin to count; the rollout is to some users, neither to none nor to all."""
        share = rollout.hundredths / WHOLE
        self.settings = _settings(rollout)
        self.version = rollout.version
        self.rollout = ArmCounter(rate=min(1.0, (1 - share) / share))
        self.production = ArmCounter(rate=min(1.0, share / (1 - share)))
        self._epoch = rollout.epoch
        self._start = rollout.bucket_start
        self._ratio = rollout.latency_ratio
        self._recent: list[float] = []
        self._learnt = 0

    def count(self, arm: ArmCounter, key: str, *, status: int, seconds: float) -> None:
        """Count the answer to a user of this arm, by the key that decided about the version.

        What a request itself was refused for, a 4xx, says nothing of a version and is not counted.
        """
        failed = status >= _SERVER_ERROR
        if status != _OK and not failed:
            return
        try:
            text = f"{self._start}{key}{BUCKET_END}".encode()
        except UnicodeEncodeError:  # no hash decided about this one
            return
        arm.requests += 1
        place = mmh3.mmh3_32_uintdigest(text, _SEED)
        if place < arm.limit:
            bucket = place % BUCKETS
            mark = arm.marks[bucket]
            if failed:
                arm.marks[bucket] = mark | _SEEN | _FAILED
            elif not mark & _TIMED:
                arm.marks[bucket] = mark | arm.first_marks(seconds)
        if failed:
            arm.errors += 1
        elif arm is self.production:
            self._learn(seconds)  # at last: no answer has a say in whether it is slow itself

    def report(self) -> RolloutEvidence:
        """Return what was counted since the epoch began in this process."""
        return RolloutEvidence(
            epoch=self._epoch,
            version=self.version,
            rollout=self.rollout.report(),
            production=self.production.report(),
        )

    def _learn(self, seconds: float) -> None:
        """Remember an answer of production's, and now and then learn from the latest what is slow."""
        if len(self._recent) < _RECENT:
            self._recent.append(seconds)
        else:
            self._recent[self._learnt % _RECENT] = seconds
        self._learnt += 1
        if self._learnt % _LEARN_EVERY == 0:
            ordered = sorted(self._recent)
            self.production.threshold = ordered[int(len(ordered) * SLOW_QUANTILE)]
            self.rollout.threshold = self.production.threshold * self._ratio


def count_evidence(rollout: Rollout | None, *, before: EvidenceCounter | None) -> EvidenceCounter | None:
    """Return what counts for this rollout, the counter from before where it is still the same epoch.

    None where nothing is to be counted: without an epoch, or where one of the arms is empty.
    """
    if rollout is None or not rollout.epoch or not 0 < rollout.hundredths < WHOLE:
        return None
    if before is not None and before.settings == _settings(rollout):
        return before
    return EvidenceCounter(rollout)


def _settings(rollout: Rollout) -> Rollout:
    """Return what the counts depend on: rules only decide whom they are not about."""
    return replace(rollout, rules=())


def _bitmap(marks: np.ndarray[Any, np.dtype[np.uint8]], which: int) -> Bitmap:
    return Bitmap(int.from_bytes(np.packbits(marks & which != 0, bitorder="little").tobytes(), "little"))
