"""Feature caches for tests, on real upstreams and a clock that a test may move."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from greenroom_runtime.contract import config
from greenroom_runtime.features.chain import FeatureCache
from greenroom_runtime.features.entry import Features
from greenroom_runtime.features.opening import open_features

DEADLINE_SECONDS = 60.0
"""How long a test waits for what must come; only ever reached on failure."""
MODEL, NAMESPACE = "churn", "ml"
KEY_START = f"greenroom:features:1:{NAMESPACE}/{MODEL}:"


@dataclass
class Clock:
    """Time that passes only when a test says so."""

    now: float = 1000.0

    def __call__(self) -> float:
        """Return it, in seconds."""
        return self.now

    def wall(self) -> float:
        """Return the same as a time since 1970."""
        return 1_795_000_000.0 + self.now


def anything(_: Features) -> str:
    """Accept all values."""
    return ""


async def until(condition: Callable[[], object]) -> None:
    """Wait until the condition holds."""
    deadline = time.monotonic() + DEADLINE_SECONDS
    while not condition():
        assert time.monotonic() < deadline, "not before the deadline"
        await asyncio.sleep(0.002)


@asynccontextmanager
async def feature_cache(
    *,
    redis: Mapping[str, Any] | str | None = None,
    compute: Mapping[str, Any] | str | None = None,
    clock: Clock | None = None,
    environment: Mapping[str, str] | None = None,
    chance: Callable[[], float] = lambda: 0.0,
    **settings: Any,
) -> AsyncIterator[FeatureCache]:
    """Give a cache until the block ends; a layer that is a text is its URL, with generous timeouts."""
    layers = {
        "redis": {"url": redis, "timeout_seconds": 5.0} if isinstance(redis, str) else redis,
        "compute": {"url": compute, "timeout_seconds": 10.0} if isinstance(compute, str) else compute,
    }
    times: dict[str, Any] = {"clock": clock, "wall_clock": clock.wall} if clock is not None else {}
    cache = open_features(
        config.FeatureCache.model_validate({**layers, **settings}),
        model=MODEL,
        namespace=NAMESPACE,
        environment=environment or {},
        chance=chance,
        **times,
    )
    try:
        yield cache
    finally:
        await cache.close(1.0)
