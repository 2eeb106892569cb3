"""Shadows before each judge, and a table of what became of them."""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from benchmarks.gates.shadow.cases import LOOK_SECONDS, ShadowCase
from benchmarks.gates.shadow.judges import OTHERS, OURS, Decision, gate
from benchmarks.gates.shadow.world import ShadowWorld
from greenroom_operator.controller.gate import Outcome

HEAD = (
    "| shadow | truth | gate: passed | failed | undecided | buckets | requests | minutes | "
    "z-test: passed | failed | thresholds: passed | failed |\n"
    "|---|---|---|---|---|---|---|---|---|---|---|---|\n"
)
"""The table's, in Markdown."""


@dataclass(frozen=True, kw_only=True)
class Watched:
    """What became of one shadow."""

    decisions: Mapping[str, Decision]
    """By judge."""
    buckets: int
    """When our gate came to its verdict; 0 where it did not."""
    requests: int


def watch(case: ShadowCase, seed: Sequence[int], *, min_duration: float = 0.0) -> Watched:
    """Have each judge look at the same shadow; ours gives no verdict before so many seconds."""
    world = ShadowWorld(case, seed)
    buckets, requests = world.count_buckets(), world.count_requests()
    decisions = {name: judge(buckets, requests) for name, judge in OTHERS.items()}
    decisions[OURS] = gate(buckets, requests, min_duration=min_duration)
    look = decisions[OURS].look
    return Watched(
        decisions=decisions,
        buckets=0 if look is None else int(buckets.requests[look]),
        requests=0 if look is None else int(requests.requests[look]),
    )


def share_of(shadows: Sequence[Watched], judge: str, outcome: Outcome) -> float:
    """Return the share of the shadows of which a judge made this."""
    return statistics.fmean(shadow.decisions[judge].outcome is outcome for shadow in shadows)


def row(case: ShadowCase, shadows: Sequence[Watched]) -> str:
    """Return a line of the table; buckets, requests and minutes are medians until our gate's verdict."""
    decided = [shadow for shadow in shadows if shadow.decisions[OURS].look is not None]
    looks = [shadow.decisions[OURS].look or 0 for shadow in decided]
    known = len(decided) > len(shadows) / 2  # else there is no median to tell
    cells = [
        case.name,
        case.truth.value,
        *(f"{share_of(shadows, OURS, outcome):.1%}" for outcome in Outcome),
        f"{statistics.median(shadow.buckets for shadow in decided):,.0f}" if known else "",
        f"{statistics.median(shadow.requests for shadow in decided):,.0f}" if known else "",
        f"{(statistics.median(looks) + 1) * LOOK_SECONDS / 60:.1f}" if known else "",
        *(
            f"{share_of(shadows, judge, outcome):.1%}"
            for judge in ("z-test", "thresholds")
            for outcome in (Outcome.PASS, Outcome.FAIL)
        ),
    ]
    return f"| {' | '.join(cells)} |\n"
