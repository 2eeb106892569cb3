"""The supervisor's log: the same lines of JSON as of the other processes, without their libraries."""

import json
import os
import select
from datetime import UTC, datetime
from typing import Final

_LONGEST: Final = 2048
"""Letters of one text. A line stays below PIPE_BUF, so that it is never torn by the shadow process's own."""


def write_if_read(descriptor: int, content: bytes) -> bool:
    """Write what a pipe takes as a whole, at most PIPE_BUF bytes; False where nobody reads it.

    A supervisor that waited for its reader would guard nothing meanwhile.
    """
    try:
        poll = select.poll()
        poll.register(descriptor, select.POLLOUT)
        if not any(event & select.POLLOUT for _, event in poll.poll(0)):
            return False
        os.write(descriptor, content[: select.PIPE_BUF])
    except OSError:
        return False
    return True


def tell(event: str, *, level: str = "info", **details: object) -> None:
    """Log one event to stdout, or lose it where nobody reads."""
    kept = {name: value[:_LONGEST] if isinstance(value, str) else value for name, value in details.items()}
    now = datetime.now(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
    line = json.dumps({**kept, "event": event, "level": level, "timestamp": now}, default=str)
    write_if_read(1, line.encode() + b"\n")
