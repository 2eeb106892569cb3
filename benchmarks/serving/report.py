"""From measurements to a table of ratios, with the goals beside it. No I/O."""

import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from benchmarks.serving.results import Cell, Results, Start

OURS = "greenroom"
BASE = "fastapi-naive"
_BUSY = 0.5
"""A machine with more load than this, before we begin, is not quiet."""


@dataclass(frozen=True, kw_only=True)
class Spread:
    """A median over rounds, and how far the rounds lie apart."""

    median: float
    low: float
    high: float

    def told(self, spec: str = ",.0f") -> str:
        """Return ``median (low-high)``."""
        return f"{self.median:{spec}} ({self.low:{spec}}-{self.high:{spec}})"


def spread(values: Iterable[float]) -> Spread | None:
    """Return None where there are no values."""
    known = list(values)
    if not known:
        return None
    return Spread(median=statistics.median(known), low=min(known), high=max(known))


Values = Mapping[int, float]
"""By round."""


def cell_values(
    results: Results, contender: str, connections: int, read: Callable[[Cell], float]
) -> dict[int, float]:
    """Return what one contender's cells say, by round."""
    return {
        cell.round: read(cell)
        for cell in results.cells
        if (cell.contender, cell.connections) == (contender, connections)
    }


def start_values(results: Results, contender: str, read: Callable[[Start], float]) -> dict[int, float]:
    """Return what one contender's starts say, by round."""
    return {start.round: read(start) for start in results.starts if start.contender == contender}


def ratio(
    ours: Values, theirs: Sequence[Values], *, best: Callable[[Iterable[float]], float]
) -> Spread | None:
    """Return our value over the best of theirs, round by round: rounds are near in time, so noise cancels."""
    rounds = [number for number in sorted(ours) if all(number in values for values in theirs)]
    return spread(ours[number] / best(values[number] for values in theirs) for number in rounds)


@dataclass(frozen=True, kw_only=True)
class Goal:
    """One line of what issue 4 asks for."""

    text: str
    against: tuple[str, ...]
    """Several names stand for ways to run one peer: the best of them counts."""
    bound: float
    sense: Literal["at least", "at most"]
    measure: Callable[[Results, str], Values]


def _rps(results: Results, contender: str) -> Values:
    return cell_values(results, contender, 32, lambda cell: cell.rps)


def _cpu(results: Results, contender: str) -> Values:
    return cell_values(results, contender, 32, lambda cell: cell.cpu_us)


def _core(results: Results, contender: str) -> Values:
    return cell_values(results, contender, 32, lambda cell: cell.cpu_us * cell.rps / 1e4)


def _p99(results: Results, contender: str) -> Values:
    return cell_values(results, contender, 8, lambda cell: cell.p99_us)


def _rss(results: Results, contender: str) -> Values:
    return start_values(results, contender, lambda start: start.rss_mib)


def _cold(results: Results, contender: str) -> Values:
    return start_values(results, contender, lambda start: start.cold_start_s)


def _faster(peer: str, bound: float, *against: str) -> Goal:
    text = f"requests/s at 32 connections, of {peer}"
    return Goal(text=text, against=against, bound=bound, sense="at least", measure=_rps)


def _less(
    what: str, bound: float, against: tuple[str, ...], measure: Callable[[Results, str], Values]
) -> Goal:
    return Goal(text=what, against=against, bound=bound, sense="at most", measure=measure)


KSERVE, MLSERVER = ("kserve-v1", "kserve-v2"), ("mlserver",)
BENTOML = ("bentoml", "bentoml-async")
GOALS = (
    _faster("naive FastAPI", 4, BASE),
    _faster("KServe", 6, *KSERVE),
    _faster("MLServer", 6, *MLSERVER),
    _faster("BentoML", 8, *BENTOML),
    _faster("Mosec, one row at a time", 1.3, "mosec"),
    _faster("Mosec with dynamic batches", 1.3, "mosec-batched"),
    _faster("bare ASGI with msgspec", 0.8, "asgi-msgspec"),
    _faster("bare ASGI with pydantic", 0.8, "asgi-pydantic"),
    _less("p99 at 8 connections, of bare ASGI with msgspec", 1.3, ("asgi-msgspec",), _p99),
    _less("RSS, of MLServer", 1, MLSERVER, _rss),
    _less("RSS, of BentoML", 1, BENTOML, _rss),
    _less("time to the first answer, of MLServer", 0.5, MLSERVER, _cold),
    _less("time to the first answer, of BentoML", 0.5, BENTOML, _cold),
)


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """A goal and what was measured of it."""

    goal: Goal
    measured: Spread
    by_cpu: Spread | None = None
    """For a throughput, the ratio of CPU time per request: what others do on the machine hardly moves it."""

    @property
    def met(self) -> bool:
        """Whether the median keeps to the bound."""
        if self.goal.sense == "at least":
            return self.measured.median >= self.goal.bound
        return self.measured.median <= self.goal.bound


def judge(results: Results, goals: Iterable[Goal] = GOALS) -> list[Verdict]:
    """Return a verdict for each goal whose contenders have been measured."""
    verdicts = []
    for goal in goals:
        best: Callable[[Iterable[float]], float] = max if goal.measure is _rps else min
        peers = [name for name in goal.against if goal.measure(results, name)]
        theirs = [goal.measure(results, name) for name in peers]
        if theirs and (measured := ratio(goal.measure(results, OURS), theirs, best=best)):
            by_cpu = _cpu_ratio(results, peers) if goal.measure is _rps else None
            verdicts.append(Verdict(goal=goal, measured=measured, by_cpu=by_cpu))
    return verdicts


