"""A shadow as status and the shadows themselves tell of it, drawn for a person."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from rich.console import Console, ConsoleOptions, Group, RenderableType
from rich.text import Text

from greenroom.output import tabulate
from greenroom_operator.controller.shadow_counts import parse_counted
from greenroom_runtime.contract.shadow import DIFFERENCE_BOUNDS, ShadowReport

_MACHINERY: Final = ("evidence", "counted")
"""What only the operator reads."""
_MOST_ROWS: Final = 10
_BAR_COLUMNS: Final = 40
_STATES: Final = {
    "Comparing": "green",
    "Over": "green",
    "Pass": "green",
    "Ready": "green",
    "Preparing": "cyan",
    "Waiting": "yellow",
    "Inconclusive": "yellow",
    "Broken": "bold red",
    "Fail": "bold red",
    "Failed": "bold red",
    "no": "bold red",
}


@dataclass(frozen=True, kw_only=True)
class ShadowSeen:
    """One shadow, and what its supervisor says."""

    pod: str
    report: ShadowReport | None = None
    silence: str = ""
    """Why there is no report."""

    def to_data(self) -> dict[str, Any]:
        """Return it as JSON carries it."""
        report = self.report and self.report.model_dump(mode="json", exclude={"process": {"trials"}})
        return {"pod": self.pod, "silence": self.silence, "report": report}


@dataclass(frozen=True, kw_only=True)
class Bar:
    """How many answers differ by at most so much, and by more than the bar before says."""

    up_to: float | None
    """None for all that is beyond the last bound."""
    answers: int


def without_machinery(shadow: Mapping[str, Any]) -> dict[str, Any]:
    """Return ``status.shadow`` without what only the operator reads, and with the histogram in it."""
    told = {key: value for key, value in shadow.items() if key not in _MACHINERY}
    bars = [{"upTo": bar.up_to, "answers": bar.answers} for bar in list_bars(shadow)]
    return told | ({"histogram": bars} if bars else {})


def list_bars(shadow: Mapping[str, Any]) -> list[Bar]:
    """Return the differences of all answers that were compared, as ``status.shadow`` has counted them.

    Nothing where no numbers were compared, or another release of the operator has counted.
    """
    try:
        counts = parse_counted(str(shadow.get("counted") or "")).total.differences
    except ValueError:
        return []
    bounds = (*DIFFERENCE_BOUNDS, None)
    found = [Bar(up_to=bound, answers=count) for bound, count in zip(bounds, counts, strict=False)]
    while found and not found[-1].answers:
        found.pop()
    first = next((at for at, bar in enumerate(found) if bar.answers), 0)
    return found[first:]


def draw_shadow(shadow: Mapping[str, Any], seen: Sequence[ShadowSeen]) -> RenderableType:
    """Return ``status.shadow`` and what shadows say as a part of a screenful."""
    parts: list[RenderableType] = [_headline(shadow)]
    if bars := list_bars(shadow):
        parts += [Text("greatest difference of an answer's numbers", style="dim"), _Histogram(bars)]
    if segments := shadow.get("segments"):
        rows = [(one["name"], str(one["requests"]), str(one["disagreements"])) for one in segments]
        parts.append(tabulate(("SEGMENT", "REQUESTS", "DISAGREE"), rows))
    if seen:
        columns = ("SHADOW OF POD", "STATE", "COMPARED", "ENDS", "")
        parts.append(tabulate(columns, map(_row, seen), styles=_STATES))
    return Group(*parts)


def _headline(shadow: Mapping[str, Any]) -> Text:
    state = str(shadow["state"])
    text = Text.assemble((f"{shadow['version']}  ", "bold"), (state, _STATES.get(state, "")))
    if shadow.get("requests") is not None:
        text.append("\n" + ", ".join(_spell_counts(shadow)))
    if shadow.get("verdict"):
        verdict = str(shadow["verdict"])
        text.append("\ngate: ").append(verdict, style=_STATES.get(verdict, ""))
    if shadow.get("message"):
        text.append(f"\n{shadow['message']}", style="dim")
    if shadow.get("error"):
        text.append(f"\n{shadow['error']}", style="bold red")
    return text


def _spell_counts(shadow: Mapping[str, Any]) -> Iterator[str]:
    share = f" ({shadow['summary']})" if shadow.get("summary") else ""
    yield f"{shadow['requests']} requests, {shadow.get('disagreements') or 0} answered otherwise{share}"
    yield f"{shadow.get('errors') or 0} not answered"
    if shadow.get("notComparable"):
        yield f"{shadow['notComparable']} not comparable"
    yield f"{shadow.get('dropped') or 0} dropped"
    if shadow.get("latencyRatio"):
        yield f"{shadow['latencyRatio']} times as long as production"


def _row(seen: ShadowSeen) -> tuple[str, ...]:
    report = seen.report
    if report is None:
        return seen.pod, "", "", "", f"no report: {seen.silence}"
    process, end = report.process, report.end
    version = process.version if process else None
    state = "no process" if not report.running else f"{version.name} {version.state}" if version else "idle"
    told = f"{end.reason}: {end.message}" if end else ""
    if version is not None and version.failure is not None:
        told = f"{version.failure.reason}: {version.failure.message}"
    return seen.pod, state, str(process.counts.compared if process else 0), str(report.ends), told


@dataclass(frozen=True)
class _Histogram:
    """Bars, in blocks where a terminal shows colours, in plain characters elsewhere."""

    bars: Sequence[Bar]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[RenderableType]:
        rich = console.is_terminal and console.color_system is not None and not options.ascii_only
        bars = self.bars if len(self.bars) <= _MOST_ROWS else _join_decades(self.bars)
        total, most = sum(bar.answers for bar in bars), max(bar.answers for bar in bars)
        rows = []
        for bar in bars:
            length = -(-bar.answers * _BAR_COLUMNS // most)
            bound = f"> {DIFFERENCE_BOUNDS[-1]:g}" if bar.up_to is None else f"<= {bar.up_to:g}"
            share = f"{100 * bar.answers / total:.1f}%"
            rows.append((bound, str(bar.answers), share, ("█" if rich else "#") * length))
        yield tabulate(("", "", "", ""), rows)


def _join_decades(bars: Sequence[Bar]) -> list[Bar]:
    """Return one bar for each power of ten, so that they are few."""
    joined, answers = list[Bar](), 0
    for bar in bars:
        answers += bar.answers
        if bar is bars[-1] or bar.up_to is None or f"{bar.up_to:e}".startswith("1.0"):
            joined.append(Bar(up_to=bar.up_to, answers=answers))
            answers = 0
    return joined
