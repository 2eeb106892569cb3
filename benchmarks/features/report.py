"""What the measurements say, as tables. Pure."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Final

from benchmarks.features.hit import HitCost

OURS: Final = "greenroom"
WELL, SLOW, DEAD, LIMITED = "all is well", "Redis +200 ms", "Redis dead", "upstream rate-limited"
SCENARIOS: Final = (WELL, SLOW, DEAD, LIMITED)


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One contender in one scenario, one round."""

    contender: str
    scenario: str
    round: int
    requests: int
    failures: Mapping[str, int]
    p50_ms: float
    p99_ms: float
    upstream_calls_per_second: float


@dataclass(frozen=True, kw_only=True)
class Goal:
    """Something to be reached."""

    text: str
    limit: float
    value: Callable[[Sequence[Cell]], float]


def percentile(values: Sequence[float], share: float) -> float:
    """Return the smallest value that at least this share of them does not exceed; 0 of none."""
    if not values:
        return 0.0
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, max(0, -int(-share * len(ordered) // 1) - 1))]


def _ratio(scenario: str) -> Callable[[Sequence[Cell]], float]:
    """Compare the p99 of a scenario with that of the same round when all was well; the median of rounds."""

    def value(cells: Sequence[Cell]) -> float:
        p99 = {(cell.scenario, cell.round): cell.p99_ms for cell in cells if cell.contender == OURS}
        rounds = {number for _, number in p99}
        return median(p99[scenario, number] / p99[WELL, number] for number in rounds)

    return value


def _failed(scenario: str) -> Callable[[Sequence[Cell]], float]:
    def value(cells: Sequence[Cell]) -> float:
        ours = [cell for cell in cells if (cell.contender, cell.scenario) == (OURS, scenario)]
        return float(sum(sum(cell.failures.values()) for cell in ours))

    return value


GOALS: Final = (
    Goal(text="p99 with Redis +200 ms, of the healthy p99", limit=1.5, value=_ratio(SLOW)),
    Goal(text="p99 with Redis dead, of the healthy p99", limit=1.2, value=_ratio(DEAD)),
    Goal(text="failures with Redis dead", limit=0, value=_failed(DEAD)),
)


def table(cells: Sequence[Cell]) -> str:
    """Return medians over rounds with the least and the most; failures are sums."""
    lines = [
        "| scenario | cache | p50 ms | p99 ms | failed | of requests | calls/s upstream |",
        "|---|---|---|---|---|---|---|",
    ]
    contenders = list(dict.fromkeys(cell.contender for cell in cells))
    for scenario in SCENARIOS:
        for contender in contenders:
            mine = [cell for cell in cells if (cell.contender, cell.scenario) == (contender, scenario)]
            if mine:
                lines.append(f"| {scenario} | {contender} | {_row(mine)} |")
    return "\n".join(lines) + "\n"


def _row(cells: Sequence[Cell]) -> str:
    failed = sum(sum(cell.failures.values()) for cell in cells)
    kinds = sorted({kind for cell in cells for kind in cell.failures})
    told = f"{failed} ({', '.join(kinds)})" if failed else "0"
    parts = [
        _spread([cell.p50_ms for cell in cells], digits=2),
        _spread([cell.p99_ms for cell in cells], digits=1),
        told,
        str(sum(cell.requests for cell in cells)),
        _spread([cell.upstream_calls_per_second for cell in cells], digits=0),
    ]
    return " | ".join(parts)


def _spread(values: Sequence[float], *, digits: int) -> str:
    middle = f"{median(values):.{digits}f}"
    return f"{middle} ({min(values):.{digits}f}-{max(values):.{digits}f})" if len(values) > 1 else middle


def goals_table(cells: Sequence[Cell], hits: Sequence[HitCost]) -> str:
    """Return what was to be reached, and whether it was."""
    lines = ["| greenroom's | goal | measured | |", "|---|---|---|---|"]
    for goal in GOALS:
        found = goal.value(cells)
        lines.append(
            f"| {goal.text} | at most {goal.limit:g} | {found:.2f} | {_verdict(found <= goal.limit)} |"
        )
    lines += [
        f"| CPU time of {hit.name} | at most 5 µs | {hit.median_us:.1f} ({hit.least_us:.1f} at least) | "
        f"{_verdict(hit.median_us <= 5)} |"
        for hit in hits
    ]
    return "\n".join(lines) + "\n"


def _verdict(met: bool) -> str:  # noqa: FBT001 it is the whole question
    return "met" if met else "**not met**"
