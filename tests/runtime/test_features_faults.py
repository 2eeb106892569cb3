"""Faults of the feature cache's upstreams, injected into real ones: what is answered, and what is spared."""

import asyncio
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import orjson
import pytest

from greenroom_runtime.contract.config import Compute
from greenroom_runtime.contract.report import BreakerState
from greenroom_runtime.features.chain import FeatureCache
from greenroom_runtime.features.compute import CA_CERT as COMPUTE_CA_CERT
from greenroom_runtime.features.entry import Features, FeaturesUnavailableError, Found
from greenroom_runtime.features.lookup import open_lookup
from greenroom_runtime.features.redis_store import CA_CERT, PASSWORD, open_client
from tests.support.fault_proxy import FaultProxy, fault_proxy
from tests.support.features import KEY_START, Clock, anything, feature_cache, until
from tests.support.ports import free_port
from tests.support.redis import RedisServer, redis_server
from tests.support.upstream import FeatureService, feature_service
from tests.support.web import write_certificate

AGE = ("age",)
KNOWN = {"age": 41.0}


@pytest.fixture
def redis() -> Iterator[RedisServer]:
    """Run a Redis that a test may harm."""
    with redis_server() as server:
        yield server


@pytest.fixture
def proxy(redis: RedisServer) -> Iterator[FaultProxy]:
    """Stand between the cache and Redis."""
    with fault_proxy(redis.port) as between:
        yield between


@pytest.fixture
def service() -> Iterator[FeatureService]:
    """Run a feature service that knows everyone."""
    with feature_service(everyone=KNOWN) as running:
        yield running


@pytest.fixture
def url(service: FeatureService) -> str:
    """Return how one entity is asked for."""
    return f"{service.url}/one/{{entity}}"


def impatient(port: int) -> dict[str, Any]:
    """Return a Redis layer as it is by default."""
    return {"url": f"redis://127.0.0.1:{port}"}


async def fetch(cache: FeatureCache, entity: str) -> Found:
    """Return an entity's features."""
    return await cache.fetch(entity, AGE, anything)


async def sources(cache: FeatureCache, number: int, *, start: int = 0) -> set[str]:
    """Ask for so many entities, one after the other; return where they are from."""
    return {(await fetch(cache, f"u{start + one}")).source for one in range(number)}


async def test_a_dead_redis_fails_nobody(redis: RedisServer, url: str) -> None:
    """What it had is computed; it is left alone after a few attempts, and used again when it is back."""
    clock = Clock()
    async with feature_cache(redis=redis.url, compute=url, clock=clock) as cache:
        assert await sources(cache, 3) == {"compute"}
        redis.kill()
        assert await sources(cache, 20, start=10) == {"compute"}
        store = cache.store
        assert store is not None
        assert store.breaker.state is BreakerState.OPEN
        assert store.breaker.error == "Redis cannot be reached"
        calls = store.tally.calls
        await sources(cache, 20, start=40)
        assert store.tally.calls == calls
        redis.start()
        clock.now += 2
        assert await sources(cache, 1, start=70) == {"compute"}
        assert store.breaker.error == ""


@pytest.mark.parametrize("kind", ["redis://{}", "redis+cluster://{}", "redis+sentinel://{}/churn"])
async def test_a_redis_of_any_kind_that_was_never_there_fails_nobody(url: str, kind: str) -> None:
    """It is left alone like one that has died."""
    address = kind.format(f"127.0.0.1:{free_port()}")
    async with feature_cache(redis={"url": address, "timeout_seconds": 2.0}, compute=url) as cache:
        assert await sources(cache, 10) == {"compute"}
        assert cache.store is not None
        assert cache.store.breaker.state is not BreakerState.CLOSED
        assert cache.store.breaker.error.startswith("Redis ")


async def test_a_redis_that_comes_back_empty_is_filled_again(redis: RedisServer, url: str) -> None:
    """Its connections are made anew without a failure that anybody would notice."""
    async with feature_cache(redis=redis.url, compute=url) as cache:
        await fetch(cache, "u1")
        redis.kill()
        redis.start()
        assert (await fetch(cache, "u2")).source == "compute"
        with redis.client() as client:
            await until(lambda: client.exists(f"{KEY_START}u2"))
        assert cache.store is not None
        assert (cache.store.tally.failures, cache.store.breaker.state) == (0, BreakerState.CLOSED)


