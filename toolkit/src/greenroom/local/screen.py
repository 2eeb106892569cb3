"""What the local commands print: one line a thing that happened, in colours where a terminal shows them."""

from collections.abc import Mapping
from datetime import datetime
from types import MappingProxyType

from rich.console import Console
from rich.text import Text

_STYLES: Mapping[str, str] = MappingProxyType(
    {"good": "bold green", "bad": "bold red", "busy": "cyan", "note": "default", "quiet": "dim"}
)


class Screen:
    """Prints to standard output, and errors to standard error; nothing is wrapped or coloured in a pipe."""

    def __init__(self) -> None:
        self._out = Console(soft_wrap=True, highlight=False)
        self._err = Console(soft_wrap=True, highlight=False, stderr=True)

    def event(self, kind: str, text: str) -> None:
        """Print one thing that happened, with the time of day; ``kind`` names its colour."""
        line = Text(f"{datetime.now().astimezone():%H:%M:%S}  ", style="dim")
        self._out.print(line.append(text, style=_STYLES[kind]))

    def line(self, text: str = "", *, kind: str = "note") -> None:
        """Print a line as it is."""
        self._out.print(Text(text, style=_STYLES[kind]))

    def error(self, text: str) -> None:
        """Print what ends the command."""
        self._err.print(Text("greenroom: ", style=_STYLES["bad"]).append(text, style="default"))
