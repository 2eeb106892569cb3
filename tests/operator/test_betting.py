"""Bets against a hypothesis: nobody wins by them in the mean where it is true, whatever the counts."""

from collections.abc import Callable, Sequence
from math import comb, exp, inf, isfinite, isnan, log

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from greenroom_operator.controller.betting import (
    Money,
    RateTest,
    TableTest,
    Test,
    Window,
    is_new_round,
    log_proof_below,
    log_rate_above,
    log_rate_below,
    log_sum,
)

FACTORS = (0.05, 0.5, 0.9, 1.15, 2.0, 25.0)
TABLE = TableTest(alternatives=FACTORS, weights=(1 / len(FACTORS),) * len(FACTORS))


def rate_test(null: float) -> RateTest:
    """Return a test with alternatives on both sides: each of them is a bet of its own."""
    return RateTest(null=null, alternatives=tuple(null * factor for factor in FACTORS), weights=TABLE.weights)


def draws(rollout: int, production: int, events: int, *, theta: float) -> list[float]:
    """Return how likely each number of the rollout's cells is, when cells are drawn one after another."""
    likely = [1.0] + [0.0] * events
    for drawn in range(events):
        after = [0.0] * (events + 1)
        for hits, probability in enumerate(likely[: drawn + 1]):
            left, other = max(rollout - hits, 0), max(production - (drawn - hits), 0)
            share = theta * left / (theta * left + other)
            after[hits + 1] += probability * share
            after[hits] += probability * (1 - share)
        likely = after
    return likely


def splits(rollout: int, production: int, events: int) -> list[Window]:
    """Return all windows with so many events."""
    return [
        Window(rollout=rollout, production=production, rollout_events=hits, production_events=events - hits)
        for hits in range(max(0, events - production), min(rollout, events) + 1)
    ]


def won(test: Test, window: Window) -> list[float]:
    """Return what becomes of 1 on each alternative."""
    before = Money(stakes=(0.0,) * len(test.weights))
    return [exp(stake) for stake in test.bet(before, window).stakes]


def tables(fewest: int, most: int) -> st.SearchStrategy[tuple[int, int, int]]:
    """Draw so many cells for either arm, and how many of all are hit."""
    arm = st.integers(fewest, most)
    return st.tuples(arm, arm).flatmap(
        lambda arms: st.tuples(st.just(arms[0]), st.just(arms[1]), st.integers(1, sum(arms)))
    )


@settings(max_examples=50)
@given(table=tables(40, 80), null=st.sampled_from([0.5, 1.0, 1.2, 1.5, 3.0]))
def test_no_bet_on_rates_wins_in_the_mean(table: tuple[int, int, int], null: float) -> None:
    """However many events a window has, no alternative is worth more than 1 where the null is true."""
    rollout, production, events = table
    likely = draws(rollout, production, events, theta=null)
    means = [0.0] * len(FACTORS)
    for window in splits(rollout, production, events):
        for place, value in enumerate(won(rate_test(null), window)):
            means[place] += likely[window.rollout_events] * value
    assert max(means) <= 1 + 1e-3
    if events == 1:
        assert means == pytest.approx([1.0] * len(FACTORS))


@given(table=tables(1, 30))
def test_a_bet_on_a_table_is_fair(table: tuple[int, int, int]) -> None:
    """Each alternative is worth exactly 1 where hits are as likely in both arms."""
    rollout, production, events = table
    means = [0.0] * len(FACTORS)
    for window in splits(rollout, production, events):
        ways = comb(rollout, window.rollout_events) * comb(production, window.production_events)
        for place, value in enumerate(won(TABLE, window)):
            means[place] += ways / comb(rollout + production, events) * value
    assert means == pytest.approx([1.0] * len(FACTORS))


def windows(cells: int) -> st.SearchStrategy[Window]:
    """Draw windows with up to so many cells an arm, all of them hit perhaps."""
    arm = st.integers(0, cells).flatmap(
        lambda count: st.tuples(st.just(count), st.integers(0, count) | st.sampled_from([0, count]))
    )
    return st.builds(
        lambda rollout, production: Window(
            rollout=rollout[0],
            production=production[0],
            rollout_events=rollout[1],
            production_events=production[1],
        ),
        arm,
        arm,
    )


@given(
    played=st.lists(windows(4096), max_size=4),
    null=st.sampled_from([1e-6, 0.1, 1.0, 1.5, 100.0, 1e6]),
)
def test_money_is_a_number_whatever_happens(played: list[Window], null: float) -> None:
    """No counts and no bound lead to a NaN, an overflow or an exception."""
    for test in (rate_test(null), TABLE):
        money = test.begin()
        for window in played:
            money = test.top_up(test.bet(money, window))
        assert all(map(isfinite, money.stakes))
        assert isfinite(money.log_total)


