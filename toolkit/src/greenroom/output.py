"""What the commands print: data as JSON or YAML for programs, as tables in colours for people."""

import json
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from enum import StrEnum
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

_PIPE_COLUMNS = 10_000
"""Nothing is wrapped or cut where nobody looks at it."""


class OutputFormat(StrEnum):
    """How data is printed."""

    TABLE = "table"
    JSON = "json"
    YAML = "yaml"


def show(data: Any, output: OutputFormat, *, table: "Callable[[], RenderableType]") -> None:
    """Print data on standard output; ``table`` is made only where a person is to read it."""
    if output is OutputFormat.TABLE:
        open_console().print(table())
    else:
        sys.stdout.write(spell(data, output))


def spell(data: Any, output: OutputFormat) -> str:
    """Return data as the text of a JSON or YAML document."""
    if output is OutputFormat.JSON:
        return json.dumps(data, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    import yaml  # noqa: PLC0415 each help would wait for it

    return yaml.safe_dump(data, sort_keys=False, allow_unicode=True)


def open_console(*, stderr: bool = False) -> "Console":
    """Return a console: in colours and as wide as the terminal, plain and as wide as it likes elsewhere."""
    from rich.console import Console  # noqa: PLC0415 a tenth of a second that JSON need not wait for

    console = Console(highlight=False, stderr=stderr)
    if not console.is_terminal:
        console.width = _PIPE_COLUMNS
    return console


def tabulate(
    columns: Sequence[str], rows: Iterable[Sequence[str]], *, styles: Mapping[str, str] | None = None
) -> "RenderableType":
    """Return a table as kubectl prints one; ``styles`` gives a cell that begins with a word its colour."""
    from rich.table import Table  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    table = Table(
        *columns,
        box=None,
        pad_edge=False,
        padding=(0, 3, 0, 0),
        header_style="bold",
        show_header=any(columns),
    )
    for row in rows:
        styled = [Text(cell, style=_style_of(cell, styles or {})) for cell in row]
        table.add_row(*styled)
    return table


def _style_of(cell: str, styles: Mapping[str, str]) -> str:
    word = cell.split(" ", 1)[0].rstrip(":")
    return styles.get(word, "")
