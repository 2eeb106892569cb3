"""The second layer: Redis, which the pods share. Imported only where it is configured.

A value is JSON with the time of its fetch; its key has the format's version, the namespace and the model:
``greenroom:features:1:ml/churn:u17`` holds ``{"at": 1795000000.25, "features": {"age": 41}}``.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final
from urllib.parse import unquote, urlsplit

import orjson
import structlog
from redis.asyncio import Redis
from redis.asyncio.cluster import RedisCluster
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import MasterNotFoundError, Sentinel
from redis.backoff import NoBackoff
from redis.exceptions import (
    AuthenticationError,
    MaxConnectionsError,
    NoPermissionError,
    OutOfMemoryError,
    ReadOnlyError,
    RedisError,
    ResponseError,
)
from redis.exceptions import ConnectionError as RedisConnectionError

from greenroom_runtime.contract import names
from greenroom_runtime.contract.config import RedisCache
from greenroom_runtime.features.breaker import Breaker
from greenroom_runtime.features.entry import REDIS, Entry, SourceError
from greenroom_runtime.features.memory import estimate_bytes
from greenroom_runtime.features.tally import Tally

log = structlog.get_logger(__name__)

PREFIX: Final = "greenroom:features:1"
USERNAME: Final = f"{names.ENV_FEATURES_REDIS_PREFIX}USERNAME"
PASSWORD: Final = f"{names.ENV_FEATURES_REDIS_PREFIX}PASSWORD"
SENTINEL_PASSWORD: Final = f"{names.ENV_FEATURES_REDIS_PREFIX}SENTINEL_PASSWORD"
CA_CERT: Final = f"{names.ENV_FEATURES_REDIS_PREFIX}CA_CERT"
_PORT: Final = 6379
_SENTINEL_PORT: Final = 26379
_PATIENCE_SECONDS: Final = 2.0
"""How long a call may take after its caller has gone on: a connection that is being made, or an answer that
is on its way, is worth more than a new one."""
_CONNECTIONS: Final = 32
_READS_AT_ONCE: Final = 4
"""MGETs of single entities that are under way at the same time; who asks meanwhile is in the next one."""
_MANY: Final = 1000
"""Keys that one MGET may ask for within the timeout; for each thousand more it may take as long again."""
_MANY_OF_A_CLUSTER: Final = 100
"""The same of a cluster, where each slot's keys are an MGET of their own, and their client takes its time."""
_TURNS_TO_ARRIVE: Final = 8
"""Of the event loop, from bytes that can be read to the one who waits for them."""
_READ_A_TURN: Final = 128
"""Values that are read before requests get their turn of the event loop."""
_WAITING: Final = 2048
"""Values that wait to be written; more are dropped."""
_WAITING_BYTES: Final = 16 * 1024 * 1024
"""Of these values; more are dropped."""
_WRITTEN_AT_ONCE: Final = 64
_AHEAD_SECONDS: Final = 3600.0
"""How far another clock may be ahead of ours."""

_TOLD: Final[Mapping[type[RedisError], str]] = {
    AuthenticationError: "Redis refuses the password: see features.redis.secretRef",
    NoPermissionError: f"Redis refuses the user: it must be allowed MGET and SET of {PREFIX}:*",
    OutOfMemoryError: "Redis is full",
    ReadOnlyError: "Redis takes no writes: it is a replica",
    MasterNotFoundError: (
        "Redis cannot be found: no sentinel tells its master; see features.redis.url, and SENTINEL_PASSWORD"
    ),
}
"""What is wrong where the error's kind says it: Redis' own words may hold the key."""

_Client = Redis | RedisCluster
_Value = bytes | None | SourceError
"""What is under a key, or why that is not known."""