@pytest.mark.parametrize("test", [rate_test(1.5), TABLE], ids=["rate", "table"])
@pytest.mark.parametrize(
    "window",
    [
        Window(rollout=10, production=10, rollout_events=0, production_events=0),
        Window(rollout=0, production=10, rollout_events=0, production_events=7),
        Window(rollout=10, production=0, rollout_events=7, production_events=0),
        Window(rollout=10, production=9, rollout_events=10, production_events=9),
    ],
    ids=["no events", "no rollout", "no production", "all hit"],
)
def test_what_tells_nothing_wins_nothing(test: Test, window: Window) -> None:
    """Where the arms cannot be compared, or all cells of both were hit, the money stays as it is."""
    assert test.bet(test.begin(), window).stakes == pytest.approx(test.begin().stakes)


def test_more_cells_hit_more_money() -> None:
    """Harm is worth more to those who betted on harm, and less to the others."""
    for test in (rate_test(1.5), TABLE):
        fortunes = [won(test, window) for window in splits(400, 300, 40)]
        for place, factor in enumerate(FACTORS):
            column = [fortune[place] for fortune in fortunes]
            assert column == sorted(column, reverse=factor < 1)


@given(rounds=st.integers(1, 30), windows_=st.lists(windows(50), max_size=5))
def test_topping_up_neither_makes_nor_loses_money(rounds: int, windows_: list[Window]) -> None:
    """A round moves cash to the stakes; the total is the same, and some cash is left for later rounds."""
    money = TABLE.begin()
    for window in windows_:
        money = TABLE.bet(money, window)
    before = money.log_total
    for _ in range(rounds):
        money = TABLE.top_up(money)
    assert money.log_total == pytest.approx(before)
    assert money.rounds == rounds + 1
    cash = exp(money.log_total) - exp(log_sum(money.stakes))
    assert cash == pytest.approx(1 / (rounds + 2), abs=1e-9 * exp(money.log_total))


def test_who_stakes_all_has_no_cash() -> None:
    """Everything is on the alternatives, and the whole begins with 1."""
    money = TABLE.stake_all()
    assert money.rounds == 0
    assert money.log_total == pytest.approx(0)
    assert log_sum(money.stakes) == pytest.approx(0)
    assert TABLE.begin().log_total == pytest.approx(0)


def test_rounds_begin_as_the_events_double() -> None:
    """At 64, 128, 256 and so on, however many events a window has."""
    assert [number for number in range(1000) if is_new_round(before=number - 1, after=number)] == [
        64,
        128,
        256,
        512,
    ]
    assert is_new_round(before=0, after=4000)
    assert not is_new_round(before=64, after=127)


@pytest.mark.parametrize(("bound", "trials"), [(0.01, 331), (0.05, 65), (0.125, 25)])
def test_no_hit_in_many_trials_is_a_proof(bound: float, trials: int) -> None:
    """Against 1 % it takes 331 trials without a hit, and not one less."""
    assert log_proof_below(bound, trials=trials, hits=0) >= log(20)
    assert log_proof_below(bound, trials=trials - 1, hits=0) < log(20)


def test_no_proof_is_worth_more_than_one_in_the_mean() -> None:
    """Where each of 300 trials is a hit with just that probability, the money's mean is 1."""
    bound, trials = 0.02, 300
    mean = sum(
        comb(trials, hits)
        * bound**hits
        * (1 - bound) ** (trials - hits)
        * exp(log_proof_below(bound, trials=trials, hits=hits))
        for hits in range(trials + 1)
    )
    assert mean == pytest.approx(1)


@given(
    bound=st.floats(-1, 2) | st.sampled_from([0.0, 1.0, 1e-300]),
    trials=st.integers(0, 4096),
    hits=st.integers(0, 4096),
)
def test_any_bound_may_be_asked_for(bound: float, trials: int, hits: int) -> None:
    """A bound of nothing is never proven; whatever it is, the answer is a number."""
    proof = log_proof_below(bound, trials=trials, hits=min(hits, trials))
    assert not isnan(proof)
    assert proof < inf
    assert bound > 0 or proof == -inf


def test_sums_of_logarithms_do_not_overflow() -> None:
    """Numbers that no float holds are added up by their logarithms."""
    assert log_sum([5000.0, 5000.0]) == pytest.approx(5000 + log(2))
    assert log_sum([-inf, -inf]) == -inf


RateProof = Callable[[float, int, int], float]


def below(bound: float, trials: int, hits: int) -> float:
    """Return the money against "at least the bound"."""
    return log_rate_below(bound, trials=trials, hits=hits)


