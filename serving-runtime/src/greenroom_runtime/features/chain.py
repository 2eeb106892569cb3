"""The chain: which layer is asked, in which order, and what is answered when none can be."""

import asyncio
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Protocol

from greenroom_runtime.contract import config
from greenroom_runtime.contract.report import FeatureReport, UpstreamReport
from greenroom_runtime.features.breaker import Breaker
from greenroom_runtime.features.entry import (
    COMPUTE,
    DEFAULT,
    MEMORY,
    REDIS,
    SOURCES,
    STALE,
    Accept,
    Entry,
    Features,
    FeaturesUnavailableError,
    Found,
    SourceError,
    UnfitFeaturesError,
)
from greenroom_runtime.features.flights import Flights
from greenroom_runtime.features.memory import Memory, estimate_bytes
from greenroom_runtime.features.tally import Tally
from greenroom_runtime.metrics import Histogram

ENTITY_LENGTH: Final = 256
"""Characters; a longer key names no entity. Encoded, it must still fit into a URL."""
_LEAST_ENTRIES: Final = 64
"""That memory has room for, however large: a larger entry is neither kept nor written back."""
_UNKNOWN_SECONDS: Final = 5.0
"""How long memory takes a source's word that it does not know an entity: new users do appear."""
_JITTER: Final = 0.1
"""Entries expire earlier by up to so much of their time: those of one moment are not all fetched at once."""
_REFRESH_AGAIN_SECONDS: Final = 1.0
_JUDGED_A_TURN: Final = 128
"""Entries that are judged before requests get their turn of the event loop."""
_AGES: Final = tuple(2.0**power for power in range(-3, 18))
"""An eighth of a second to a day and a half."""
_MAX_ERROR: Final = 512
_Outcome = Entry | SourceError | None


class Upstream(Protocol):
    """What is told of a layer that is asked over the network."""

    tally: Tally
    breaker: Breaker


class Store(Upstream, Protocol):
    """Redis, as the chain uses it."""

    dropped: int
    garbage: int

    async def get_many(self, entities: Sequence[str]) -> dict[str, Entry]:
        """Return what it has of these; SourceError where it fails."""

    def put(self, entity: str, entry: Entry) -> None:
        """Write an entry soon, or never; never waits and never fails."""

    async def close(self, seconds: float) -> None:
        """End in so many seconds."""


class Source(Upstream, Protocol):
    """Where features are computed, as the chain uses it."""

    retries: int

    async def get(self, entity: str, accept: Accept) -> Entry:
        """Return an entity's features; SourceError where it cannot be asked."""

    async def get_many(self, entities: Sequence[str], accept: Accept) -> dict[str, Entry | SourceError]:
        """Return the features of each, or why there are none."""

    async def close(self) -> None:
        """End."""


@dataclass(kw_only=True)
class Counts:
    """Rows whose features were fetched, since the process started; of a batch each entity once."""

    by_source: dict[str, int] = field(default_factory=lambda: dict.fromkeys(SOURCES[1:], 0))
    failed: int = 0
    """Rows that could not be answered, since no source could."""
    unknown: int = 0
    """Rows whose entity no source knows."""
    ages: Histogram = field(default_factory=lambda: Histogram(_AGES))