class RedisStore:
    """Reads many entities by one command, and writes back behind the requests' backs."""

    def __init__(
        self,
        settings: RedisCache,
        *,
        client: _Client,
        model: str,
        namespace: str,
        keep_seconds: float,
        breaker: Breaker,
        clock: Callable[[], float],
        wall_clock: Callable[[], float],
    ) -> None:
        """``keep_seconds`` is how long after its time a value may still be of use."""
        self.tally = Tally()
        self.breaker = breaker
        self.garbage = 0
        """Values found that nobody of this release has written."""
        self.dropped = 0
        """Values that were not written back."""
        self._timeout = settings.timeout_seconds
        self._ttl = settings.ttl_seconds
        self._expire_ms = int((settings.ttl_seconds + keep_seconds) * 1000) or 1
        self._client = client
        self._many = _MANY_OF_A_CLUSTER if isinstance(client, RedisCluster) else _MANY
        self._start = f"{PREFIX}:{namespace}/{model}:"
        self._clock = clock
        self._wall_clock = wall_clock
        self._running: set[asyncio.Task[Any]] = set()
        self._line: deque[tuple[str, asyncio.Future[_Value]]] = deque()
        self._readers = 0
        self._queue: deque[tuple[str, bytes]] = deque()
        self._queued_bytes = 0
        self._writer: asyncio.Task[None] | None = None

    async def get_many(self, entities: Sequence[str]) -> dict[str, Entry]:
        """Return what Redis has of these, past its time included; SourceError where it fails."""
        if not self.breaker.admits():
            raise SourceError(f"Redis is left alone: {self.breaker.error}")
        keys = [self._start + entity for entity in entities]
        if len(keys) == 1:
            values = [await self._get(keys[0])]
        else:
            seconds = self._timeout * max(1.0, len(keys) / self._many)
            values = await self._call(partial(self._mget, keys), seconds=seconds)
        found = {}
        for number, (entity, value) in enumerate(zip(entities, values, strict=True)):
            if number % _READ_A_TURN == _READ_A_TURN - 1:
                await asyncio.sleep(0)
            if value is not None and (entry := self._read(entity, value)) is not None:
                found[entity] = entry
        return found

    def put(self, entity: str, entry: Entry) -> None:
        """Write an entry soon, or never: nobody waits for it and nothing fails over it."""
        if len(self._queue) >= _WAITING or self._queued_bytes >= _WAITING_BYTES or self.breaker.error:
            self.dropped += 1
            return
        at = self._wall_clock() - (self._clock() - entry.born)
        value = orjson.dumps({"at": at, "features": entry.features})
        self._queue.append((self._start + entity, value))
        self._queued_bytes += len(value)
        if self._writer is None or self._writer.done():
            self._writer = asyncio.ensure_future(self._write())

    async def close(self, seconds: float) -> None:
        """Leave what is under way, and close the connections."""
        tasks = [*self._running, *([self._writer] if self._writer is not None else [])]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=seconds)
        try:
            async with asyncio.timeout(seconds):
                await self._client.aclose()
        except (TimeoutError, RedisError, OSError):
            log.debug("Redis was left without a word")

    async def _get(self, key: str) -> bytes | None:
        """Read one key by the next MGET, which has those of others who ask at the same time.

        Were each of many misses a call of its own they would want more connections than there are, and a
        Redis that is well would look as if it failed.
        """
        value: asyncio.Future[_Value] = asyncio.get_running_loop().create_future()
        self._line.append((key, value))
        if self._readers < _READS_AT_ONCE:
            self._readers += 1
            self._begin(self._read_line())
        if not await _arrives(value, seconds=self._timeout):
            value.cancel()  # whoever waits no longer is not asked for
            raise SourceError(self._late(self._timeout))
        outcome = value.result()
        if isinstance(outcome, SourceError):
            raise outcome
        return outcome

    async def _read_line(self) -> None:
        try:
            while self._line:
                heads = [self._line.popleft() for _ in range(min(len(self._line), self._many))]
                await self._read_heads([(key, value) for key, value in heads if not value.done()])
        finally:
            self._readers -= 1  # here, not when the task is known to have ended: somebody may ask in between

    async def _read_heads(self, heads: "Sequence[tuple[str, asyncio.Future[_Value]]]") -> None:
        if not heads:
            return
        keys = [key for key, _ in heads]
        values: Sequence[_Value]
        try:
            values = await self._call(partial(self._mget, keys), seconds=self._timeout)
        except SourceError as error:
            values = [SourceError(str(error)) for _ in keys]
        for (_, value), outcome in zip(heads, values, strict=True):
            if not value.done():
                value.set_result(outcome)

    @staticmethod
    def _late(seconds: float) -> str:
        return f"Redis did not answer within {seconds * 1000:g} ms"

    async def _mget(self, keys: Sequence[str]) -> Any:
        if isinstance(self._client, RedisCluster):
            return await self._client.mget_nonatomic(keys)
        return await self._client.mget(keys)

    async def _write(self) -> None:
        while self._queue:
            pipeline = self._client.pipeline(transaction=False)
            number = min(len(self._queue), _WRITTEN_AT_ONCE)
            for key, value in (self._queue.popleft() for _ in range(number)):
                self._queued_bytes -= len(value)
                pipeline.set(key, value, px=self._expire_ms)
            try:
                await self._bounded(pipeline.execute)
            except Exception as error:  # noqa: BLE001 as above
                # Whoever may read and not write, or is full, is asked on.
                if not self.dropped:
                    log.warning("features are not written back", error=_told(error))
                self.dropped += number + len(self._queue)
                self._queue.clear()
                self._queued_bytes = 0

    async def _call(self, command: Callable[[], Awaitable[Any]], *, seconds: float) -> Any:
        """Run a command; SourceError where it fails, or takes longer than its caller can wait.

        It is not cancelled then: else a Redis whose connections take longer to be made than a request can
        wait would never be connected to.
        """
        started = self._clock()
        task = self._begin(self._bounded(command))
        arrived = await _arrives(task, seconds=seconds)
        took = self._clock() - started
        if not arrived:
            raise self._failure(self._late(seconds), seconds=took)
        try:
            answer = task.result()
        except asyncio.CancelledError:
            raise SourceError("Redis is being closed") from None
        except MaxConnectionsError:  # that is our doing: those who have a connection tell how Redis is
            raise SourceError(f"all {_CONNECTIONS} connections to Redis are waiting for it") from None
        except Exception as error:  # noqa: BLE001 not all that redis-py raises is a RedisError
            raise self._failure(_told(error), seconds=took) from None  # redis-py's texts may hold the key
        self.tally.add(took, failed=False)
        self.breaker.succeeded()
        return answer

    async def _bounded(self, command: Callable[[], Awaitable[Any]]) -> Any:
        async with asyncio.timeout(_PATIENCE_SECONDS):
            return await command()

    def _begin(self, work: Coroutine[Any, Any, Any]) -> "asyncio.Task[Any]":
        task = asyncio.ensure_future(work)
        self._running.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: "asyncio.Task[Any]") -> None:
        self._running.discard(task)
        if not task.cancelled():
            task.exception()  # told to who still waits

    def _failure(self, text: str, *, seconds: float) -> SourceError:
        self.tally.add(seconds, failed=True)
        self.breaker.failed(text)
        return SourceError(text)

    def _read(self, entity: str, value: bytes) -> Entry | None:
        try:
            document = orjson.loads(value)
            features, at = document["features"], document["at"]
        except (orjson.JSONDecodeError, KeyError, TypeError):
            features, at = None, None
        # A time that is far ahead is in another unit, most likely: such a value would stay young for ever.
        timed = type(at) in (int, float) and at <= self._wall_clock() + _AHEAD_SECONDS
        if type(features) is not dict or not timed:
            self.garbage += 1
            if self.garbage == 1:
                log.warning(
                    "Redis holds a value that is none of ours: it is ignored, and replaced", prefix=PREFIX
                )
            return None
        age = max(0.0, self._wall_clock() - at)
        now = self._clock()
        return Entry(
            features=features,
            born=now - age,
            size=estimate_bytes(entity, features=len(features), encoded=len(value)),
            source=REDIS,
            final=False,
            expires=now - age + self._ttl,
        )


