"""What all shadows have counted together, while pods come and go and the operator restarts. Pure.

A shadow's numbers rise for as long as it lives, so what it told last is what it has to give, however often it
is asked. What is kept of each one that is there is just that; of those that are gone, the sum.
"""

import binascii
import json
import zlib
from base64 import b64decode, b64encode
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from itertools import zip_longest
from typing import Any, Final

from pydantic import TypeAdapter

from greenroom_runtime.contract.report import INT64_MAX
from greenroom_runtime.contract.shadow import (
    DIFFERENCE_BOUNDS,
    SECONDS_BOUNDS,
    Count,
    SegmentCounts,
    ShadowCounts,
    ShadowReport,
)

MAX_SHADOWS: Final = 512
"""Further ones are not counted: what they would add is no news, and status has to hold what each has told."""
MAX_BYTES: Final = 2 * 1024 * 1024
"""Of the text's content: what 512 shadows can tell at most."""

_SCALARS: Final = tuple(name for name, known in ShadowCounts.model_fields.items() if known.default == 0)
_HISTOGRAMS: Final = {
    "differences": len(DIFFERENCE_BOUNDS) + 1,
    "seconds": len(SECONDS_BOUNDS) + 1,
    "production_seconds": len(SECONDS_BOUNDS) + 1,
}

Numbers = tuple[Count, ...]
"""All of `ShadowCounts` in one row, without the zeros at its end."""


@dataclass(frozen=True, kw_only=True)
class ShadowView:
    """One shadow, as last observed."""

    pod: str
    uid: str
    """Its pod's."""
    report: ShadowReport | None = None
    """The newest report; None when it has not reported, or not lately."""
    former: ShadowReport | None = None
    """What the life before this one of its supervisor told last."""
    silent: bool = False
    """Whether it has been asked for long enough: without, a missing report may just not be here yet."""
    gone: bool = False
    """Whether its pod is no more: what it told last is still to be counted."""

    @property
    def unheard(self) -> bool:
        """Whether it is there and has not had the time to say anything, as when the operator starts."""
        return self.report is None and not self.silent and not self.gone


@dataclass(frozen=True, kw_only=True)
class Told:
    """What one life of a shadow's supervisor has told."""

    instance: str
    numbers: Numbers = ()
    """Of this epoch."""
    ends: Count = 0
    """How often a process ended that should not have, in its whole life."""
    ends_before: Count = 0
    """How many of those were before the epoch."""


@dataclass(frozen=True, kw_only=True)
class Counted:
    """What all shadows have counted in one epoch."""

    gone: Numbers = ()
    """The sum of those that are no more."""
    crashes_gone: Count = 0
    """How often their processes ended that should not have."""
    shadows: Mapping[str, Told] = field(default_factory=dict)
    """By their pod's uid."""
    dropped: Count = 0
    """Requests that serving pods could not hand over."""
    mirrors: Mapping[str, Count] = field(default_factory=dict)
    """What each serving pod had told of those."""

    @property
    def total(self) -> ShadowCounts:
        """The sum over all shadows that there are and were."""
        return _to_counts(_add([self.gone, *(told.numbers for told in self.shadows.values())]))

    @property
    def lives(self) -> frozenset[tuple[str, str]]:
        """The pod and the instance of each shadow that there is.

        Where they change status has to be written: what one told that is not there can be heard no more.
        """
        return frozenset((uid, told.instance) for uid, told in self.shadows.items())

    @property
    def crashes(self) -> int:
        """How often a process ended that should not have, a supervisor that was killed included."""
        since = (told.ends - told.ends_before for told in self.shadows.values())
        return min(self.crashes_gone + sum(since), INT64_MAX)

    def observe(
        self, shadows: Iterable[ShadowView], *, epoch: str, mirrors: Mapping[str, int | None]
    ) -> "Counted":
        """Return the counts with what all shadows tell now.

        ``mirrors`` are the serving pods that there are, by name, with what each says that it could not hand
        over; None where it says nothing.
        """
        counted = self._hear_mirrors(mirrors)
        views = sorted(shadows, key=lambda view: view.uid)
        for view in views:
            known = counted.shadows.get(view.uid)
            if view.former is not None and (known is None or known.instance == view.former.instance):
                counted = counted.hear(view.uid, view.former, epoch=epoch)
            if view.report is not None:
                counted = counted.hear(view.uid, view.report, epoch=epoch)
        left = counted.shadows.keys() - {view.uid for view in views if not view.gone}
        for uid in sorted(left):
            counted = counted.fold(uid)
        return counted

    def begin(self) -> "Counted":
        """Return the counts at the beginning of another epoch: none, and where each shadow stands now."""
        shadows = {
            uid: Told(instance=told.instance, ends=told.ends, ends_before=told.ends)
            for uid, told in self.shadows.items()
        }
        return Counted(shadows=shadows, mirrors=self.mirrors)

    def hear(self, uid: str, report: ShadowReport, *, epoch: str) -> "Counted":
        """Return the counts with what one shadow tells, however often it has told it."""
        known = self.shadows.get(uid)
        if known is None and len(self.shadows) >= MAX_SHADOWS:
            return self
        if known is not None and known.instance != report.instance:
            # A supervisor does not end by itself: most likely the container was out of memory.
            folded = self.fold(uid)
            return replace(folded, crashes_gone=folded.crashes_gone + 1).hear(uid, report, epoch=epoch)
        known = known or Told(instance=report.instance)
        process = report.process
        told = _to_numbers(process.counts) if process and epoch and process.epoch == epoch else ()
        pairs = zip_longest(known.numbers, told, fillvalue=0)
        heard = replace(known, numbers=tuple(map(max, pairs)), ends=max(known.ends, report.ends))
        return replace(self, shadows={**self.shadows, uid: heard})

    def fold(self, uid: str) -> "Counted":
        """Return the counts once a shadow is no more."""
        told = self.shadows[uid]
        return replace(
            self,
            gone=_add([self.gone, told.numbers]),
            crashes_gone=min(self.crashes_gone + told.ends - told.ends_before, INT64_MAX),
            shadows={one: other for one, other in self.shadows.items() if one != uid},
        )

    def _hear_mirrors(self, mirrors: Mapping[str, int | None]) -> "Counted":
        """Add what was dropped since; a process that began anew counts from 0 on."""
        dropped, known = self.dropped, dict[str, int]()
        for pod, told in mirrors.items():
            before = self.mirrors.get(pod, 0)
            now = before if told is None else told
            dropped += now - before if now >= before else now
            if now:
                known[pod] = now
        return replace(self, dropped=min(dropped, INT64_MAX), mirrors=known)


