"""How often an upstream was called, and how long it took."""

from dataclasses import dataclass, field
from typing import Final

from greenroom_runtime.metrics import Histogram

_SECONDS: Final = tuple(0.001 * 2.0**power for power in range(13))
"""1 ms to 4 s."""


@dataclass(kw_only=True)
class Tally:
    """One upstream's calls."""

    calls: int = 0
    failures: int = 0
    seconds: Histogram = field(default_factory=lambda: Histogram(_SECONDS))

    def add(self, seconds: float, *, failed: bool) -> None:
        """Count a call that has ended, or that nobody waits for any more."""
        self.calls += 1
        self.failures += failed
        self.seconds.observe(seconds)
