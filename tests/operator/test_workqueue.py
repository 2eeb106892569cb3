"""The queue keeps the promises that every Kubernetes controller is built on."""

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from greenroom_operator.controller.workqueue import WorkQueue
from tests.support.virtual_time import run


def queue(*, random: float = 0.0) -> WorkQueue[str]:
    """Return a queue without jitter, or with as much as asked for."""
    return WorkQueue(random=lambda: random)


def now() -> float:
    """Return the virtual time."""
    return asyncio.get_running_loop().time()


def test_a_key_is_queued_once_however_often_it_is_added() -> None:
    """Ten events of one object make one pass."""

    async def scenario() -> None:
        keys = queue()
        for _ in range(10):
            keys.add("a")
        assert keys.depth == 1
        assert await keys.get() == "a"
        assert keys.depth == 0

    run(scenario())


def test_keys_come_in_the_order_in_which_they_were_added() -> None:
    """No key starves behind a busy one."""

    async def scenario() -> list[str]:
        keys = queue()
        for key in "cab":
            keys.add(key)
        return [await keys.get() for _ in range(3)]

    assert run(scenario()) == ["c", "a", "b"]


def test_a_key_added_while_it_is_worked_on_runs_again_and_only_afterwards() -> None:
    """News that arrives during a pass is neither lost nor handled by a second worker at the same time."""

    async def scenario() -> None:
        keys = queue()
        keys.add("a")
        await keys.get()
        keys.add("a")
        keys.add("a")
        second = asyncio.create_task(keys.get())
        await asyncio.sleep(10)
        assert not second.done()
        keys.done("a")
        assert await second == "a"
        keys.done("a")
        assert keys.depth == 0

    run(scenario())


@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 3)), max_size=40), st.integers(1, 4))
def test_no_key_is_ever_with_two_workers_and_none_is_lost(
    additions: list[tuple[str, int]], workers: int
) -> None:
    """Whatever is added and when, each addition is followed by a pass that begins after it."""

    async def scenario() -> None:
        keys = queue()
        active: set[str] = set()
        begun: dict[str, float] = {}
        added: dict[str, float] = {}

        async def work() -> None:
            while True:
                key = await keys.get()
                assert key not in active
                active.add(key)
                begun[key] = now()
                await asyncio.sleep(1.5)
                active.discard(key)
                keys.done(key)

        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(work()) for _ in range(workers)]
            for key, pause in additions:
                await asyncio.sleep(pause)
                keys.add(key)
                added[key] = now()
            await asyncio.sleep(1000)
            for task in tasks:
                task.cancel()
        assert all(begun[key] >= at for key, at in added.items())
        assert keys.depth == 0

    run(scenario())


def test_a_key_put_off_comes_after_that_time() -> None:
    """A pass that asks to be run again in half a minute is."""

    async def scenario() -> None:
        keys = queue()
        begun = now()
        keys.add_after("a", 30)
        assert await keys.get() == "a"
        assert now() - begun == pytest.approx(30)

    run(scenario())


@pytest.mark.parametrize("delays", [(30, 5), (5, 30)])
def test_of_two_times_the_earlier_counts_and_only_once(delays: tuple[float, float]) -> None:
    """Asking for later does not put off what was asked for sooner, nor is it a second pass."""

    async def scenario() -> None:
        keys = queue()
        begun = now()
        for delay in delays:
            keys.add_after("a", delay)
        await keys.get()
        assert now() - begun == pytest.approx(5)
        keys.done("a")
        await asyncio.sleep(60)
        assert keys.depth == 0

    run(scenario())


def test_failures_back_off_doubling_up_to_a_cap_until_a_success() -> None:
    """A key that fails for ever costs a pass each two minutes, and one that recovers starts anew."""

    async def scenario() -> None:
        keys = queue()
        delays = [keys.retry("a") for _ in range(2000)]
        assert delays[:4] == [0.25, 0.5, 1, 2]
        assert delays[-1] == 120
        keys.succeeded("a")
        assert keys.retry("a") == 0.25
        assert keys.retry("b") == 0.25

    run(scenario())


def test_jitter_shortens_a_backoff_by_up_to_half() -> None:
    """Keys that failed together do not come back together."""

    async def scenario() -> None:
        assert queue(random=0.5).retry("a") == pytest.approx(0.25 * 0.75)
        assert queue(random=0.999999).retry("a") == pytest.approx(0.125, rel=1e-4)

    run(scenario())


def test_an_event_does_not_wait_for_a_backoff() -> None:
    """The user's correction is looked at at once."""

    async def scenario() -> None:
        keys = queue()
        for _ in range(12):
            keys.retry("a")
        begun = now()
        keys.add("a")
        await keys.get()
        assert now() == begun

    run(scenario())


def test_the_oldest_age_is_that_of_the_key_that_has_waited_longest() -> None:
    """A queue that nobody works off is seen in the metrics."""

    async def scenario() -> None:
        keys = queue()
        assert keys.oldest_age == 0
        keys.add("a")
        await asyncio.sleep(3)
        keys.add("b")
        await asyncio.sleep(4)
        assert keys.oldest_age == pytest.approx(7)
        await keys.get()
        assert keys.oldest_age == pytest.approx(4)

    run(scenario())
