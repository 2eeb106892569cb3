"""The last layer that is asked: an HTTP service that computes features, or a Feast feature server."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Final, NamedTuple

import aiohttp
import structlog
from yarl import URL

from greenroom_runtime.contract import names
from greenroom_runtime.contract.config import Compute
from greenroom_runtime.features.breaker import Breaker
from greenroom_runtime.features.entry import COMPUTE, Accept, Entry, SourceError, UnfitFeaturesError
from greenroom_runtime.features.lookup import Answers, Lookup, Query, UnreadableAnswerError
from greenroom_runtime.features.memory import estimate_bytes
from greenroom_runtime.features.pace import Hold, RateLimit, RetryBudget, backoff_seconds
from greenroom_runtime.features.tally import Tally
from greenroom_runtime.retry_after import retry_after_seconds

log = structlog.get_logger(__name__)

AUTHORIZATION: Final = f"{names.ENV_FEATURES_COMPUTE_PREFIX}AUTHORIZATION"
CA_CERT: Final = f"{names.ENV_FEATURES_COMPUTE_PREFIX}CA_CERT"
_CONNECTIONS: Final = 64
_AT_ONCE: Final = 16
"""Queries of one batch that are under way at the same time."""
_ENTITY_BYTES: Final = 256 * 1024
"""Of an answer, for each entity that was asked for; a larger one is refused."""
_LIST_BYTES: Final = 16 * 1024 * 1024
_LARGE_BYTES: Final = 64 * 1024
"""Answers from this size on are read in a thread: others must not wait for them."""
_BATCH_SECONDS: Final = 10.0
"""After which nothing more of a batch is asked for."""
_UNFIT_REMEMBERED: Final = 1000
"""Entities."""
_UNDONE: Final = frozenset({HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE})
"""Answers that say that nothing was done: what is not idempotent may be sent again, too."""
_PASSING: Final = _UNDONE | {
    HTTPStatus.INTERNAL_SERVER_ERROR,
    HTTPStatus.BAD_GATEWAY,
    HTTPStatus.GATEWAY_TIMEOUT,
}
_UNKNOWN: Final = frozenset({HTTPStatus.NOT_FOUND, HTTPStatus.GONE})


class _TryAgain(SourceError):  # noqa: N818 it is no failure yet
    """An attempt has failed in a way that may pass."""

    def __init__(
        self, text: str, *, retry_after: float = 0.0, undone: bool = False, held: bool = False
    ) -> None:
        super().__init__(text)
        self.retry_after = retry_after
        """Seconds that the upstream asks for; 0 for none."""
        self.undone = undone
        """Whether the upstream has not begun with it."""
        self.held = held
        """Whether the upstream is well, and only has too much to do."""


class _Outcome(NamedTuple):
    """What one query brought."""

    answers: Answers
    size: int
    """Bytes of the answer."""
    unfit: Mapping[str, str]
    """Entities whose values no model takes, and why."""


class ComputeSource:
    """Asks within a deadline, again where that may help, and no more than the upstream bears."""

    def __init__(
        self,
        settings: Compute,
        *,
        lookup: Lookup,
        environment: Mapping[str, str],
        breaker: Breaker,
        clock: Callable[[], float],
        chance: Callable[[], float],
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        """ValueError for a certificate that is none."""
        self.tally = Tally()
        self.breaker = breaker
        self.retries = 0
        self._settings = settings
        self._lookup = lookup
        self._clock = clock
        self._chance = chance
        self._now = now
        self._budget = RetryBudget()
        self._hold = Hold(clock=clock, chance=chance)
        self._rate = (
            RateLimit(per_second=settings.rate_limit, clock=clock)
            if settings.rate_limit is not None
            else None
        )
        self._headers = {"Accept": "application/json", "Accept-Encoding": "identity"}
        if authorization := environment.get(AUTHORIZATION, "").strip():
            self._headers["Authorization"] = authorization
        self._tls = _tls(settings.url, environment.get(CA_CERT, ""))
        self._session: aiohttp.ClientSession | None = None
        self._unfit: dict[str, str] = {}
        """Entities whose values did not fit when they were fetched last."""
        self._complaint = ""
        """What was told last of values that do not fit."""

    async def get(self, entity: str, accept: Accept) -> Entry:
        """Return an entity's features, none for one that is not known; SourceError without an answer."""
        outcome = (await self._ask([entity], accept))[entity]
        if isinstance(outcome, SourceError):
            raise outcome
        return outcome

    async def get_many(self, entities: Sequence[str], accept: Accept) -> dict[str, Entry | SourceError]:
        """Return the features of each, or why there are none; a few queries at a time."""
        size = self._lookup.entities_at_once
        slots, end = asyncio.Semaphore(_AT_ONCE), self._clock() + _BATCH_SECONDS

        async def ask(chunk: Sequence[str]) -> dict[str, Entry | SourceError]:
            async with slots:
                if self._clock() < end:
                    return await self._ask(chunk, accept)
            late = SourceError(f"the feature service takes longer than {_BATCH_SECONDS:g} s for a batch")
            return dict.fromkeys(chunk, late)

        chunks = [entities[start : start + size] for start in range(0, len(entities), size)]
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(ask(chunk)) for chunk in chunks]
        return {entity: outcome for task in tasks for entity, outcome in task.result().items()}

    async def close(self) -> None:
        """Close the connections."""
        if self._session is not None:
            await self._session.close()

    async def _ask(self, entities: Sequence[str], accept: Accept) -> dict[str, Entry | SourceError]:
        query = self._lookup.query(entities)
        if query is None:
            return {entity: self._entry(entity, {}, size=0) for entity in entities}
        try:
            answers, size, unfit = await self._attempts(query, accept)
        except SourceError as error:
            return dict.fromkeys(entities, error.with_traceback(None))  # that refers to its callers
        share = size // len(entities)
        return {
            entity: UnfitFeaturesError(unfit[entity])
            if entity in unfit
            else self._entry(entity, answers.get(entity, {}), size=share)
            for entity in entities
        }

    def _entry(self, entity: str, features: Mapping[str, object], *, size: int) -> Entry:
        return Entry(
            features=features,
            born=self._clock(),
            size=estimate_bytes(entity, features=len(features), encoded=size),
            source=COMPUTE,
        )

    async def _attempts(self, query: Query, accept: Accept) -> _Outcome:
        deadline = self._clock() + self._settings.timeout_seconds
        self._budget.earn()
        attempt = 0
        while True:
            await self._let_pass(deadline, first=attempt == 0)
            try:
                return await self._attempt(query, accept, deadline)
            except _TryAgain as failure:
                wait = max(failure.retry_after, backoff_seconds(attempt, chance=self._chance()))
                attempt += 1
                too_late = attempt == self._settings.max_attempts or self._clock() + wait >= deadline
                repeatable = query.body is None or failure.undone
                if too_late or not repeatable or not self._budget.spend():
                    raise SourceError(str(failure)) from None
            self.retries += 1
            await asyncio.sleep(wait)

    async def _let_pass(self, deadline: float, *, first: bool) -> None:
        """Wait for the rate limit; SourceError where the upstream shall not be asked now."""
        await self._let_rest(deadline, first=first)
        if not self.breaker.admits():
            raise SourceError(f"the feature service is left alone: {self.breaker.error}")
        if self._rate is not None:
            # At most half of what is left: an answer takes its time, too.
            reserved = self._rate.reserve((deadline - self._clock()) / 2)
            if reserved is None:
                raise SourceError(
                    f"features.compute.rateLimit is reached: {self._settings.rate_limit:g} a second"
                )
            if reserved:
                await asyncio.sleep(reserved)
                await self._let_rest(deadline, first=first)

    async def _let_rest(self, deadline: float, *, first: bool) -> None:
        """Leave the upstream alone for as long as it has asked; only who has asked already waits for that."""
        while (seconds := self._hold.seconds) > 0:
            if first or self._clock() + seconds >= deadline:
                raise SourceError("the feature service has asked not to be asked for a while (Retry-After)")
            await asyncio.sleep(seconds)

    async def _attempt(self, query: Query, accept: Accept, deadline: float) -> _Outcome:
        started = self._clock()
        try:
            async with asyncio.timeout(max(0.0, deadline - started)), self._answer(query) as answer:
                outcome = await self._read(query, answer, accept)
        except TimeoutError:
            limit = self._settings.timeout_seconds * 1000
            raise self._failed(
                _TryAgain(f"the feature service did not answer within {limit:g} ms"), started
            ) from None
        except (aiohttp.ClientError, OSError, ValueError) as error:
            undone = isinstance(error, aiohttp.ClientConnectorError)
            told = _TryAgain(f"the feature service cannot be reached: {_told(error)}", undone=undone)
            raise self._failed(told, started) from None
        except SourceError as error:
            raise self._failed(error, started) from None
        self.tally.add(self._clock() - started, failed=bool(outcome.unfit))
        self._hold.end()
        self._weigh(outcome)
        return outcome

    def _weigh(self, outcome: _Outcome) -> None:
        """Tell the breaker of an answer that came: an entity whose values do not fit counts once.

        Else one of whom the service knows nonsense, and who is asked for again and again, would take the
        features of all the others away.
        """
        for entity in self._unfit.keys() & outcome.answers.keys() - outcome.unfit.keys():
            del self._unfit[entity]
        news = outcome.unfit.keys() - self._unfit.keys()
        self._unfit.update(outcome.unfit)
        while len(self._unfit) > _UNFIT_REMEMBERED:
            del self._unfit[next(iter(self._unfit))]
        if not outcome.unfit or len(outcome.answers) - len(outcome.unfit) > len(news):
            self.breaker.succeeded()
        elif news:
            self.breaker.failed(next(iter(outcome.unfit.values()))[:256])
        if outcome.unfit:
            self._tell_unfit(next(iter(outcome.unfit.values()))[:256])

    def _tell_unfit(self, complaint: str) -> None:
        if complaint != self._complaint:
            self._complaint = complaint
            log.warning("features do not fit", error=complaint)

    def _failed(self, error: SourceError, started: float) -> SourceError:
        self.tally.add(self._clock() - started, failed=True)
        if isinstance(error, _TryAgain) and (error.held or error.retry_after):
            self._hold.begin(error.retry_after)
        if isinstance(error, _TryAgain) and error.held:
            self.breaker.succeeded()  # it answers, and says what it can bear
        else:
            self.breaker.failed(str(error)[:256])
        return error

    @asynccontextmanager
    async def _answer(self, query: Query) -> AsyncIterator[aiohttp.ClientResponse]:
        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=_CONNECTIONS, ssl=self._tls),
                timeout=aiohttp.ClientTimeout(total=None),  # the deadline is ours
                cookie_jar=aiohttp.DummyCookieJar(),
                auto_decompress=False,
            )
        headers = (
            self._headers if query.body is None else {**self._headers, "Content-Type": "application/json"}
        )
        async with self._session.request(
            "GET" if query.body is None else "POST",
            URL(query.url, encoded=True),
            data=query.body,
            headers=headers,
            allow_redirects=False,  # where a pod is sent, who wrote the URL decides
        ) as answer:
            yield answer

    async def _read(self, query: Query, answer: aiohttp.ClientResponse, accept: Accept) -> _Outcome:
        if query.body is None and answer.status in _UNKNOWN:
            return _Outcome({}, 0, {})
        if answer.status != HTTPStatus.OK:
            raise self._refused(answer)
        body = await _bounded(answer.content, limit=min(_ENTITY_BYTES * len(query.entities), _LIST_BYTES))
        try:
            if len(body) < _LARGE_BYTES:
                return self._judge(query, body, accept)
            return await asyncio.to_thread(self._judge, query, body, accept)
        except UnreadableAnswerError as error:
            raise UnfitFeaturesError(f"the feature service answers with something else: {error}") from None

    def _judge(self, query: Query, body: bytes, accept: Accept) -> _Outcome:
        answers = self._lookup.read(query, body)
        judged = ((entity, accept(features)) for entity, features in answers.items())
        unfit = {entity: f"the feature service has changed: {wrong}" for entity, wrong in judged if wrong}
        return _Outcome(answers, len(body), unfit)

    def _refused(self, answer: aiohttp.ClientResponse) -> SourceError:
        status = answer.status
        text = f"the feature service answers {status}"
        if HTTPStatus.MULTIPLE_CHOICES <= status < HTTPStatus.BAD_REQUEST:
            return SourceError(f"{text}: redirects are not followed, write the address itself as its url")
        if status not in _PASSING:
            return SourceError(text)
        retry_after = retry_after_seconds(answer.headers.get("Retry-After", ""), now=self._now())
        return _TryAgain(
            text,
            retry_after=retry_after if status in _UNDONE else 0.0,
            undone=status in _UNDONE,
            held=status == HTTPStatus.TOO_MANY_REQUESTS,
        )


async def _bounded(stream: aiohttp.StreamReader, *, limit: int) -> bytes:
    chunks, size = [], 0
    async for chunk in stream.iter_any():
        chunks.append(chunk)
        size += len(chunk)
        if size > limit:
            raise UnfitFeaturesError(f"the feature service answers with more than {limit} bytes")
    return b"".join(chunks)


def _told(error: BaseException) -> str:
    """Say what happened without the URL, which holds the entity."""
    if isinstance(error, aiohttp.ClientSSLError):
        return "its certificate is not trusted, see features.compute.secretRef"
    if isinstance(error, aiohttp.ClientConnectorError):
        return error.os_error.strerror or type(error.os_error).__name__
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return type(error).__name__


def _tls(url: str, certificate: str) -> ssl.SSLContext | bool:
    if not url.startswith("https://"):
        return True
    try:
        return ssl.create_default_context(cadata=certificate or None)
    except (ssl.SSLError, ValueError) as error:
        raise ValueError(f"{CA_CERT} is no certificate in PEM: {error}") from error
