"""Which of production's answers are mirrored: the flag store's shadow, compiled once per revision."""

from collections.abc import Mapping
from dataclasses import dataclass

from greenroom_runtime.contract.flags import DEFAULT_KEY, WHOLE, FlagStore
from greenroom_runtime.routing.router import find_place, spellings


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """One shadow, and the share of answers that it sees."""

    epoch: str
    """Goes with each frame."""
    start: str
    """What stands before the request's id in the text that is hashed."""
    hundredths: int
    segments: tuple[tuple[str, str], ...]
    """Attributes and values whose requests are counted apart; an empty attribute is the sticky key."""

    def takes(self, request_id: str) -> bool:
        """Tell whether the answer to the request of this id is mirrored, as any other pod would decide."""
        return self.hundredths == WHOLE or find_place(self.start, request_id) < self.hundredths

    def segments_of(self, key: str, context: Mapping[str, object]) -> list[int]:
        """Return the places of the segments that this user belongs to, by the router's own spellings."""
        return [
            place
            for place, (attribute, value) in enumerate(self.segments)
            if value in spellings(context.get(attribute) if attribute else key)
        ]


def compile_target(flags: FlagStore) -> Target | None:
    """Prepare one document's shadow; None where it names none."""
    shadow = flags.shadow
    if shadow is None:
        return None
    key = flags.rollout.key if flags.rollout else DEFAULT_KEY
    return Target(
        epoch=shadow.epoch,
        start=shadow.bucket_start,
        hundredths=shadow.hundredths,
        segments=tuple(
            ("" if attribute == key else attribute, value) for attribute, value in shadow.segments
        ),
    )