def above(bound: float, trials: int, hits: int) -> float:
    """Return the money against "at most the bound"."""
    return log_rate_above(bound, trials=trials, hits=hits)


@given(
    trials=st.integers(0, 60),
    bound=st.sampled_from([0.001, 0.02, 0.1, 0.5, 0.9]),
    farther=st.floats(0, 1),
)
def test_a_single_rate_is_no_game_to_win(trials: int, bound: float, farther: float) -> None:
    """After any number of trials the mean of the money is at most 1, wherever the hypothesis is true."""
    for proof, rate in ((below, bound + farther * (1 - bound)), (above, bound * farther)):
        mean = sum(
            comb(trials, hits) * rate**hits * (1 - rate) ** (trials - hits) * exp(proof(bound, trials, hits))
            for hits in range(trials + 1)
        )
        assert mean <= 1 + 1e-9


def ever(proof: RateProof, bound: float, rates: Sequence[float], *, alpha: float) -> float:
    """Return the exact probability that the money is ever 1 / alpha while the hypothesis is true."""
    holds, crossed, total = {0: 1.0}, 0.0, 0.0
    for trials, rate in enumerate(rates, 1):
        total += rate
        after: dict[int, float] = {}
        for hits, probability in holds.items():
            after[hits] = after.get(hits, 0.0) + probability * (1 - rate)
            after[hits + 1] = after.get(hits + 1, 0.0) + probability * rate
        true = total >= bound * trials - 1e-9 if proof is below else total <= bound * trials + 1e-9
        won = {hits for hits in after if true and proof(bound, trials, hits) >= -log(alpha)}
        crossed += sum(after.pop(hits) for hits in won)
        holds = {hits: probability for hits, probability in after.items() if probability > 1e-15}
    return crossed


@pytest.mark.parametrize("proof", [below, above])
@pytest.mark.parametrize(("bound", "trials"), [(0.5, 300), (0.02, 1000), (0.001, 5000)])
def test_looking_after_each_trial_is_safe(proof: RateProof, bound: float, trials: int) -> None:
    """Where the rate is at the bound, the money is ever 20 in fewer than 1 of 20 cases."""
    assert 0 < ever(proof, bound, [bound] * trials, alpha=0.05) <= 0.05


@pytest.mark.parametrize(
    "rates",
    [
        pytest.param([0.1] * 100 + [0.0] * 400 + [0.02] * 500, id="much first"),
        pytest.param([0.04, 0.0] * 500, id="by turns"),
        pytest.param([1.0] + [0.0] * 49 + ([0.5] + [0.0] * 24) * 38, id="rare and certain"),
    ],
)
def test_a_rate_may_drift(rates: list[float]) -> None:
    """Whatever single trials are like: what is proven is true of their average so far, in 19 of 20 cases."""
    assert ever(below, 0.02, rates, alpha=0.05) <= 0.05
    assert ever(above, 0.02, rates[::-1], alpha=0.05) <= 0.05


@given(trials=st.integers(1, 20_000), bound=st.floats(1e-6, 0.999_999), share=st.floats(0, 1))
def test_only_one_side_of_a_bound_is_ever_proven(trials: int, bound: float, share: float) -> None:
    """Where more are hits than the bound nothing proves that fewer are, and the other way round."""
    hits = round(trials * share)
    won, lost = below(bound, trials, hits), above(bound, trials, hits)
    assert isfinite(won)
    assert isfinite(lost)
    assert (won if hits >= bound * trials else lost) <= 1e-6


@given(trials=st.integers(1, 5000), bound=st.sampled_from([0.001, 0.02, 0.5]), data=st.data())
def test_more_hits_prove_less_to_be_below(trials: int, bound: float, data: st.DataObject) -> None:
    """Among as many trials another hit takes money from the one side and gives it to the other."""
    hits = data.draw(st.integers(0, trials - 1))
    if hits + 1 <= bound * trials:
        assert below(bound, trials, hits) > below(bound, trials, hits + 1)
    if hits >= bound * trials:
        assert above(bound, trials, hits) < above(bound, trials, hits + 1)


@pytest.mark.parametrize("hits", [0, 1, 5])
def test_bounds_that_are_none(hits: int) -> None:
    """That nothing is ever a hit is refuted by one and never proven; that all may be is proven at once."""
    assert below(0.0, 5, hits) == below(-1.0, 5, hits) == -inf
    assert above(0.0, 5, hits) == (inf if hits else -inf)
    assert below(1.0, 5, hits) == below(1.5, 0, 0) == inf
    assert above(1.0, 5, hits) == -inf
    assert [below(0.5, 0, 0), above(0.5, 0, 0)] == pytest.approx([0.0, 0.0])
