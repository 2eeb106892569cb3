"""What status and events are made of: bounded text, and news."""

from dataclasses import dataclass
from typing import Final

MESSAGE_MAX: Final = 1024


@dataclass(frozen=True, kw_only=True)
class Transition:
    """Something worth an event."""

    warning: bool
    reason: str
    message: str


def clip(text: str) -> str:
    """Cut a text to what a condition's message may have."""
    return text if len(text) <= MESSAGE_MAX else text[: MESSAGE_MAX - 1] + "…"
