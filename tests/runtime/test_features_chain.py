"""The chain of the feature cache: which layer answers, what is kept, and who waits for whom."""

import asyncio
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from greenroom_runtime.contract.report import BreakerState
from greenroom_runtime.features.chain import FeatureCache
from greenroom_runtime.features.entry import COMPUTE, Entry, FeaturesUnavailableError
from greenroom_runtime.features.memory import Memory, estimate_bytes
from tests.support.features import KEY_START, Clock, anything, feature_cache, until
from tests.support.redis import RedisServer, redis_server
from tests.support.upstream import FeatureService, feature_service

AGE = ("age",)


@pytest.fixture(scope="module")
def running_redis() -> Iterator[RedisServer]:
    """Run one Redis for these tests."""
    with redis_server() as server:
        yield server


@pytest.fixture
def redis(running_redis: RedisServer) -> RedisServer:
    """Give the running Redis, empty."""
    with running_redis.client() as client:
        client.flushall()
        client.config_resetstat()
    return running_redis


@pytest.fixture
def service() -> Iterator[FeatureService]:
    """Run a feature service that knows u1."""
    with feature_service(features={"u1": {"age": 41.0, "city": "Oslo"}}) as running:
        yield running


async def fetch(cache: FeatureCache, entity: str = "u1", lacking: Any = AGE) -> tuple[Any, str]:
    """Return an entity's features and where they are from, from memory where that has them."""
    found = cache.recall(entity, lacking, anything) or await cache.fetch(entity, lacking, anything)
    return dict(found.features), found.source


async def written(redis: RedisServer, entity: str = "u1") -> dict[str, Any]:
    """Wait until a value has been written back, and return it."""
    with redis.client() as client:
        await until(lambda: client.exists(KEY_START + entity))
        document: dict[str, Any] = orjson.loads(client.get(KEY_START + entity))
    return document


async def test_each_layer_is_asked_only_where_those_before_it_have_nothing(
    redis: RedisServer, service: FeatureService
) -> None:
    """Computed once, then from memory; another pod has it from Redis."""
    url = f"{service.url}/one/{{entity}}"
    async with feature_cache(redis=redis.url, compute=url) as cache:
        assert await fetch(cache) == ({"age": 41.0}, "compute")
        assert await fetch(cache) == ({"age": 41.0}, "memory")
        await written(redis)
        report = cache.report()
    async with feature_cache(redis=redis.url, compute=url) as other:
        assert await fetch(other) == ({"age": 41.0}, "redis")
    assert service.asked == [["u1"]]
    assert (report.compute, report.memory, report.redis) == (1, 1, 0)


async def test_redis_holds_when_it_was_fetched(redis: RedisServer, service: FeatureService) -> None:
    """So another pod knows the age of what it finds, and the key goes by itself when it is of no more use."""
    clock = Clock()
    layer = {"url": redis.url, "timeout_seconds": 5.0, "ttl_seconds": 600.0}
    async with feature_cache(
        redis=layer, compute=f"{service.url}/one/{{entity}}", clock=clock, stale_seconds=60
    ) as cache:
        await fetch(cache)
        assert await written(redis) == {
            "at": clock.wall(),
            "features": {"age": 41.0, "city": "Oslo"},
        }
    with redis.client() as client:
        assert 650 < client.ttl(f"{KEY_START}u1") <= 660
    clock.now += 45
    async with feature_cache(redis=layer, clock=clock) as other:
        found = await other.fetch("u1", AGE, anything)
    assert (found.source, found.age_seconds) == ("redis", 45)


async def test_what_has_expired_is_given_at_once_and_fetched_anew_meanwhile(service: FeatureService) -> None:
    """Within once its time an entity that is asked for again never waits; later it does."""
    clock = Clock()
    url = f"{service.url}/one/{{entity}}"
    async with feature_cache(compute=url, clock=clock, ttl_seconds=10, stale_seconds=100) as cache:
        await fetch(cache)
        clock.now += 15
        service.features["u1"] = {"age": 42.0}
        assert [await fetch(cache) for _ in range(3)] == [({"age": 41.0}, "stale")] * 3
        await cache.flights.wait("u1", _never)
        assert await fetch(cache) == ({"age": 42.0}, "memory")
        assert len(service.asked) == 2
        clock.now += 25
        service.features["u1"] = {"age": 43.0}
        assert await fetch(cache) == ({"age": 43.0}, "compute")