async def test_a_redis_that_hangs_costs_its_timeout_until_it_is_left_alone(
    proxy: FaultProxy, url: str
) -> None:
    """And nothing from then on."""
    async with feature_cache(redis=impatient(proxy.port), compute=url) as cache:
        proxy.silent = True
        assert await sources(cache, 30) == {"compute"}
        assert cache.store is not None
        assert cache.store.breaker.error == "Redis did not answer within 20 ms"
        assert cache.store.tally.calls < 10


async def test_a_frozen_server_is_a_redis_that_hangs(redis: RedisServer, url: str) -> None:
    """Its kernel takes connections and commands, and nobody answers."""
    async with feature_cache(redis=impatient(redis.port), compute=url) as cache:
        redis.freeze()
        try:
            assert await sources(cache, 30) == {"compute"}
            assert cache.store is not None
            assert cache.store.breaker.state is BreakerState.OPEN
        finally:
            redis.thaw()


async def test_a_slow_redis_is_left_alone_with_its_connections(proxy: FaultProxy, url: str) -> None:
    """Who asks waits for its timeout and goes on; answers that come late keep their connections alive."""
    clock = Clock()
    layer = {**impatient(proxy.port), "timeout_seconds": 0.1}
    async with feature_cache(redis=layer, compute=url, clock=clock) as cache:
        await fetch(cache, "first")
        proxy.delay_seconds = 0.5
        assert await sources(cache, 30) == {"compute"}
        store = cache.store
        assert store is not None
        assert store.breaker.state is BreakerState.OPEN
        connections = proxy.connections
        proxy.delay_seconds = 0.0
        await until(lambda: not store._running)  # type: ignore[attr-defined]
        for number in range(100, 200):  # it answers at once now, but a busy machine may take 100 ms for that
            clock.now += 60
            await sources(cache, 1, start=number)
            if not store.breaker.error:
                break
        assert store.breaker.error == ""
        assert proxy.connections == connections


async def test_connections_that_take_longer_than_a_request_can_wait_are_made(url: str) -> None:
    """A server far away, or a handshake: the first request goes on without, and the next one has it."""
    with redis_server(password="right") as server, fault_proxy(server.port) as proxy:
        proxy.delay_seconds = 0.4
        layer = {**impatient(proxy.port), "timeout_seconds": 0.7}
        async with feature_cache(redis=layer, compute=url, environment={PASSWORD: "right"}) as cache:
            await sources(cache, 1)
            store = cache.store
            assert store is not None
            assert store.tally.failures == 1
            await until(lambda: not store._running)  # type: ignore[attr-defined]
            await store.get_many(["u1"])
            assert proxy.connections <= 2


async def test_resets_are_taken_for_a_dead_redis(proxy: FaultProxy, url: str) -> None:
    """Whenever they come."""
    async with feature_cache(redis=impatient(proxy.port), compute=url) as cache:
        await fetch(cache, "first")
        proxy.reset = True
        assert await sources(cache, 30) == {"compute"}
        assert cache.store is not None
        assert cache.store.breaker.state is BreakerState.OPEN


async def test_a_wrong_password_is_told_as_such(url: str) -> None:
    """With the place where the right one belongs."""
    with redis_server(password="right") as server:
        async with feature_cache(redis=server.url, compute=url, environment={PASSWORD: "wrong"}) as cache:
            assert await sources(cache, 10) == {"compute"}
            state = cache.report().redis_state
        async with feature_cache(redis=server.url, compute=url, environment={PASSWORD: "right"}) as cache:
            assert await sources(cache, 1) == {"compute"}
            assert cache.store is not None
            assert cache.store.tally.failures == 0
    assert state is not None
    assert "Redis refuses the password: see features.redis.secretRef" in state.error


async def test_no_password_is_told_as_such(url: str) -> None:
    """Redis's own word for it is passed on."""
    with redis_server(password="right") as server:
        async with feature_cache(redis=server.url, compute=url) as cache:
            await sources(cache, 10)
            assert cache.store is not None
            assert "refuses" in cache.store.breaker.error


async def test_a_redis_that_is_full_is_read_on(redis: RedisServer, url: str) -> None:
    """What cannot be written back is dropped, and no reason to leave alone what can be read."""
    with redis.client() as client:
        value = {"at": Clock().wall(), "features": KNOWN}
        client.mset({f"{KEY_START}u{number}": orjson.dumps(value) for number in range(30)})
        client.config_set("maxmemory", "1")
        client.config_set("maxmemory-policy", "noeviction")
        async with feature_cache(redis=redis.url, compute=url, clock=Clock()) as cache:
            assert await sources(cache, 30, start=100) == {"compute"}
            store = cache.store
            assert store is not None
            await until(lambda: store.dropped == 30)
            assert store.breaker.state is BreakerState.CLOSED
            assert await sources(cache, 30) == {"redis"}