def _to_numbers(counts: ShadowCounts) -> Numbers:
    numbers = [getattr(counts, name) for name in _SCALARS]
    for name, length in _HISTOGRAMS.items():
        told = getattr(counts, name)
        numbers += [*told, *[0] * (length - len(told))]
    for segment in counts.segments:
        numbers += [segment.compared, segment.disagreed]
    return _trim(numbers)


def _to_counts(numbers: Numbers) -> ShadowCounts:
    row = [*numbers, *[0] * (len(_SCALARS) + sum(_HISTOGRAMS.values()) - len(numbers))]
    parts: dict[str, Any] = dict(zip(_SCALARS, row, strict=False))
    start = len(_SCALARS)
    for name, length in _HISTOGRAMS.items():
        parts[name] = tuple(row[start : start + length])
        start += length
    rest = [*row[start:], 0]  # a last zero may have been trimmed
    parts["segments"] = tuple(
        SegmentCounts(compared=compared, disagreed=disagreed)
        for compared, disagreed in zip(rest[::2], rest[1::2], strict=False)
    )
    return ShadowCounts.model_validate(parts)


def _add(rows: Sequence[Numbers]) -> Numbers:
    return _trim([min(sum(numbers), INT64_MAX) for numbers in zip_longest(*rows, fillvalue=0)])


def _trim(numbers: Sequence[int]) -> Numbers:
    end = len(numbers)
    while end and not numbers[end - 1]:
        end -= 1
    return tuple(numbers[:end])


_COUNTED: Final = TypeAdapter(Counted)


def dump_counted(counted: Counted) -> str:
    """Return the text in status: the same for the same counts."""
    document = _COUNTED.dump_python(counted, mode="json", exclude_defaults=True)
    content = json.dumps(document, separators=(",", ":"), sort_keys=True).encode()
    return b64encode(zlib.compress(content, 9)).decode()


@lru_cache(maxsize=32)  # a pass reads the same status several times
def parse_counted(text: str) -> Counted:
    """Read what `dump_counted` returns; ValueError for anything else, as after an upgrade or an edit."""
    packed = zlib.decompressobj()
    try:
        content = packed.decompress(b64decode(text, validate=True), MAX_BYTES)
    except (binascii.Error, zlib.error) as error:
        message = f"the counts are zlib's output in Base64: {error}"
        raise ValueError(message) from error
    if not packed.eof:
        message = f"the counts have more than {MAX_BYTES} bytes"
        raise ValueError(message)
    return _COUNTED.validate_json(content)