async def test_what_has_expired_is_given_where_no_source_answers(service: FeatureService) -> None:
    """As long as `staleFor` allows, and then no more."""
    clock = Clock()
    url = f"{service.url}/one/{{entity}}"
    async with feature_cache(compute=url, clock=clock, ttl_seconds=10, stale_seconds=100) as cache:
        await fetch(cache)
        service.status = 500
        clock.now += 109
        assert await fetch(cache) == ({"age": 41.0}, "stale")
        clock.now += 2
        with pytest.raises(FeaturesUnavailableError, match="answers 500"):
            await fetch(cache)
        assert cache.report().failed == 1


async def test_a_new_pod_gives_what_redis_has_kept_where_nobody_computes(
    redis: RedisServer, service: FeatureService
) -> None:
    """Redis keeps values beyond their time for this."""
    clock = Clock()
    layer = {"url": redis.url, "timeout_seconds": 5.0, "ttl_seconds": 10.0}
    url = f"{service.url}/one/{{entity}}"
    async with feature_cache(redis=layer, compute=url, clock=clock, stale_seconds=100) as cache:
        await fetch(cache)
        await written(redis)
    clock.now += 50
    service.status = 503
    async with feature_cache(redis=layer, compute=url, clock=clock, stale_seconds=100) as other:
        assert await fetch(other) == ({"age": 41.0}, "stale")
        assert len(other.memory) == 0


async def test_defaults_are_the_last_resort(service: FeatureService) -> None:
    """Where all that is lacking has one; else there is no answer."""
    service.status = 500
    url = f"{service.url}/one/{{entity}}"
    async with feature_cache(compute=url, defaults={"age": 18.0}) as cache:
        assert await fetch(cache) == ({"age": 18.0}, "default")
        with pytest.raises(FeaturesUnavailableError):
            await fetch(cache, lacking=("age", "city"))


async def test_who_is_not_known_is_remembered_for_seconds(service: FeatureService) -> None:
    """A 404 is an answer: it opens no breaker, is not asked for again at once, and may change soon."""
    clock = Clock()
    url = f"{service.url}/one/{{entity}}"
    async with feature_cache(compute=url, clock=clock, defaults={"city": "?"}) as cache:
        assert [await fetch(cache, "new") for _ in range(3)] == [({}, "compute")] + [({}, "memory")] * 2
        assert await fetch(cache, "new", ("city",)) == ({"city": "?"}, "default")
        assert service.asked == [["new"]]
        clock.now += 6
        service.features["new"] = {"age": 1.0}
        await fetch(cache, "new")
        assert len(service.asked) == 2
        assert cache.source is not None
        assert cache.source.breaker.state is BreakerState.CLOSED
        assert cache.counts.unknown == 4


async def test_a_feature_that_the_source_lacks_has_its_default(service: FeatureService) -> None:
    """The rest is the source's; the row's source says that a default was needed."""
    async with feature_cache(compute=f"{service.url}/one/{{entity}}", defaults={"plan": "free"}) as cache:
        found = await fetch(cache, lacking=("age", "plan"))
    assert found == ({"age": 41.0, "plan": "free"}, "default")


async def test_redis_without_a_new_feature_is_passed_over(
    redis: RedisServer, service: FeatureService
) -> None:
    """A value from before a model wanted more is completed once, not given without it until it expires."""
    with redis.client() as client:
        at = Clock().wall()
        client.set(f"{KEY_START}u1", orjson.dumps({"at": at, "features": {"city": "Oslo"}}))
    async with feature_cache(
        redis=redis.url, compute=f"{service.url}/one/{{entity}}", clock=Clock()
    ) as cache:
        assert await fetch(cache, lacking=("city",)) == ({"city": "Oslo"}, "redis")
        assert await fetch(cache) == ({"age": 41.0}, "compute")
        assert await fetch(cache) == ({"age": 41.0}, "memory")


