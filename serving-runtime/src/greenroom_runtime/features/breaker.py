"""A circuit breaker: an upstream that fails is left alone, and asked now and then whether it is back."""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

import structlog

from greenroom_runtime.contract.report import BreakerState

log = structlog.get_logger(__name__)

_LEAST: Final = 5
_WINDOW: Final = 20
_FAILED_SHARE: Final = 0.5
"""It opens when of the last calls, 5 to 20 of them, half have failed."""
_FIRST_SECONDS: Final = 1.0
_LONGEST_SECONDS: Final = 30.0
"""How long it stays open: twice as long each time that the upstream is found still failing."""


@dataclass(kw_only=True)
class Breaker:
    """One upstream's. ``admits`` is asked before each call, and one of the others told after it."""

    name: str
    clock: Callable[[], float]
    chance: Callable[[], float]
    """A random number from 0 to 1: pods do not come back all at once."""
    state: BreakerState = BreakerState.CLOSED
    error: str = ""
    """What opened it; empty while it is closed."""
    opened: int = 0
    """How often it has opened."""
    _outcomes: "deque[bool]" = field(default_factory=lambda: deque(maxlen=_WINDOW))
    _until: float = 0.0
    _pause: float = _FIRST_SECONDS

    def admits(self) -> bool:
        """Tell whether a call may be made. Of an open one's time being over the first caller learns alone."""
        if self.state is BreakerState.CLOSED:
            return True
        now = self.clock()
        if now < self._until:
            return False
        # A probe that never ends, because its caller was cancelled, blocks the next one for a pause only.
        self.state, self._until = BreakerState.HALF_OPEN, now + self._pause
        return True

    def succeeded(self) -> None:
        """Take note of an answer, whatever it said."""
        if self.state is BreakerState.CLOSED:
            self._outcomes.append(True)
        elif self.state is BreakerState.HALF_OPEN:
            log.info("a feature source is asked again", source=self.name)
            self.state, self.error, self._pause = BreakerState.CLOSED, "", _FIRST_SECONDS
            self._outcomes.clear()

    def failed(self, error: str) -> None:
        """Take note of a call without an answer; ``error`` says why."""
        if self.state is BreakerState.CLOSED:
            self._outcomes.append(False)
            failures = self._outcomes.count(False)
            if failures >= _LEAST and failures >= _FAILED_SHARE * len(self._outcomes):
                log.warning("a feature source is left alone", source=self.name, error=error)
                self._open(error)
        elif self.state is BreakerState.HALF_OPEN:
            self._pause = min(self._pause * 2, _LONGEST_SECONDS)
            self._open(error)

    def _open(self, error: str) -> None:
        self.state, self.error = BreakerState.OPEN, error
        self.opened += 1
        self._outcomes.clear()
        self._until = self.clock() + self._pause * (0.5 + self.chance() / 2)
