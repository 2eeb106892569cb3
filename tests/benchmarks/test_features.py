"""What the feature cache's benchmark makes of its measurements: the parts of it that do no I/O."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.features.hit import HitCost
from benchmarks.features.report import DEAD, OURS, SLOW, WELL, Cell, goals_table, percentile, table
from benchmarks.features.worker import Popularity


def cell(scenario: str, p99_ms: float, *, contender: str = OURS, number: int = 0, failed: int = 0) -> Cell:
    """Return one measurement."""
    return Cell(
        contender=contender,
        scenario=scenario,
        round=number,
        requests=100,
        failures={"TimeoutError": failed} if failed else {},
        p50_ms=1.0,
        p99_ms=p99_ms,
        upstream_calls_per_second=3.0,
    )


@given(st.lists(st.floats(0, 1e6), min_size=1), st.floats(0.01, 1))
def test_a_percentile_is_one_of_the_values(values: list[float], share: float) -> None:
    """At least the share does not exceed it, and it is the smallest such value."""
    found = percentile(values, share)
    assert found in values
    assert sum(value <= found for value in values) >= share * len(values) - 1e-9
    assert sum(value < found for value in values) < share * len(values) + 1e-9


def test_of_nothing_there_is_no_percentile() -> None:
    """Zero, and no crash at the end of a long run."""
    assert percentile([], 0.99) == 0


def test_ratios_are_taken_within_a_round() -> None:
    """What else runs on the machine moves both; of the rounds' ratios the median counts."""
    cells = [
        cell(scenario, p99, number=number)
        for number, scale in enumerate((1.0, 10.0, 2.0))
        for scenario, p99 in ((WELL, 50 * scale), (SLOW, 70 * scale), (DEAD, 65 * scale))
    ]
    told = goals_table(cells, [HitCost(name="a hit", median_us=6.0, least_us=3.0)])
    assert "of the healthy p99 | at most 1.5 | 1.40 | met |" in told
    assert "of the healthy p99 | at most 1.2 | 1.30 | **not met** |" in told
    assert "CPU time of a hit | at most 5 µs | 6.0 (3.0 at least) | **not met** |" in told


@pytest.mark.parametrize(("failed", "verdict"), [(0, "0.00 | met"), (2, "2.00 | **not met**")])
def test_one_failure_is_one_too_many(failed: int, verdict: str) -> None:
    """However many requests there were."""
    cells = [cell(WELL, 50), cell(SLOW, 50), cell(DEAD, 50, failed=failed)]
    assert f"failures with Redis dead | at most 0 | {verdict} |" in goals_table(cells, [])


def test_the_table_sums_failures_and_spreads_times() -> None:
    """Who failed says of what kind, and of how many requests."""
    cells = [cell(DEAD, 10, contender="other", failed=1), cell(DEAD, 30, contender="other", number=1)]
    assert (
        "| Redis dead | other | 1.00 (1.00-1.00) | 20.0 (10.0-30.0) | 1 (TimeoutError) | 200 | 3 (3-3) |"
        in table(cells)
    )


def test_few_entities_are_wanted_often() -> None:
    """As Zipf's law says, and the same for each contender."""
    first, second = ([Popularity(7).draw() for _ in range(1)] for _ in range(2))
    assert first == second
    popularity = Popularity(1)
    drawn = [popularity.draw() for _ in range(5000)]
    assert drawn.count("u0") > drawn.count("u9") > 0
    assert len(set(drawn)) > 500