async def test_what_redis_lacks_and_nobody_computes_now_is_unavailable(
    redis: RedisServer, service: FeatureService
) -> None:
    """A value from before a feature was wanted is no answer while the service is away."""
    service.status = 500
    with redis.client() as client:
        value = {"at": Clock().wall(), "features": {"city": "Oslo"}}
        client.set(f"{KEY_START}u1", orjson.dumps(value))
    url = f"{service.url}/one/{{entity}}"
    async with feature_cache(redis=redis.url, compute=url, clock=Clock()) as cache:
        with pytest.raises(FeaturesUnavailableError, match="answers 500"):
            await fetch(cache, lacking=("age", "city"))
    async with feature_cache(redis=redis.url, compute=url, clock=Clock(), defaults={"age": 18.0}) as cache:
        found = await fetch(cache, lacking=("age", "city"))
        assert found == ({"age": 18.0, "city": "Oslo"}, "default")


async def test_redis_alone_is_a_source(redis: RedisServer) -> None:
    """A pipeline may fill it; what it does not know nobody knows."""
    with redis.client() as client:
        client.set(f"{KEY_START}u1", orjson.dumps({"at": Clock().wall(), "features": {"age": 5.0}}))
    async with feature_cache(redis=redis.url, clock=Clock()) as cache:
        assert await fetch(cache) == ({"age": 5.0}, "redis")
        assert await fetch(cache, "u2") == ({}, "redis")


@pytest.mark.parametrize(
    "value",
    [
        b"\xff\xfe",
        b"[]",
        b'{"features": {"age": 1}}',
        b'{"at": "x", "features": {}}',
        b'{"at": 1795000000250, "features": {"age": 1}}',
    ],
)
async def test_garbage_in_redis_is_replaced(
    redis: RedisServer, service: FeatureService, value: bytes
) -> None:
    """It is counted, nobody is refused over it, and the next pod finds what it should."""
    with redis.client() as client:
        client.set(f"{KEY_START}u1", value)
    async with feature_cache(redis=redis.url, compute=f"{service.url}/one/{{entity}}") as cache:
        assert (await fetch(cache))[1] == "compute"
        assert cache.store is not None
        assert cache.store.garbage == 1
        with redis.client(text=False) as client:
            await until(lambda: client.get(f"{KEY_START}u1") != value)
        assert cache.store.breaker.state is BreakerState.CLOSED


async def test_ten_thousand_who_miss_make_one_call(service: FeatureService) -> None:
    """However many ask for one entity at once, it is fetched once."""
    service.delay_seconds = 0.05
    async with feature_cache(compute=f"{service.url}/one/{{entity}}") as cache:
        found = await asyncio.gather(*(fetch(cache) for _ in range(10_000)))
    assert len(found) == 10_000
    assert {source for _, source in found} == {"compute"}
    assert service.asked == [["u1"]]
    assert cache.flights.joined == 9_999


async def test_a_caller_who_goes_away_cancels_nobody(service: FeatureService) -> None:
    """Not even the one who began the fetch; and when all have gone it still fills the cache."""
    service.delay_seconds = 0.05
    async with feature_cache(compute=f"{service.url}/one/{{entity}}") as cache:
        callers = [asyncio.ensure_future(fetch(cache)) for _ in range(50)]
        await asyncio.sleep(0)
        callers[0].cancel()
        outcomes = await asyncio.gather(*callers, return_exceptions=True)
        assert isinstance(outcomes[0], asyncio.CancelledError)
        assert [outcome for outcome in outcomes[1:] if outcome != outcomes[1]] == []
        alone = asyncio.ensure_future(fetch(cache, "u2"))
        await until(lambda: cache.flights.under_way("u2"))
        alone.cancel()
        await until(lambda: not cache.flights.under_way("u2"))
    assert service.asked == [["u1"], ["u2"]]


async def test_nothing_is_left_when_it_is_closed(redis: RedisServer, service: FeatureService) -> None:
    """Neither a fetch that is under way nor a value that is being written keeps a task alive."""
    service.delay_seconds = 30
    async with feature_cache(redis=redis.url, compute=f"{service.url}/one/{{entity}}") as cache:
        waiting = asyncio.ensure_future(fetch(cache))
        await until(lambda: service.asked)
    with suppress(asyncio.CancelledError):
        await waiting
    # Connections say goodbye in callbacks of the loop.
    while others := [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]:
        await asyncio.wait(others)