class FeatureCache:
    """One model's features by entity. All of it belongs to the event loop's thread."""

    def __init__(
        self,
        settings: config.FeatureCache,
        *,
        store: Store | None,
        source: Source | None,
        clock: Callable[[], float],
        chance: Callable[[], float],
    ) -> None:
        self.entity_key = settings.entity_key
        self.defaults: Features = settings.defaults
        self.store = store
        self.source = source
        self.counts = Counts()
        self.flights = Flights()
        self.memory = Memory(
            max_entries=settings.max_entries,
            max_bytes=settings.max_bytes,
            max_entry_bytes=max(1, settings.max_bytes // _LEAST_ENTRIES),
            keep_seconds=settings.stale_seconds,
            clock=clock,
        )
        self._ttl = settings.ttl_seconds
        self._stale = settings.stale_seconds
        self._clock = clock
        self._chance = chance

    def recall(self, entity: str, lacking: Collection[str], accept: Accept) -> Found | None:
        """Return what memory has, within a few microseconds; None where somebody must be asked.

        What has expired no longer ago than it was fresh is given too, and fetched anew behind the request's
        back: an entity that is asked for again and again never waits.
        """
        entry = self.memory.get(entity)
        if entry is None:
            return None
        now = self._clock()
        if now < entry.expires:
            features = entry.show(lacking)
            if len(features) < len(lacking):
                return self._found(entry, lacking, MEMORY) if entry.final else None
            self.counts.by_source[MEMORY] += 1
            age = now - entry.born
            self.counts.ages.observe(age)
            return Found(features, MEMORY, age)
        return self._recall_stale(entity, entry, lacking, accept)

    def _recall_stale(
        self, entity: str, entry: Entry, lacking: Collection[str], accept: Accept
    ) -> Found | None:
        now = self._clock()
        late = now >= entry.expires + min(self._ttl, self._stale)
        if late or not entry.known or not entry.covers(lacking):
            return None
        if now >= entry.refresh_after:
            entry.refresh_after = now + _REFRESH_AGAIN_SECONDS
            self.flights.begin(entity, lambda: self._fly(entity, lacking, accept))
        return self._found(entry, lacking, STALE)

    async def fetch(self, entity: str, lacking: Collection[str], accept: Accept) -> Found:
        """Return an entity's features from wherever they can be had.

        FeaturesUnavailableError where no source answers, nothing was kept, and not all have a default.
        """
        others = self.flights.under_way(entity)
        try:
            entry = await self.flights.wait(entity, lambda: self._fly(entity, lacking, accept))
            if others and not entry.covers(lacking):  # they wanted less of Redis than we do
                entry = await self.flights.wait(entity, lambda: self._fly(entity, lacking, accept))
        except FeaturesUnavailableError as error:
            return self._make_do(entity, lacking, error)
        return self._found(entry, lacking, self._source_of(entry))

    async def fetch_many(
        self, wanted: Mapping[str, Collection[str]], accept: Accept
    ) -> dict[str, Found | FeaturesUnavailableError]:
        """Return the features of a batch's entities, each with the names that it lacks.

        Redis is asked once for all. Memory is spared: it is for who comes again, and is only looked at where
        no source answers.
        """
        stored, cause = await self._ask_store(list(wanted), accept)
        missing = [entity for entity in wanted if not self._is_enough(stored.get(entity), wanted[entity])]
        computed: Mapping[str, Entry | SourceError] = {}
        if missing and self.source is not None:
            computed = await self.source.get_many(missing, accept)
        return {
            entity: self._answer(entity, lacking, stored.get(entity), computed.get(entity), cause)
            for entity, lacking in wanted.items()
        }

    def _answer(
        self,
        entity: str,
        lacking: Collection[str],
        entry: Entry | None,
        outcome: _Outcome,
        cause: SourceError | None,
    ) -> Found | FeaturesUnavailableError:
        try:
            if entry is None or not self._is_enough(entry, lacking):
                entry = self._conclude(entity, lacking, stored=entry, outcome=outcome, cause=cause)
            return self._found(entry, lacking, self._source_of(entry))
        except FeaturesUnavailableError as error:
            nothing = error
        try:
            return self._make_do(entity, lacking, nothing)
        except FeaturesUnavailableError as error:
            return error.with_traceback(None)

    def report(self) -> FeatureReport:
        """Return the accounts, and what is wrong with the layers that are asked."""
        counts = self.counts.by_source
        return FeatureReport(
            memory=counts[MEMORY],
            redis=counts[REDIS],
            compute=counts[COMPUTE],
            stale=counts[STALE],
            default=counts[DEFAULT],
            failed=self.counts.failed,
            redis_state=_report(self.store),
            compute_state=_report(self.source),
        )

    async def close(self, seconds: float) -> None:
        """End what is under way, within about so many seconds."""
        await self.flights.close(seconds / 2)
        if self.source is not None:
            await self.source.close()
        if self.store is not None:
            await self.store.close(seconds / 2)

    async def _fly(self, entity: str, lacking: Collection[str], accept: Accept) -> Entry:
        """Fetch one entity for all who wait; FeaturesUnavailableError where nobody has it."""
        stored, cause = await self._ask_store([entity], accept)
        entry = stored.get(entity)
        if entry is None or not self._is_enough(entry, lacking):
            outcome: _Outcome = None
            if self.source is not None:
                try:
                    outcome = await self.source.get(entity, accept)
                except SourceError as error:
                    outcome = error
            entry = self._conclude(entity, lacking, stored=entry, outcome=outcome, cause=cause)
        if self._source_of(entry) != STALE:
            ttl = self._ttl if entry.known else min(self._ttl, _UNKNOWN_SECONDS)
            entry.expires = self._clock() + ttl * (1 - _JITTER * self._chance())
            self.memory.put(entity, entry)
        return entry

    async def _ask_store(
        self, entities: Sequence[str], accept: Accept
    ) -> tuple[Mapping[str, Entry], SourceError | None]:
        """Return what Redis has, and why it has nothing."""
        if self.store is None:
            return {}, None
        try:
            found = await self.store.get_many(entities)
        except SourceError as error:
            return {}, error.with_traceback(None)
        cause = None
        for number, (entity, entry) in enumerate(list(found.items())):
            if number % _JUDGED_A_TURN == _JUDGED_A_TURN - 1:
                await asyncio.sleep(0)
            entry.final = self.source is None
            if wrong := accept(entry.features):
                cause = UnfitFeaturesError(f"Redis holds another type: {wrong}")
                del found[entity]
        return found, cause

    def _is_enough(self, entry: Entry | None, lacking: Collection[str]) -> bool:
        return entry is not None and self._clock() < entry.expires and entry.covers(lacking)

    def _conclude(
        self,
        entity: str,
        lacking: Collection[str],
        *,
        stored: Entry | None,
        outcome: _Outcome,
        cause: SourceError | None,
    ) -> Entry:
        """Return the best entry there is; ``cause`` is why Redis has none, ``outcome`` what compute said."""
        if isinstance(outcome, Entry):
            if self.store is not None and outcome.known and outcome.size <= self.memory.max_entry_bytes:
                self.store.put(entity, outcome)
            return outcome
        now = self._clock()
        kept = stored is not None and now < stored.expires + self._stale
        if stored is not None and kept and (outcome is None or self._suffices(stored, lacking)):
            return stored
        if cause is None and outcome is None:
            size = estimate_bytes(entity, features=0, encoded=0)
            return Entry({}, born=now, size=size, source=REDIS, expires=now + _UNKNOWN_SECONDS)
        raise FeaturesUnavailableError([error for error in (cause, outcome) if error is not None])

    def _source_of(self, entry: Entry) -> str:
        """Say where an entry is from that has just been fetched."""
        return STALE if entry.source == REDIS and self._clock() >= entry.expires else entry.source

    def _make_do(self, entity: str, lacking: Collection[str], error: FeaturesUnavailableError) -> Found:
        """Return what memory has kept, or defaults; raises the error where that is not enough."""
        kept = self.memory.get_kept(entity)
        if kept is not None and kept.known:
            source = MEMORY if self._clock() < kept.expires else STALE
            if self._suffices(kept, lacking):
                return self._found(kept, lacking, source)
        if all(name in self.defaults for name in lacking):
            return self._defaults(lacking)
        self.counts.failed += 1
        raise error

    def _suffices(self, entry: Entry, lacking: Collection[str]) -> bool:
        return all(name in entry.features or name in self.defaults for name in lacking)

    def _found(self, entry: Entry, lacking: Collection[str], source: str) -> Found:
        """Return an entry's features, with defaults for those that it has not."""
        features = entry.show(lacking)
        if len(features) < len(lacking):
            self.counts.unknown += not entry.known
            given = {name: self.defaults[name] for name in lacking if name in self.defaults}
            if given and not entry.known:
                return self._defaults(lacking)
            if not given.keys() <= features.keys():
                features, source = {**given, **features}, DEFAULT
        age = max(0.0, self._clock() - entry.born)
        self.counts.by_source[source] += 1
        self.counts.ages.observe(age)
        return Found(features, source, age)

    def _defaults(self, lacking: Collection[str]) -> Found:
        self.counts.by_source[DEFAULT] += 1
        return Found({name: self.defaults[name] for name in lacking if name in self.defaults}, DEFAULT, None)


def _report(upstream: Upstream | None) -> UpstreamReport | None:
    if upstream is None:
        return None
    breaker, tally = upstream.breaker, upstream.tally
    error = breaker.error[:_MAX_ERROR]
    return UpstreamReport(state=breaker.state, error=error, calls=tally.calls, failures=tally.failures)