async def _arrives(answer: "asyncio.Future[Any]", *, seconds: float) -> bool:
    """Wait for an answer; tell whether it is there.

    A process that did not run for longer than that, since its node or its limit had no CPU for it, finds its
    time over before it has looked at what has long arrived: so it looks.
    """
    await asyncio.wait({answer}, timeout=seconds)
    for _ in range(_TURNS_TO_ARRIVE):
        if answer.done():
            break
        await asyncio.sleep(0)
    return answer.done()


def _told(error: BaseException) -> str:
    """Say what happened without what was asked for."""
    for kind, text in _TOLD.items():
        if isinstance(error, kind):
            return text
    if isinstance(error, ResponseError):
        word = str(error).split(" ", 1)[0][:32]
        return f"Redis refuses the command: {word}"
    if isinstance(error, RedisConnectionError | OSError):
        return "Redis cannot be reached"
    return f"Redis fails: {type(error).__name__}"


@dataclass(frozen=True, kw_only=True)
class _Address:
    """What a URL says."""

    scheme: str
    tls: bool
    hosts: tuple[tuple[str, int], ...]
    parts: tuple[str, ...] = field(default=())


def open_client(url: str, *, environment: Mapping[str, str]) -> _Client:
    """Return a client that has not connected yet; ValueError for a URL that cannot be used."""
    address = _parse(url)
    options = _options(address, environment)
    # Once: a connection that has rested may have been closed by a server that was begun anew.
    options["retry"] = Retry(NoBackoff(), 1, supported_errors=(RedisConnectionError,))
    if address.scheme == "cluster":
        host, port = address.hosts[0]
        return RedisCluster(host=host, port=port, **options)
    if address.scheme == "sentinel":
        master, database = address.parts[0], address.parts[1] if len(address.parts) > 1 else "0"
        password = environment.get(SENTINEL_PASSWORD)
        sentinel = Sentinel(  # type: ignore[no-untyped-call]
            list(address.hosts),
            sentinel_kwargs={**_without_user(options), **({"password": password} if password else {})},
            **options,
            db=int(database),
        )
        client: Redis = sentinel.master_for(master)
        return client
    host, port = address.hosts[0]
    return Redis(host=host, port=port, db=int(address.parts[0]) if address.parts else 0, **options)