async def test_a_batch_asks_redis_once_and_spares_memory(redis: RedisServer, service: FeatureService) -> None:
    """A thousand entities are one MGET; those that Redis lacks are computed, and written back."""
    service.everyone = {"age": 7.0}
    entities = [f"e{number}" for number in range(1000)]
    with redis.client() as client:
        value = orjson.dumps({"at": Clock().wall(), "features": {"age": 1.0}})
        client.mset({KEY_START + entity: value for entity in entities[:600]})
    async with feature_cache(redis=redis.url, compute=f"{service.url}/many", clock=Clock()) as cache:
        found = await cache.fetch_many(dict.fromkeys(entities, AGE), anything)
        assert list(found) == entities
        sources = [getattr(one, "source", "") for one in found.values()]
        assert (sources.count("redis"), sources.count("compute")) == (600, 400)
        assert redis.commands("mget") == 1
        assert len(cache.memory) == 0
        assert [len(asked) for asked in service.asked] == [400]
        await written(redis, "e999")


async def test_a_batch_takes_what_memory_has_where_no_source_answers(service: FeatureService) -> None:
    """And tells of each entity apart that has nothing."""
    async with feature_cache(compute=f"{service.url}/one/{{entity}}") as cache:
        await fetch(cache)
        service.status = 500
        found = await cache.fetch_many({"u1": AGE, "u2": AGE}, anything)
    assert getattr(found["u1"], "source", "") == "memory"
    assert isinstance(found["u2"], FeaturesUnavailableError)


async def test_large_values_are_used_and_not_kept(redis: RedisServer, service: FeatureService) -> None:
    """One entity must not push out all others, nor fill Redis."""
    service.features["big"] = {f"e{number}": float(number) for number in range(2000)}
    url = f"{service.url}/one/{{entity}}"
    async with feature_cache(redis=redis.url, compute=url, max_bytes=1024 * 1024) as cache:
        found, source = await fetch(cache, "big", ("e1999",))
        assert (found["e1999"], source) == (1999.0, "compute")
        assert (len(cache.memory), cache.memory.oversized) == (0, 1)
        await fetch(cache)
        await written(redis)  # u1's value was offered later: the large one would have been there
    with redis.client() as client:
        assert client.get(f"{KEY_START}big") is None


@given(st.lists(st.tuples(st.integers(0, 20), st.integers(1, 60)), max_size=100))
def test_memory_keeps_within_its_bounds(puts: list[tuple[int, int]]) -> None:
    """Whatever comes, it holds no more entries and no more bytes than it may, and counts them right."""
    memory = Memory(max_entries=5, max_bytes=100, max_entry_bytes=50, keep_seconds=10, clock=lambda: 0.0)
    for number, size in puts:
        memory.put(f"u{number}", Entry({}, born=0.0, size=size, source=COMPUTE, expires=5.0))
        kept = [entry for key in range(21) if (entry := memory.get(f"u{key}")) is not None]
        assert len(kept) == len(memory) <= 5
        assert sum(entry.size for entry in kept) == memory.bytes <= 100


def test_who_was_wanted_longest_ago_makes_room() -> None:
    """Not who came first: a busy entity stays."""
    memory = Memory(max_entries=2, max_bytes=1000, max_entry_bytes=1000, keep_seconds=10, clock=lambda: 0.0)
    for name in ("a", "b"):
        memory.put(name, Entry({}, born=0.0, size=1, source=COMPUTE, expires=5.0))
    memory.get("a")
    memory.put("c", Entry({}, born=0.0, size=1, source=COMPUTE, expires=5.0))
    assert (memory.get("a") is not None, memory.get("b")) == (True, None)
    assert memory.evicted == 1


def test_keys_count_as_bytes() -> None:
    """Long names of entities cannot fill memory unseen."""
    short, long = (estimate_bytes("u" * length, features=1, encoded=20) for length in (1, 201))
    assert long - short >= 200


async def _never() -> Entry:
    raise AssertionError("it is under way already")
