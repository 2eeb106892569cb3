"""A bar for each contender's requests per second, as SVG."""

from xml.sax.saxutils import escape

from benchmarks.serving.report import OURS, cell_values, spread
from benchmarks.serving.results import Results

_LEFT, _WIDTH, _RIGHT = 150, 520, 130
_BAR, _STEP, _TOP, _BOTTOM = 18, 28, 56, 30
_OURS, _OTHERS, _INK, _FAINT = "#0f766e", "#94a3b8", "#1e293b", "#64748b"


def bars(results: Results, *, connections: int = 32) -> str:
    """Return a chart of medians, with a line from the slowest to the fastest round."""
    found = {
        name: told
        for name in results.contenders()
        if (told := spread(cell_values(results, name, connections, lambda cell: cell.rps).values()))
    }
    ranked = sorted(found.items(), key=lambda item: -item[1].median)
    scale = _WIDTH / max((told.high for told in found.values()), default=1)
    height = _TOP + _STEP * len(ranked) + _BOTTOM
    width = _LEFT + _WIDTH + _RIGHT
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" font-family="sans-serif">',
        f'<rect width="{width}" height="{height}" fill="white"/>',
        _text(12, 22, f"Requests per second, {connections} connections, one core", size=15),
        _text(12, 40, f"{results.date}; median of {results.rounds} rounds, line: min to max", fill=_FAINT),
    ]
    for index, (name, told) in enumerate(ranked):
        top = _TOP + index * _STEP
        middle = top + _BAR / 2
        low, high = (_LEFT + value * scale for value in (told.low, told.high))
        fill = _OURS if name.startswith(OURS) else _OTHERS
        parts += [
            _text(_LEFT - 8, middle + 4, name, anchor="end"),
            f'<rect x="{_LEFT}" y="{top}" width="{told.median * scale:.1f}" height="{_BAR}" fill="{fill}"/>',
            f'<path d="M{low:.1f} {middle}H{high:.1f}" stroke="{_INK}"/>',
            _text(high + 6, middle + 4, f"{told.median:,.0f}"),
        ]
    return "\n".join([*parts, "</svg>"]) + "\n"


def _text(x: float, y: float, text: str, *, size: int = 12, fill: str = _INK, anchor: str = "start") -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size}" fill="{fill}" text-anchor="{anchor}">'
        f"{escape(text)}</text>"
    )
