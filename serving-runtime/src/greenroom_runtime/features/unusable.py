"""Layers whose settings cannot work: they fail for good and say why, and production serves all the same."""

from collections.abc import Sequence

from greenroom_runtime.contract.report import BreakerState
from greenroom_runtime.features.breaker import Breaker
from greenroom_runtime.features.entry import Accept, Entry, SourceError
from greenroom_runtime.features.tally import Tally


class UnusableStore:
    """Stands for a Redis that cannot be asked."""

    def __init__(self, breaker: Breaker, error: str) -> None:
        self.tally = Tally()
        self.breaker = _opened(breaker, error)
        self.dropped = self.garbage = 0

    async def get_many(self, _: Sequence[str]) -> dict[str, Entry]:
        """Fail."""
        raise SourceError(self.breaker.error)

    def put(self, _: str, __: Entry) -> None:
        """Do nothing."""

    async def close(self, _: float) -> None:
        """Do nothing."""


class UnusableSource:
    """Stands for a feature service that cannot be asked."""

    def __init__(self, breaker: Breaker, error: str) -> None:
        self.tally = Tally()
        self.breaker = _opened(breaker, error)
        self.retries = 0

    async def get(self, _: str, __: Accept) -> Entry:
        """Fail."""
        raise SourceError(self.breaker.error)

    async def get_many(self, entities: Sequence[str], _: Accept) -> dict[str, Entry | SourceError]:
        """Fail for each."""
        return {entity: SourceError(self.breaker.error) for entity in entities}

    async def close(self) -> None:
        """Do nothing."""


def _opened(breaker: Breaker, error: str) -> Breaker:
    breaker.state, breaker.error = BreakerState.OPEN, error
    return breaker
