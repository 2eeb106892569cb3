"""What the measurements say, as a table. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median, quantiles

from benchmarks.serving.load import Load
from benchmarks.shadow.cells import CELLS, Cell
from benchmarks.shadow.cost import Cost

COST_GOAL_US = 6.0


@dataclass(frozen=True, kw_only=True)
class Pair:
    """One cell in one round, beside the same server without a shadow, right before it or after it."""

    cell: str
    round: int
    without: Load
    mirrored: Load
    cpu_without_us: float
    """CPU time of the server, a request."""
    cpu_mirrored_us: float
    offered: int
    sent: int

    @property
    def throughput(self) -> float:
        """What is left of the requests a second."""
        return _rate(self.mirrored) / _rate(self.without)


def _rate(load: Load) -> float:
    return load.requests / load.seconds


_HEAD = (
    "100 % mirrored to",
    "throughput, of that without",
    "goal",
    "requests/s without, with",
    "server's CPU µs a request",
    "p50 µs",
    "p99 µs",
    "sent",
    "failed",
)


def table(pairs: Sequence[Pair]) -> str:
    """Return medians over rounds, with the quartiles; shares are of all rounds."""
    rows = [_HEAD, ("---",) * len(_HEAD)]
    for cell in CELLS:
        mine = [pair for pair in pairs if pair.cell == cell.name]
        if mine:
            rows.append(_row(cell, mine))
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)


def _row(cell: Cell, pairs: Sequence[Pair]) -> tuple[str, ...]:
    offered = sum(pair.offered for pair in pairs)
    return (
        cell.about,
        _spread([pair.throughput for pair in pairs]),
        "" if cell.goal is None else f"{cell.goal:g}: {'met' if is_met(cell, pairs) else '**not met**'}",
        _both([_rate(pair.without) for pair in pairs], [_rate(pair.mirrored) for pair in pairs]),
        _both([pair.cpu_without_us for pair in pairs], [pair.cpu_mirrored_us for pair in pairs]),
        _both([pair.without.p50_us for pair in pairs], [pair.mirrored.p50_us for pair in pairs]),
        _both([pair.without.p99_us for pair in pairs], [pair.mirrored.p99_us for pair in pairs]),
        f"{100 * sum(pair.sent for pair in pairs) / offered:.1f} %" if offered else "",
        str(sum(pair.mirrored.errors + pair.without.errors for pair in pairs)),
    )


def _spread(values: Sequence[float]) -> str:
    low, middle, high = quantiles(values, n=4) if len(values) > 1 else (*values, *values, *values)
    return f"{middle:.3f} ({low:.3f}-{high:.3f})"


def _both(without: Sequence[float], mirrored: Sequence[float]) -> str:
    return f"{median(without):.0f}, {median(mirrored):.0f}"


def cost_table(costs: Sequence[Cost]) -> str:
    """Return what an answer costs, beside what it may."""
    lines = ["| an answer, CPU µs | goal | median | least |\n| --- | --- | --- | --- |\n"]
    for cost in costs:
        verdict = "met" if cost.median_us < COST_GOAL_US else "**not met**"
        lines.append(
            f"| {cost.name} | {COST_GOAL_US:g}: {verdict} | {cost.median_us:.1f} | {cost.least_us:.1f} |\n"
        )
    return "".join(lines)


def is_met(cell: Cell, pairs: Sequence[Pair]) -> bool:
    """Tell whether the median of the rounds reaches the cell's goal, and no request has failed."""
    mine = [pair for pair in pairs if pair.cell == cell.name]
    failed = any(pair.mirrored.errors or pair.without.errors for pair in mine)
    if cell.goal is None or not mine:
        return not failed
    return not failed and median(pair.throughput for pair in mine) >= cell.goal
