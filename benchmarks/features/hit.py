"""What a hit in memory costs: of the cache alone, and of a prediction that needs it."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from statistics import median
from typing import Any

from greenroom_runtime.api.predictor import Asked, Predictor
from greenroom_runtime.contract import config
from greenroom_runtime.features.entry import COMPUTE, Entry, Features
from greenroom_runtime.features.opening import open_features
from greenroom_runtime.metrics import Metrics
from greenroom_runtime.models.residents import Serving

NAMES = tuple(f"feature_{number}" for number in range(10))
ENTITIES = 10_000
_ROUNDS = 15
_CALLS = 20_000


@dataclass(frozen=True, kw_only=True)
class HitCost:
    """Microseconds a call: the median of rounds, and the least."""

    name: str
    median_us: float
    least_us: float


class _Door:
    """Knows the model's features, and finds nothing wrong: what checking costs is the same either way."""

    names = frozenset(NAMES)

    @staticmethod
    def complaint(_: Features) -> str:
        return ""


def hit_costs() -> list[HitCost]:
    """Measure a recall, and what it adds to a row: the choice of names, the recall and the merge."""
    return asyncio.run(_hit_costs())


async def _hit_costs() -> list[HitCost]:
    settings = config.FeatureCache(
        compute=config.Compute(url="http://127.0.0.1:9/{entity}"), ttl_seconds=3600
    )
    cache = open_features(settings, model="churn", namespace="ml", environment={})
    now = time.monotonic()
    for number in range(ENTITIES):
        features = {name: float(number) for name in NAMES}
        cache.memory.put(
            f"u{number}", Entry(features, born=now, size=1000, source=COMPUTE, expires=now + 3600)
        )
    entities = [f"u{number * 7919 % ENTITIES}" for number in range(_CALLS)]
    lacking = frozenset(NAMES)

    async def recall() -> None:
        for entity in entities:
            cache.recall(entity, lacking, _Door.complaint)

    predictor = _predictor(cache)
    scene = predictor._scene()
    asked = [Asked("r", 0.0, entity) for entity in entities]
    from greenroom_runtime.api.predictor import _Row  # noqa: PLC0415 as above

    async def complete() -> None:
        for who in asked:
            row = _Row(who, {}, scene)
            await predictor._complete(row, cache)

    async def nothing() -> None:
        for who in asked:
            _Row(who, {}, scene)

    costs = [
        await _cost("recall of one entity", recall),
        await _cost("a row made", nothing),
        await _cost("a row made and completed from memory", complete),
    ]
    await cache.close(1.0)
    return costs


def _predictor(cache: Any) -> Predictor:
    production: Any = type("Version", (), {"name": "v1", "session": type("Session", (), {"door": _Door})})()
    serving = Serving(
        production=production,
        ready={"v1": production},
        known_features=_Door.names,
        sensitive_features=frozenset(),
    )
    residents: Any = type("Held", (), {"serving": serving, "production": production})()
    return Predictor(model="churn", residents=residents, metrics=Metrics(), features=cache)


async def _cost(name: str, run: Callable[[], Awaitable[None]]) -> HitCost:
    times = []
    for _ in range(_ROUNDS):
        started = time.thread_time()
        await run()
        times.append((time.thread_time() - started) / _CALLS * 1e6)
    return HitCost(name=name, median_us=median(times), least_us=min(times))