def _parse(url: str) -> _Address:
    parts = urlsplit(url)
    base, _, kind = parts.scheme.partition("+")
    remedy = "write redis://HOST:PORT/DB, redis+cluster://HOST:PORT or redis+sentinel://HOST:PORT,…/MASTER/DB"
    if base not in ("redis", "rediss") or kind not in ("", "cluster", "sentinel"):
        raise ValueError(f"features.redis.url begins with {parts.scheme[:32]!r}: {remedy}")
    if "@" in parts.netloc:
        raise ValueError(f"features.redis.url holds credentials: put them into {USERNAME} and {PASSWORD}")
    path = tuple(unquote(part) for part in parts.path.split("/") if part)
    databases = path[1:] if kind == "sentinel" else path
    whole = len(path) > len(databases) if kind == "sentinel" else kind or "," not in parts.netloc
    if not whole or len(databases) > 1 or not all(one.isdecimal() for one in databases):
        raise ValueError(f"features.redis.url has too few parts, or too many: {remedy}")
    default = _SENTINEL_PORT if kind == "sentinel" else _PORT
    try:
        hosts = tuple(_host(one, default) for one in parts.netloc.split(","))
    except ValueError as error:
        raise ValueError(f"features.redis.url cannot be used: {error}: {remedy}") from None
    return _Address(scheme=kind, tls=base == "rediss", hosts=hosts, parts=path)


def _host(text: str, default: int) -> tuple[str, int]:
    parts = urlsplit(f"//{text}")
    if not parts.hostname or parts.port == 0:
        raise ValueError("a host is missing")
    return parts.hostname, parts.port or default


def _options(address: _Address, environment: Mapping[str, str]) -> dict[str, Any]:
    options: dict[str, Any] = {
        "username": environment.get(USERNAME) or None,
        "password": environment.get(PASSWORD) or None,
        "socket_timeout": _PATIENCE_SECONDS,
        "socket_connect_timeout": _PATIENCE_SECONDS,
        "max_connections": _CONNECTIONS,
        "protocol": 2,  # one round trip less for each new connection than RESP3, and two without names
        "driver_info": None,
    }
    if address.tls:
        options["ssl"] = True
        if certificate := environment.get(CA_CERT):
            options["ssl_ca_data"] = certificate
    return options


def _without_user(options: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in options.items() if name not in ("username", "password")}