async def test_a_key_of_another_kind_is_garbage(redis: RedisServer, url: str) -> None:
    """Somebody else's list under our key is no value; it is replaced."""
    with redis.client() as client:
        client.rpush(f"{KEY_START}u1", "a", "b")
        async with feature_cache(redis=redis.url, compute=url) as cache:
            assert (await fetch(cache, "u1")).source == "compute"
            await until(lambda: client.type(f"{KEY_START}u1") == "string")


async def test_a_wrong_type_in_redis_is_no_reason_to_refuse(redis: RedisServer, url: str) -> None:
    """Who computes is asked, and what it says replaces it."""

    def accept(features: Features) -> str:
        return "" if isinstance(features["age"], float) else "'age' is mistyped"

    with redis.client() as client:
        value = orjson.dumps({"at": Clock().wall(), "features": {"age": "old"}})
        client.set(f"{KEY_START}u1", value)
        async with feature_cache(redis=redis.url, compute=url, clock=Clock()) as cache:
            found = await cache.fetch("u1", AGE, accept)
            assert (found.source, found.features) == ("compute", KNOWN)
            await until(lambda: client.get(f"{KEY_START}u1") != value.decode())


async def test_redis_over_tls(tmp_path: Path, url: str) -> None:
    """With a private authority from the Secret; without it nothing is sent."""
    certificate = write_certificate(tmp_path / "redis.pem")
    with redis_server(tls=certificate, password="right") as server:
        trusted = {CA_CERT: _certificates(certificate), PASSWORD: "right"}
        async with feature_cache(redis=server.url, compute=url, environment=trusted) as cache:
            await fetch(cache, "u1")
            assert cache.store is not None
            assert cache.store.tally.failures == 0
        async with feature_cache(redis=server.url, compute=url, environment={PASSWORD: "right"}) as cache:
            assert await sources(cache, 10) == {"compute"}
            assert cache.store is not None
            assert cache.store.breaker.state is BreakerState.OPEN


def _certificates(path: Path) -> str:
    text = path.read_text()
    end = "-----END CERTIFICATE-----\n"
    return text[: text.index(end) + len(end)]


async def test_a_redis_cluster_is_accepted(url: str) -> None:
    """One that has all slots on one node; a batch's keys are spread over slots all the same."""
    with redis_server("--cluster-enabled", "yes", "--cluster-port", str(free_port())) as server:
        with server.client() as client:
            client.execute_command("CLUSTER", "ADDSLOTSRANGE", 0, 16383)
            await until(lambda: "cluster_state:ok" in str(client.execute_command("CLUSTER", "INFO")))
        address = f"redis+cluster://127.0.0.1:{server.port}"
        async with feature_cache(redis=address, compute=url) as cache:
            assert (await fetch(cache, "u1")).source == "compute"
            with server.client() as client:
                await until(lambda: client.exists(f"{KEY_START}u1"))
            found = await cache.fetch_many({"u1": AGE, "u2": AGE}, anything)
            assert [getattr(one, "source", "") for one in found.values()] == ["redis", "compute"]


async def test_sentinels_are_asked_for_the_master(url: str, tmp_path: Path) -> None:
    """Any of them that answers will do."""
    with redis_server() as master:
        settings = tmp_path / "sentinel.conf"
        settings.write_text(f"sentinel monitor churn 127.0.0.1 {master.port} 1\n")
        with redis_server(str(settings), "--sentinel") as sentinel:
            address = f"redis+sentinel://127.0.0.1:{free_port()},127.0.0.1:{sentinel.port}/churn/0"
            layer = {"url": address, "timeout_seconds": 5.0}
            async with feature_cache(redis=layer, compute=url) as cache:
                assert (await fetch(cache, "u1")).source == "compute"
                with master.client() as client:
                    await until(lambda: client.exists(f"{KEY_START}u1"))


@pytest.mark.parametrize(
    "address",
    [
        "http://cache.ml",
        "redis://",
        "redis://a:0",
        "redis://a:99999",
        "redis://a/x",
        "redis://a/0/1",
        "redis://a,b",
        "redis://user:secret@a",
        "redis+sentinel://a",
        "redis+sentinel://a/m/x",
        "redis+cluster://",
        "redis+other://a",
    ],
)
def test_an_address_that_cannot_work_is_refused(address: str) -> None:
    """With the forms that there are, or the place of credentials; and never with a password."""
    with pytest.raises(ValueError, match=r"features\.redis\.url") as refused:
        open_client(address, environment={})
    assert "secret" not in str(refused.value)


