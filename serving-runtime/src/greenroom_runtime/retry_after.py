"""What an HTTP server means by ``Retry-After``."""

from datetime import datetime
from email.utils import parsedate_to_datetime


def retry_after_seconds(header: str, *, now: datetime) -> float:
    """Read either form (RFC 9110, 10.2.3), seconds or a date; 0 for none. ``now`` has a time zone."""
    if header.isdecimal():
        return float(header)
    try:
        return max(0.0, (parsedate_to_datetime(header) - now).total_seconds())
    except (TypeError, ValueError):
        return 0.0
