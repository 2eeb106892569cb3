"""What the measurements say, as a table. Pure."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median, quantiles

from benchmarks.serving.load import Load
from benchmarks.shadow.cells import CELLS, FAULTS, Cell
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
    reader_cores: float
    """What the reader took of the processor, all of its processes together: 1 is one core all the time."""
    offered: int
    sent: int

    @property
    def throughput(self) -> float:
        """What is left of the requests a second."""
        return _rate(self.mirrored) / _rate(self.without)

    @property
    def p99(self) -> float:
        """How many times as long the slowest percent of answers takes."""
        return self.mirrored.p99_us / self.without.p99_us


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
    """Return medians over rounds, with the quartiles; shares are of all rounds. Empty for none of these."""
    return _lines(CELLS, _HEAD, _row, pairs)


_FAULT_HEAD = (
    "the shadow",
    "p99, of that without",
    "goal",
    "throughput, of that without",
    "requests/s without, with",
    "p99 µs",
    "the shadow's CPU, in cores",
    "sent",
    "failed",
)


def fault_table(pairs: Sequence[Pair]) -> str:
    """Return the same of what may be wrong with a shadow."""
    return _lines(FAULTS, _FAULT_HEAD, _fault_row, pairs)


def _lines(
    cells: Sequence[Cell],
    head: tuple[str, ...],
    row: Callable[[Cell, Sequence[Pair]], tuple[str, ...]],
    pairs: Sequence[Pair],
) -> str:
    measured = [(cell, [pair for pair in pairs if pair.cell == cell.name]) for cell in cells]
    rows = [row(cell, mine) for cell, mine in measured if mine]
    if not rows:
        return ""
    return "".join(f"| {' | '.join(row)} |\n" for row in (head, ("---",) * len(head), *rows))


def _row(cell: Cell, pairs: Sequence[Pair]) -> tuple[str, ...]:
    return (
        cell.about,
        _spread([pair.throughput for pair in pairs]),
        _told(cell, cell.goal, pairs),
        _both([_rate(pair.without) for pair in pairs], [_rate(pair.mirrored) for pair in pairs]),
        _both([pair.cpu_without_us for pair in pairs], [pair.cpu_mirrored_us for pair in pairs]),
        _both([pair.without.p50_us for pair in pairs], [pair.mirrored.p50_us for pair in pairs]),
        _both([pair.without.p99_us for pair in pairs], [pair.mirrored.p99_us for pair in pairs]),
        _sent(pairs),
        _failed(pairs),
    )


def _fault_row(cell: Cell, pairs: Sequence[Pair]) -> tuple[str, ...]:
    return (
        cell.about,
        _spread([pair.p99 for pair in pairs]),
        _told(cell, cell.p99_goal, pairs),
        _spread([pair.throughput for pair in pairs]),
        _both([_rate(pair.without) for pair in pairs], [_rate(pair.mirrored) for pair in pairs]),
        _both([pair.without.p99_us for pair in pairs], [pair.mirrored.p99_us for pair in pairs]),
        f"{median(pair.reader_cores for pair in pairs):.2f}",
        _sent(pairs),
        _failed(pairs),
    )


def _told(cell: Cell, goal: float | None, pairs: Sequence[Pair]) -> str:
    return "" if goal is None else f"{goal:g}: {'met' if is_met(cell, pairs) else '**not met**'}"


def _sent(pairs: Sequence[Pair]) -> str:
    offered = sum(pair.offered for pair in pairs)
    return f"{100 * sum(pair.sent for pair in pairs) / offered:.1f} %" if offered else ""


def _failed(pairs: Sequence[Pair]) -> str:
    return str(sum(pair.mirrored.errors + pair.without.errors for pair in pairs))


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
    """Tell whether the median of the rounds reaches the cell's goals, and no request has failed."""
    mine = [pair for pair in pairs if pair.cell == cell.name]
    if not mine:
        return True
    failed = any(pair.mirrored.errors or pair.without.errors for pair in mine)
    is_slow = cell.goal is not None and median(pair.throughput for pair in mine) < cell.goal
    is_late = cell.p99_goal is not None and median(pair.p99 for pair in mine) > cell.p99_goal
    return not (failed or is_slow or is_late)