async def test_a_retry_after_is_waited_for_within_the_deadline(service: FeatureService, url: str) -> None:
    """The second attempt is made when the service has asked for it."""
    service.status, service.failures, service.headers = 429, 1, {"Retry-After": "1"}
    layer = {"url": url, "timeout_seconds": 30.0}
    async with feature_cache(compute=layer) as cache:
        assert (await fetch(cache, "u1")).source == "compute"
        assert cache.source is not None
        assert (len(service.asked), cache.source.retries) == (2, 1)


@pytest.mark.parametrize("kind", ["seconds", "date"])
async def test_a_retry_after_beyond_the_deadline_is_kept_by_all(
    service: FeatureService, url: str, kind: str
) -> None:
    """Who asked is answered at once from elsewhere, and nobody asks before the time."""
    later = format_datetime(datetime.now(UTC) + timedelta(seconds=20), usegmt=True)
    service.status = 429
    service.headers = {"Retry-After": "20" if kind == "seconds" else later}
    clock = Clock()
    async with feature_cache(compute=url, clock=clock, defaults={"age": 0.0}) as cache:
        assert await sources(cache, 20) == {"default"}
        assert len(service.asked) == 1
        assert cache.source is not None
        assert cache.source.breaker.state is BreakerState.CLOSED
        service.status = 200
        clock.now += 21
        assert await sources(cache, 1, start=50) == {"compute"}


async def test_what_passes_is_tried_again(service: FeatureService, url: str) -> None:
    """A 503, once."""
    service.status, service.failures = 503, 1
    async with feature_cache(compute=url) as cache:
        assert (await fetch(cache, "u1")).source == "compute"
    assert len(service.asked) == 2


async def test_a_service_in_trouble_is_not_hammered(service: FeatureService, url: str) -> None:
    """A thousand misses of a service that fails are a few calls, a tenth of which are repeated."""
    service.status = 500
    async with feature_cache(compute=url, defaults={"age": 0.0}, clock=Clock()) as cache:
        assert await sources(cache, 1000) == {"default"}
        assert cache.source is not None
        assert cache.source.breaker.state is BreakerState.OPEN
    assert len(service.asked) <= 10


async def test_a_list_is_repeated_only_where_nothing_was_done(service: FeatureService) -> None:
    """A POST is not idempotent: after a 500 it may have been carried out."""
    for status, calls in ((500, 1), (503, 2), (429, 2)):
        service.asked.clear()
        service.status, service.failures = status, 1
        async with feature_cache(compute=f"{service.url}/many", defaults={"age": 0.0}) as cache:
            await fetch(cache, "u1")
        assert len(service.asked) == calls, status


@pytest.mark.parametrize("status", [301, 302, 400, 401, 403, 418])
async def test_what_does_not_pass_is_not_tried_again(service: FeatureService, url: str, status: int) -> None:
    """And a redirect leads nowhere."""
    service.status, service.headers = status, {"Location": f"{service.url}/one/elsewhere"}
    async with feature_cache(compute=url) as cache:
        with pytest.raises(FeaturesUnavailableError, match=f"answers {status}"):
            await fetch(cache, "u1")
    assert service.paths == ["/one/u1"]


async def test_a_slow_drip_ends_with_the_deadline(service: FeatureService, url: str) -> None:
    """Bytes that come without end do not keep a request waiting."""
    service.drip_seconds = 0.01
    layer = {"url": url, "timeout_seconds": 0.2}
    async with feature_cache(compute=layer) as cache:
        with pytest.raises(FeaturesUnavailableError, match="did not answer within 200 ms"):
            await fetch(cache, "u1")


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"<html>", "not JSON"),
        (b"[1, 2]", "no object"),
        (b"\xff", "not JSON"),
        (b'{"age": NaN}', "not JSON"),
        (b" " * (256 * 1024 + 1), "more than 262144 bytes"),
    ],
)
async def test_what_is_no_answer_is_told(service: FeatureService, url: str, body: bytes, words: str) -> None:
    """It counts as a failure of the service's, and shows nothing of what it said."""
    service.body = body
    async with feature_cache(compute=url) as cache:
        with pytest.raises(FeaturesUnavailableError, match=words) as refused:
            await fetch(cache, "u1")
        assert refused.value.unfit
        assert cache.source is not None
        assert cache.source.tally.failures == 1


async def test_a_service_that_resets_is_left_alone(service: FeatureService) -> None:
    """A connection that ends in the middle is a failure, and is tried again within the budget."""
    with fault_proxy(service.port) as proxy:
        proxy.reset = True
        address = f"http://127.0.0.1:{proxy.port}/one/{{entity}}"
        async with feature_cache(compute=address, defaults={"age": 0.0}) as cache:
            assert await sources(cache, 30) == {"default"}
            assert cache.source is not None
            assert cache.source.breaker.state is BreakerState.OPEN
        assert proxy.connections <= 10


