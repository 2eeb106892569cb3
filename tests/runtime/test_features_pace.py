"""How upstreams are spared: the breaker, backoff, the retry budget, the rate limit, and what they ask for."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from greenroom_runtime.contract.report import BreakerState
from greenroom_runtime.features.breaker import Breaker
from greenroom_runtime.features.pace import Hold, RateLimit, RetryBudget, backoff_seconds
from tests.support.features import Clock


def breaker(clock: Clock) -> Breaker:
    """Return a closed one; of its jitter the longest."""
    return Breaker(name="redis", clock=clock, chance=lambda: 1.0)


def opened(clock: Clock) -> Breaker:
    """Return one that has just opened."""
    one = breaker(clock)
    for _ in range(5):
        one.failed("it is away")
    assert one.state is BreakerState.OPEN
    return one


def test_a_few_failures_open_nothing() -> None:
    """Of twenty calls ten must fail: an upstream that fails now and then is asked on."""
    one = breaker(Clock())
    for _ in range(20):
        one.succeeded()
    for _ in range(9):
        one.failed("slow")
    assert one.admits()
    one.failed("slow")
    assert not one.admits()
    assert (one.error, one.opened) == ("slow", 1)


def test_an_upstream_that_never_answered_is_left_alone_soon() -> None:
    """Five failures at the start are enough."""
    one = opened(Clock())
    assert not one.admits()


def test_one_call_finds_out_whether_it_is_back() -> None:
    """When the pause is over one caller is let through, the others wait for what it finds."""
    clock = Clock()
    one = opened(clock)
    clock.now += 1.0
    assert [one.admits() for _ in range(10)] == [True] + [False] * 9
    assert one.state is BreakerState.HALF_OPEN
    one.succeeded()
    assert (one.state, one.error) == (BreakerState.CLOSED, "")
    assert all(one.admits() for _ in range(10))


def test_pauses_grow_while_it_stays_away() -> None:
    """Up to half a minute; and a success forgets it all."""
    clock, pauses = Clock(), []
    one = opened(clock)
    for _ in range(7):
        begun = clock.now
        while not one.admits():
            clock.now += 0.5
        pauses.append(clock.now - begun)
        one.failed("still away")
    assert pauses == [1, 2, 4, 8, 16, 30, 30]
    clock.now += 30
    assert one.admits()
    one.succeeded()
    for _ in range(5):
        one.failed("again")
    clock.now += 1
    assert one.admits()


def test_a_probe_that_never_ends_does_not_block_for_ever() -> None:
    """Its caller may have been cancelled."""
    clock = Clock()
    one = opened(clock)
    clock.now += 1
    assert one.admits()
    assert not one.admits()
    clock.now += 1
    assert one.admits()


def test_what_comes_late_does_not_matter() -> None:
    """Calls from before it opened end afterwards."""
    clock = Clock()
    one = opened(clock)
    one.succeeded()
    one.failed("late")
    assert (one.state, one.error, one.opened) == (BreakerState.OPEN, "it is away", 1)


@given(st.integers(0, 10_000), st.floats(0, 1))
def test_backoff_is_bounded_and_jittered_in_full(attempt: int, chance: float) -> None:
    """From nothing to a bound that doubles with each attempt, and never more than a second."""
    wait = backoff_seconds(attempt, chance=chance)
    assert 0 <= wait <= min(1.0, 0.01 * 2.0 ** min(attempt, 100))
    assert backoff_seconds(attempt, chance=1.0) * chance == pytest.approx(wait)


@given(st.lists(st.booleans(), max_size=2000))
def test_retries_are_a_tenth_of_the_calls(wishes: list[bool]) -> None:
    """Besides the three that a new process has, whoever wishes for how many."""
    budget, spent = RetryBudget(), 0
    for wishes_retry in wishes:
        budget.earn()
        spent += wishes_retry and budget.spend()
    assert spent <= 3 + 0.1 * len(wishes) + 1e-6


@given(st.floats(0.5, 5000), st.lists(st.floats(0, 0.5), max_size=200))
def test_a_rate_is_kept(per_second: float, pauses: list[float]) -> None:
    """However calls come, no second has more of them than the rate and a tenth of a second's burst."""
    clock = Clock()
    limit, made = RateLimit(per_second=per_second, clock=clock), []
    for pause in pauses:
        clock.now += pause
        wait = limit.reserve(longest_wait=0.2)
        if wait is not None:
            assert 0 <= wait <= 0.2
            made.append(clock.now + wait)
    for first in made:
        assert sum(first <= at < first + 1 for at in made) <= per_second * 1.1 + 2


def test_who_would_wait_too_long_takes_no_place() -> None:
    """So a burst that is refused does not delay who comes later."""
    clock = Clock()
    limit = RateLimit(per_second=10, clock=clock)
    waits = [limit.reserve(longest_wait=0.25) for _ in range(20)]
    assert waits[:3] == [pytest.approx(0), pytest.approx(0.1), pytest.approx(0.2)]
    assert waits[3:] == [None] * 17
    clock.now += 0.31
    assert limit.reserve(longest_wait=0) == pytest.approx(0)


def test_an_upstream_is_held_back_from_as_it_asks() -> None:
    """For its Retry-After; at most half a minute, since a day may be a mistake."""
    clock = Clock()
    hold = Hold(clock=clock, chance=lambda: 1.0)
    hold.begin(2.0)
    clock.now += 1.5
    assert hold.seconds == 0.5
    clock.now += 0.5
    assert hold.seconds == 0
    hold.begin(86_400.0)
    assert hold.seconds == 30


def test_without_a_retry_after_the_hold_grows() -> None:
    """From a tenth of a second, doubled with each refusal, until it answers again."""
    clock = Clock()
    hold = Hold(clock=clock, chance=lambda: 1.0)
    holds = []
    for _ in range(4):
        hold.begin(0.0)
        holds.append(round(hold.until - clock.now, 6))
        clock.now = hold.until
    assert holds == [0.1, 0.2, 0.4, 0.8]
    hold.end()
    hold.begin(0.0)
    assert hold.until - clock.now == pytest.approx(0.1)
