"""Fifty simulated releases of a kind before the gate: the promises of its page, in small."""

import math

import pytest

from benchmarks.gates.cases import CASES, Case, Truth
from benchmarks.gates.judges import Thresholds, Verdict, ZTest
from benchmarks.gates.releases import OURS, Played, Release, play
from benchmarks.gates.table import HEAD, row, share_of
from benchmarks.gates.world import SCRAPES, World
from greenroom_operator.controller.gate import Outcome

RELEASES = 50


def case(name: str) -> Case:
    """Return the kind of release with this name."""
    return next(each for each in CASES if each.name == name)


def played(name: str) -> list[Release]:
    """Play releases of this kind, always the same ones."""
    return [play(case(name), [7, number]) for number in range(RELEASES)]


@pytest.mark.parametrize(
    "name",
    ["equal, no errors at all", "equal, a noisy neighbour on one pod", "equal, answers of all lengths"],
)
def test_equal_versions_are_not_failed(name: str) -> None:
    """No release within the bounds is failed, and nearly all pass every step."""
    releases = played(name)
    assert share_of(releases, OURS, Outcome.FAIL) == 0
    assert share_of(releases, OURS, Outcome.PASS) >= 0.9


def test_users_with_most_of_the_errors_do_not_fail_a_release() -> None:
    """The gate is not deceived by errors that drift and cluster, while a z-test peeked at fails many."""
    releases = played("equal, errors drift to 3 % and back")
    assert share_of(releases, OURS, Outcome.FAIL) == 0
    assert share_of(releases, "z-test", Outcome.FAIL) > 0.2


@pytest.mark.parametrize("name", ["10 times the errors, 0.1 to 1 %", "2 times as slow"])
def test_harmful_versions_are_failed_in_the_first_step(name: str) -> None:
    """All are failed while one user of a hundred has them."""
    releases = played(name)
    assert share_of(releases, OURS, Outcome.FAIL) == 1
    assert all(release.played[OURS].passed_steps == 0 for release in releases)
    assert all(release.verdict is not None for release in releases)


def test_the_world_fills_both_arms_alike() -> None:
    """As many buckets of either version's users are seen in each step, however few users have the one."""
    world = World(case("equal, 1 % errors"), [7])
    for number in range(3):
        evidence = world.step(number).evidence(len(SCRAPES) - 1)
        counts = evidence.rollout.seen.count, evidence.production.seen.count
        assert min(counts) > 1000
        assert abs(counts[0] - counts[1]) < 6 * math.sqrt(max(counts))


def test_other_judges_hold_to_their_rules() -> None:
    """A z-test and thresholds pass a healthy step when its ten minutes are over, and not before."""
    healthy = case("equal, no errors at all")
    step = World(healthy, [7]).step(0)
    for judge in (ZTest(), Thresholds(healthy)):
        judge.begin(step)
        outcomes = [judge.look(scrape) for scrape in range(len(SCRAPES))]
        first = next(scrape for scrape, outcome in enumerate(outcomes) if outcome is not Outcome.INCONCLUSIVE)
        assert (outcomes[first], SCRAPES[first]) == (Outcome.PASS, 600)


def test_a_row_tells_shares_and_medians() -> None:
    """Shares are of all releases; a median is told only where most have come to a verdict."""
    verdict = Verdict(seconds=90, users=1200, requests=3000)
    passed, failed = (
        Played(outcome=Outcome.PASS, passed_steps=3),
        Played(outcome=Outcome.FAIL, passed_steps=1),
    )
    stuck = Played(outcome=Outcome.INCONCLUSIVE, passed_steps=0)
    releases = [
        Release(played={OURS: ours, "z-test": failed, "thresholds": passed}, verdict=told)
        for ours, told in ((passed, verdict), (failed, verdict), (stuck, None))
    ]
    kind = CASES[0]
    assert kind.truth is Truth.WITHIN
    shares = "33.3% | 66.7% | 33.3% | 33.3%"
    assert row(kind, releases) == (
        f"| {kind.name} | within the bounds | {shares} | 1,200 | 3,000 | 1.5 | 100.0% | 0.0% |\n"
    )
    assert " |  |  |  | " in row(kind, releases[2:])
    assert HEAD.splitlines()[0].count("|") == row(kind, releases).count("|")
