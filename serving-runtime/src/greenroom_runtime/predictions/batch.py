"""Lines on their way from the writer to a sink."""

from itertools import accumulate

from greenroom_runtime.predictions.ledger import Account


class Batch:
    """Lines in one buffer that is used again and again: nothing is allocated while predictions are served."""

    def __init__(self, capacity: int) -> None:
        """``capacity`` in bytes; no line may be longer."""
        self._buffer = bytearray(capacity)
        self._view = memoryview(self._buffer)
        self._ends = [0]
        self.accounts: list[Account] = []
        """Each line's own."""

    def __len__(self) -> int:
        """Return the number of lines."""
        return len(self.accounts)

    def add(self, line: bytes, account: Account) -> bool:
        """Append a line; False when there is no room for it."""
        start = self._ends[-1]
        end = start + len(line)
        if end > len(self._buffer):
            return False
        self._buffer[start:end] = line
        self._ends.append(end)
        self.accounts.append(account)
        return True

    def lines(self, start: int, end: int) -> memoryview:
        """Return the bytes of the lines from ``start`` to before ``end``."""
        return self._view[self._ends[start] : self._ends[end]]

    def drop(self, number: int) -> None:
        """Remove that many lines from the front."""
        rest = bytes(self.lines(number, len(self)))
        self._buffer[: len(rest)] = rest
        lengths = (
            end - start for start, end in zip(self._ends[number:], self._ends[number + 1 :], strict=False)
        )
        self._ends = [0, *accumulate(lengths)]
        del self.accounts[:number]
