"""Records as lines between the structured logs, for whatever collects those."""

import os
import select
from collections import Counter

from greenroom_runtime.predictions.batch import Batch
from greenroom_runtime.predictions.ledger import Ledger

_STALLED_MILLISECONDS = 200


class StdoutSink:
    """Writes lines to a descriptor that others write to as well.

    POSIX promises that a write of at most PIPE_BUF bytes to a pipe is not mixed with others': several short
    lines go at once, and only a line that is longer could be torn by one of the process's own log.
    """

    def __init__(self, descriptor: int, *, ledger: Ledger) -> None:
        self._descriptor = descriptor
        self._ledger = ledger
        self._group = b""
        """What is left of the lines that are being written: a write may be cut short."""
        self._group_lines = 0
        self._poll = select.poll()
        self._poll.register(descriptor, select.POLLOUT)

    def append(self, batch: Batch) -> int:
        """Write lines for as long as they are read; return how many, OSError when it is none."""
        done = 0
        while done < len(batch):
            if not self._group:
                end = _end_of_group(batch, done)
                self._group, self._group_lines = bytes(batch.lines(done, end)), end - done
            try:
                self._write_group()
            except OSError:
                if done == 0:
                    raise
                break
            self._ledger.logged(Counter(batch.accounts[done : done + self._group_lines]))
            done += self._group_lines
        return done

    def tidy(self) -> None:
        """Do nothing: what is written is gone."""

    def close(self) -> None:
        """Do nothing: the descriptor is not ours."""

    def _write_group(self) -> None:
        while self._group:
            if not self._poll.poll(_STALLED_MILLISECONDS):
                message = "stdout is not being read"
                raise TimeoutError(message)
            self._group = self._group[os.write(self._descriptor, self._group) :]


def _end_of_group(batch: Batch, start: int) -> int:
    """Return the line before which a write ends; it has one line at least."""
    end = start + 1
    while end < len(batch) and len(batch.lines(start, end + 1)) <= select.PIPE_BUF:
        end += 1
    return end