async def test_nobody_there_is_told_without_the_entity() -> None:
    """An address holds whom it is about: errors must not."""
    layer = f"http://127.0.0.1:{free_port()}/one/{{entity}}"
    async with feature_cache(compute=layer) as cache:
        with pytest.raises(FeaturesUnavailableError, match="cannot be reached: Connect") as refused:
            await fetch(cache, "somebody")
    assert "somebody" not in str(refused.value)


async def test_a_changed_type_opens_the_breaker_in_the_end(service: FeatureService, url: str) -> None:
    """It is an upstream's failure like any other: when it does not end, defaults answer."""
    service.everyone = {"age": "x"}

    def accept(features: Features) -> str:
        return "'age' is mistyped" if isinstance(features["age"], str) else ""

    async with feature_cache(compute=url, clock=Clock()) as cache:
        for number in range(5):
            with pytest.raises(FeaturesUnavailableError, match="has changed: 'age' is mistyped"):
                await cache.fetch(f"u{number}", AGE, accept)
        with pytest.raises(FeaturesUnavailableError, match="left alone: the feature service has changed"):
            await cache.fetch("u9", AGE, accept)
    assert len(service.asked) == 5


async def test_one_changed_value_in_a_list_is_told_of_its_entity_alone(service: FeatureService) -> None:
    """The others have their features."""
    service.features["bad"] = {"age": "x"}

    def accept(features: Features) -> str:
        return "'age' is mistyped" if isinstance(features["age"], str) else ""

    async with feature_cache(compute=f"{service.url}/many") as cache:
        found = await cache.fetch_many({"u1": AGE, "bad": AGE}, accept)
    assert getattr(found["u1"], "source", "") == "compute"
    assert isinstance(found["bad"], FeaturesUnavailableError)
    assert found["bad"].unfit


async def test_a_rate_limit_is_ours_to_keep(service: FeatureService, url: str) -> None:
    """What would have to wait for more than half of the deadline is not asked for."""
    layer = {"url": url, "timeout_seconds": 2.0, "rate_limit": 2.0}
    async with feature_cache(compute=layer, defaults={"age": 0.0}) as cache:
        found = await asyncio.gather(*(fetch(cache, f"u{number}") for number in range(50)))
    assert [one.source for one in found].count("compute") == 3
    assert len(service.asked) == 3


async def test_feast_is_asked_in_its_own_way(service: FeatureService) -> None:
    """By its join key, for a service's features; a value that it has not is missing, a null is null."""
    service.features = {"u1": {"age": 41.0, "city": None}, "u2": {"city": "Oslo"}}
    service.everyone = None
    layer = {
        "url": service.url,
        "timeout_seconds": 5.0,
        "feast": {"service": "churn_v1", "join_key": "customer"},
    }
    async with feature_cache(compute=layer) as cache:
        found = await cache.fetch_many(dict.fromkeys(("u1", "u2", "u3"), ("age", "city")), anything)
    features = [one.features for one in found.values() if isinstance(one, Found)]
    assert features == [{"age": 41.0, "city": None}, {"city": "Oslo"}, {}]
    assert (service.asked, service.paths) == ([["u1", "u2", "u3"]], ["/get-online-features"])


@pytest.mark.parametrize(
    "address", ["ftp://a/{entity}", "http://", "http://{entity}.ml/", "http://me:hush@a/{entity}"]
)
def test_a_service_that_cannot_be_asked_is_refused(address: str) -> None:
    """With what to write instead, and never with a password."""
    with pytest.raises(ValueError, match=r"features\.compute\.url") as refused:
        open_lookup(Compute(url=address))
    assert "hush" not in str(refused.value)


async def test_a_private_authority_of_the_service_is_trusted(tmp_path: Path) -> None:
    """The one in the Secret."""
    certificate = write_certificate(tmp_path / "service.pem")
    with feature_service(everyone=KNOWN, tls=certificate) as service:
        address = f"https://127.0.0.1:{service.port}/one/{{entity}}"
        trusted = {COMPUTE_CA_CERT: _certificates(certificate)}
        async with feature_cache(compute=address, environment=trusted) as cache:
            assert (await fetch(cache, "u1")).source == "compute"
        async with feature_cache(compute=address) as cache:
            with pytest.raises(FeaturesUnavailableError, match="its certificate is not trusted"):
                await fetch(cache, "u1")
