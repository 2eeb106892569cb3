"""Who is compared: ours, a cache as articles describe it, and Redis in front of what computes.

Each is asked for one entity's features, and raises where it has none to give.
"""

import time
from collections.abc import Mapping
from typing import Any, Final, Protocol

import aiohttp
import orjson
from redis.asyncio import Redis

from greenroom_runtime.contract import config
from greenroom_runtime.features.entry import Features
from greenroom_runtime.features.opening import open_features

MODEL, NAMESPACE = "churn", "ml"
NAMES: Final = frozenset(f"feature_{number}" for number in range(10))
TTL_SECONDS: Final = 5.0
REDIS_TTL_SECONDS: Final = 300.0
PLAIN_START: Final = "features:"
"""Keys of those who are not ours."""


class Contender(Protocol):
    """A way to features."""

    async def get(self, entity: str) -> Mapping[str, Any]:
        """Return an entity's features; raises where that cannot be."""

    async def close(self) -> None:
        """End."""


class Greenroom:
    """The chain with the defaults of `spec.features`, but for its time in memory: as short as the others'."""

    def __init__(self, redis_port: int, service_port: int) -> None:
        self._cache = open_features(
            config.FeatureCache(
                ttl_seconds=TTL_SECONDS,
                max_entries=100_000,
                redis=config.RedisCache(url=f"redis://127.0.0.1:{redis_port}", ttl_seconds=REDIS_TTL_SECONDS),
                compute=config.Compute(url=f"http://127.0.0.1:{service_port}/{{entity}}"),
                defaults=dict.fromkeys(NAMES, 0.0),
            ),
            model=MODEL,
            namespace=NAMESPACE,
            environment={},
        )

    async def get(self, entity: str) -> Mapping[str, Any]:
        """Return what memory has, or what the chain finds."""
        found = self._cache.recall(entity, NAMES, _accept)
        if found is None:
            found = await self._cache.fetch(entity, NAMES, _accept)
        return found.features

    async def close(self) -> None:
        """End, and tell nothing."""
        await self._cache.close(1.0)


class RedisOnly:
    """Redis in front of what computes, through redis-py as it is by default: 5 s, and retries of its own."""

    def __init__(self, redis_port: int, service_port: int) -> None:
        self._redis = Redis(port=redis_port)
        self._url = f"http://127.0.0.1:{service_port}/"
        self._session = aiohttp.ClientSession()

    async def get(self, entity: str) -> Mapping[str, Any]:
        """Return what Redis has, or what is computed."""
        if (value := await self._redis.get(PLAIN_START + entity)) is not None:
            known: Mapping[str, Any] = orjson.loads(value)
            return known
        async with self._session.get(self._url + entity) as answer:
            answer.raise_for_status()
            features: Mapping[str, Any] = orjson.loads(await answer.read())
        await self._redis.set(PLAIN_START + entity, orjson.dumps(features), ex=int(REDIS_TTL_SECONDS))
        return features

    async def close(self) -> None:
        """End."""
        await self._session.close()
        await self._redis.aclose()


class FeatureServer(RedisOnly):
    """A dictionary with times in front of Redis in front of what computes.

    So the article's `FeatureServer` is described: no timeouts, no breaker, no stale values, no defaults, and
    whoever misses fetches for himself.
    """

    def __init__(self, redis_port: int, service_port: int) -> None:
        super().__init__(redis_port, service_port)
        self._memory: dict[str, tuple[float, Mapping[str, Any]]] = {}

    async def get(self, entity: str) -> Mapping[str, Any]:
        """Return what the dictionary has, or what the others have."""
        kept = self._memory.get(entity)
        if kept is not None and time.monotonic() < kept[0]:
            return kept[1]
        features = await super().get(entity)
        self._memory[entity] = (time.monotonic() + TTL_SECONDS, features)
        return features


CONTENDERS: Final[Mapping[str, type[Contender]]] = {
    "greenroom": Greenroom,
    "feature-server": FeatureServer,
    "redis-only": RedisOnly,
}


def _accept(_: Features) -> str:
    return ""
