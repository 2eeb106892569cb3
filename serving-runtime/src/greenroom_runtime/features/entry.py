"""What is known of one entity, where it is from, and how it can be that nothing is."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

Features = Mapping[str, Any]
Accept = Callable[[Features], str]
"""Returns what is wrong with fetched values, naming features and never showing a value; empty for nothing."""

REQUEST: Final = "request"
MEMORY: Final = "memory"
REDIS: Final = "redis"
COMPUTE: Final = "compute"
STALE: Final = "stale"
DEFAULT: Final = "default"
SOURCES: Final = (REQUEST, MEMORY, REDIS, COMPUTE, STALE, DEFAULT)
"""Where a row's features may be from: the last one that any of them needed, in this order."""


@dataclass(slots=True)
class Entry:
    """An entity's features as one source gave them."""

    features: Features
    """Never changed: rows and records refer to it."""
    born: float
    """When they were computed or fetched from where they are computed, on the monotonic clock."""
    size: int
    """Bytes that it takes of memory with its key, estimated."""
    source: str
    final: bool = True
    """Whether asking on would bring no more features: what Redis holds may be older than a model's wishes."""
    expires: float = 0.0
    """Until when memory gives it as fresh, on the monotonic clock."""
    refresh_after: float = 0.0
    """Not asked for again in the background before that: the last attempt has failed."""

    shown: Features = field(default_factory=dict)
    """The features that were last asked for, of those that there are."""
    shown_for: Collection[str] = ()
    """Which these are."""

    @property
    def known(self) -> bool:
        """Whether the source knows the entity at all."""
        return bool(self.features)

    def show(self, names: Collection[str]) -> Features:
        """Return those of these features that there are. Requests lack the same ones again and again."""
        if self.shown_for is not names and self.shown_for != names:
            there = self.features
            self.shown = {name: there[name] for name in names if name in there}
            self.shown_for = names
        return self.shown

    def covers(self, names: Collection[str]) -> bool:
        """Tell whether there is nothing to be gained by asking elsewhere for these features."""
        return self.final or all(name in self.features for name in names)


@dataclass(slots=True)
class Found:
    """What a row gets."""

    features: Features
    """Of those that it lacks the ones that were found; nothing else."""
    source: str
    age_seconds: float | None
    """Of the fetched ones; None where they are defaults."""


class SourceError(Exception):
    """A source could not say what it knows; the text names it and shows no entity and no value."""


class UnfitFeaturesError(SourceError):
    """A source gave values that the model's signature does not take: somebody has changed it."""


class FeaturesUnavailableError(Exception):
    """No source could be asked, nothing was kept, and there is no default."""

    def __init__(self, causes: Collection[SourceError]) -> None:
        super().__init__("; ".join(str(cause) for cause in causes) or "no source can be asked")
        self.unfit = any(isinstance(cause, UnfitFeaturesError) for cause in causes)
        """Whether it is a source's fault that it gave something else than features."""
