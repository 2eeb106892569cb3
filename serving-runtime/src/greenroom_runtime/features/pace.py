"""How often an upstream is asked, and asked again: backoff, budget, rate, and what it asks for itself."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

_FIRST_WAIT_SECONDS: Final = 0.01
_LONGEST_WAIT_SECONDS: Final = 1.0
_BUDGET_SHARE: Final = 0.1
_BUDGET_MOST: Final = 10.0
_BUDGET_FIRST: Final = 3.0
_FIRST_HOLD_SECONDS: Final = 0.1
_LONGEST_HOLD_SECONDS: Final = 30.0
"""A Retry-After of more is taken for so much: an upstream must not silence us for a day by mistake."""
_MOST_DOUBLINGS: Final = 16


def backoff_seconds(attempt: int, *, chance: float) -> float:
    """Return how long to wait after an attempt, the first is 0: exponential, with full jitter."""
    return chance * min(_LONGEST_WAIT_SECONDS, _FIRST_WAIT_SECONDS * 2.0 ** min(attempt, _MOST_DOUBLINGS))


@dataclass(kw_only=True)
class RetryBudget:
    """Bounds retries to a tenth of the calls: an upstream in trouble is not asked twice as often for it."""

    tokens: float = _BUDGET_FIRST

    def earn(self) -> None:
        """Count a first attempt."""
        self.tokens = min(self.tokens + _BUDGET_SHARE, _BUDGET_MOST)

    def spend(self) -> bool:
        """Take a retry, where there is one."""
        if self.tokens < 1:
            return False
        self.tokens -= 1
        return True


@dataclass(kw_only=True)
class RateLimit:
    """So many calls a second, of which a tenth of a second's may come at once."""

    per_second: float
    clock: Callable[[], float]
    _free_at: float = float("-inf")
    """When the next call may be made, were there no burst."""

    def reserve(self, longest_wait: float) -> float | None:
        """Return how many seconds to wait before the call; None, and no place is taken, for too many."""
        now = self.clock()
        step = 1 / self.per_second
        burst = max(step, 0.1)
        free_at = max(self._free_at, now - burst + step)
        wait = max(0.0, free_at - now)
        if wait > longest_wait:
            return None
        self._free_at = free_at + step
        return wait


@dataclass(kw_only=True)
class Hold:
    """Keeps calls back for as long as an upstream asks, or, where it only says "too many", ever longer."""

    clock: Callable[[], float]
    chance: Callable[[], float]
    until: float = float("-inf")
    _refusals: int = 0

    @property
    def seconds(self) -> float:
        """How much longer calls are kept back; 0 where they are not."""
        return max(0.0, self.until - self.clock())

    def begin(self, retry_after: float) -> None:
        """Keep calls back for so many seconds; 0 where the upstream has named none."""
        seconds = retry_after
        if seconds <= 0:
            seconds = self.chance() * _FIRST_HOLD_SECONDS * 2.0 ** min(self._refusals, _MOST_DOUBLINGS)
            self._refusals += 1
        self.until = max(self.until, self.clock() + min(seconds, _LONGEST_HOLD_SECONDS))

    def end(self) -> None:
        """Take note of an answer."""
        self._refusals = 0
