"""The feature cache from its settings. Libraries are imported only for the layers that are asked for."""

import random
import time
from collections.abc import Callable, Mapping

import structlog

from greenroom_runtime.contract import config
from greenroom_runtime.features.breaker import Breaker
from greenroom_runtime.features.chain import FeatureCache, Source, Store
from greenroom_runtime.features.unusable import UnusableSource, UnusableStore

log = structlog.get_logger(__name__)


def open_features(
    settings: config.FeatureCache,
    *,
    model: str,
    namespace: str,
    environment: Mapping[str, str],
    clock: Callable[[], float] = time.monotonic,
    wall_clock: Callable[[], float] = time.time,
    chance: Callable[[], float] = random.random,
) -> FeatureCache:
    """Return a cache that has connected to nothing yet.

    A layer whose settings cannot work fails for good: the report says why, and the others go on.
    """
    store: Store | None = None
    source: Source | None = None
    if settings.redis is not None:
        breaker = Breaker(name="redis", clock=clock, chance=chance)
        store = _open_store(
            settings.redis,
            breaker,
            model=model,
            namespace=namespace,
            keep_seconds=settings.stale_seconds,
            environment=environment,
            clock=clock,
            wall_clock=wall_clock,
        )
    if settings.compute is not None:
        breaker = Breaker(name="compute", clock=clock, chance=chance)
        source = _open_source(settings.compute, breaker, environment=environment, clock=clock, chance=chance)
    return FeatureCache(settings, store=store, source=source, clock=clock, chance=chance)


def _open_store(
    settings: config.RedisCache,
    breaker: Breaker,
    *,
    model: str,
    namespace: str,
    keep_seconds: float,
    environment: Mapping[str, str],
    clock: Callable[[], float],
    wall_clock: Callable[[], float],
) -> Store:
    # Its client takes a third of a second to import.
    from greenroom_runtime.features.redis_store import RedisStore, open_client  # noqa: PLC0415

    try:
        client = open_client(settings.url, environment=environment)
    except ValueError as error:
        log.warning("Redis cannot be used", error=str(error))
        return UnusableStore(breaker, str(error))
    return RedisStore(
        settings,
        client=client,
        model=model,
        namespace=namespace,
        keep_seconds=keep_seconds,
        breaker=breaker,
        clock=clock,
        wall_clock=wall_clock,
    )


def _open_source(
    settings: config.Compute,
    breaker: Breaker,
    *,
    environment: Mapping[str, str],
    clock: Callable[[], float],
    chance: Callable[[], float],
) -> Source:
    from greenroom_runtime.features.compute import ComputeSource  # noqa: PLC0415
    from greenroom_runtime.features.lookup import open_lookup  # noqa: PLC0415

    try:
        return ComputeSource(
            settings,
            lookup=open_lookup(settings),
            environment=environment,
            breaker=breaker,
            clock=clock,
            chance=chance,
        )
    except ValueError as error:
        log.warning("the feature service cannot be used", error=str(error))
        return UnusableSource(breaker, str(error))