def _cpu_ratio(results: Results, peers: Sequence[str]) -> Spread | None:
    ours = _cpu(results, OURS)
    theirs = [_cpu(results, name) for name in peers]
    rounds = [number for number in ours if all(number in values for values in theirs)]
    return spread(min(values[number] for values in theirs) / ours[number] for number in rounds)


def markdown(results: Results, about: Mapping[str, str]) -> str:
    """Return the whole report."""
    parts = [
        f"# The serving runtime beside its peers, {results.date}",
        _circumstances(results),
        "## Goals",
        goals_table(judge(results)),
        "## Requests per second",
        throughput_table(results),
        "## Latency, CPU, memory, start",
        cost_table(results),
        "## Who is who",
        _legend(results, about),
        *_failures(results),
    ]
    return "\n\n".join(parts) + "\n"


def memory_markdown(results: Results) -> str:
    """Return what concerns start-up and memory alone."""
    goals = [goal for goal in GOALS if goal.measure in (_rss, _cold)]
    parts = [
        f"# Start-up and memory beside peers, {results.date}",
        _circumstances(results),
        goals_table(judge(results, goals)),
        cost_table(results),
        *_failures(results),
    ]
    return "\n\n".join(parts) + "\n"


def _failures(results: Results) -> list[str]:
    if not results.failures:
        return []
    return ["## Not measured", *(f"- {name}: {why}" for name, why in results.failures.items())]


def _circumstances(results: Results) -> str:
    machine = results.machine
    told = (
        f"{machine.cpu}, {machine.cores} cores, kernel {machine.kernel}, Python {machine.python}; "
        f"{results.rounds} interleaved rounds of {results.seconds:g} s a cell after warm-up, one row a "
        "request; the server on one core, wrk on another. Cells are median (min-max) over rounds, ratios are "
        "taken within a round. Read ratios: absolute numbers are this machine's."
    )
    if machine.load_before > _BUSY:
        told += f"\n\n**The machine was not quiet** (load {machine.load_before:.1f} before): rough numbers."
    return told


def goals_table(verdicts: Sequence[Verdict]) -> str:
    """Return the goals with what was measured beside them."""
    head = "| greenroom's | goal | measured | by CPU time per request | |"
    rows = [
        f"| {verdict.goal.text} | {verdict.goal.sense} {verdict.goal.bound:g}x | "
        f"{verdict.measured.told('.2f')} | {verdict.by_cpu.told('.2f') if verdict.by_cpu else ''} | "
        f"{'met' if verdict.met else '**not met**'} |"
        for verdict in verdicts
    ]
    return "\n".join([head, "|---|---|---|---|---|", *rows])


def throughput_table(results: Results) -> str:
    """Return requests/s with the ratios to naive FastAPI and of ours to each."""
    ours, base = _rps(results, OURS), _rps(results, BASE)
    rows = []
    for name in results.contenders():
        rates = [
            _told(cell_values(results, name, connections, lambda cell: cell.rps), ",.0f")
            for connections in (1, 8, 32)
        ]
        theirs = _rps(results, name)
        x_base = ratio(theirs, [base], best=max)
        x_ours = ratio(ours, [theirs], best=max)
        ratios = [each.told(".2f") if each else "-" for each in (x_base, x_ours)]
        rows.append(f"| {name} | {' | '.join(rates)} | {' | '.join(ratios)} |")
    head = "| server | 1 connection | 8 | 32 | x naive FastAPI at 32 | greenroom is x times it at 32 |"
    return "\n".join([head, "|---|---|---|---|---|---|", *rows])


def cost_table(results: Results) -> str:
    """Return what an answer costs, and what the server costs that waits for it."""
    rows = []
    for name in results.contenders():
        cells = [
            _told(cell_values(results, name, 8, lambda cell: cell.p50_us / 1000), ".2f"),
            _told(cell_values(results, name, 8, lambda cell: cell.p99_us / 1000), ".2f"),
            _told(cell_values(results, name, 32, lambda cell: cell.p99_us / 1000), ".2f"),
            _told(_cpu(results, name), ",.0f"),
            _told(_core(results, name), ".0f"),
            _told(start_values(results, name, lambda start: start.rss_mib), ",.0f"),
            _told(start_values(results, name, lambda start: start.pss_mib), ",.0f"),
            _told(_cold(results, name), ".2f"),
            str(sum(cell.errors for cell in results.cells if cell.contender == name)),
        ]
        rows.append(f"| {name} | {' | '.join(cells)} |")
    head = (
        "| server | p50 ms, 8 | p99 ms, 8 | p99 ms, 32 | CPU us/request, 32 | % of the core, 32 | "
        "RSS MiB | PSS MiB | first answer s | errors |"
    )
    return "\n".join([head, "|" + "---|" * 10, *rows])


def _told(values: Values, spec: str) -> str:
    told = spread(values.values())
    return told.told(spec) if told else "-"


def _legend(results: Results, about: Mapping[str, str]) -> str:
    shown = (
        "mosec",
        "kserve",
        "mlserver",
        "bentoml",
        "litserve",
        "fastapi",
        "uvicorn",
        "onnxruntime",
        "pydantic",
    )
    lines = []
    for name in results.contenders():
        pins = results.versions.get(name, {})
        told = ", ".join(f"{package} {pins[package]}" for package in shown if package in pins)
        lines.append(f"- **{name}**: {about.get(name, '')}{f' ({told})' if told else ''}")
    return "\n".join(lines)
