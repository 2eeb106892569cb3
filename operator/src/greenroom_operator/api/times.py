"""Durations as people write them, and the one spelling of a moment."""

import re
from datetime import UTC, datetime, timedelta
from typing import Final

DURATION_PATTERN: Final = r"^([0-9]{1,5}h)?([0-9]{1,5}m)?([0-9]{1,5}s)?([0-9]{1,5}ms)?$"
"""``90s``, ``1h30m``, ``250ms``: Go's spelling with whole numbers, each unit once, the largest first."""
TIMESTAMP_FORMAT: Final = "%Y-%m-%dT%H:%M:%SZ"

_DURATION = re.compile(DURATION_PATTERN)


class DurationError(ValueError):
    """The text is no duration."""


def parse_duration(text: str) -> timedelta:
    """Return what ``90s``, ``1h30m`` or ``250ms`` mean; DurationError for everything else."""
    found = _DURATION.fullmatch(text)
    if not found or not text:
        message = f"{text!r} is no duration: write whole numbers with h, m, s or ms, such as 30s, 5m or 1h30m"
        raise DurationError(message)
    hours, minutes, seconds, milliseconds = (
        int(part.rstrip("hms")) if part else 0 for part in found.groups()
    )
    return timedelta(hours=hours, minutes=minutes, seconds=seconds, milliseconds=milliseconds)


def format_timestamp(moment: datetime) -> str:
    """Return an aware moment in UTC, whole seconds, as status carries it: ``2026-11-03T09:30:00Z``."""
    if moment.tzinfo is None:
        message = f"{moment.isoformat()} has no time zone"
        raise ValueError(message)
    return moment.astimezone(UTC).strftime(TIMESTAMP_FORMAT)


def parse_timestamp(text: str) -> datetime:
    """Return the aware moment that :func:`format_timestamp` wrote; ValueError for another spelling."""
    return datetime.strptime(text, TIMESTAMP_FORMAT).replace(tzinfo=UTC)
