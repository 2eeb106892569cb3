"""Fifty simulated releases of a kind before the gates: the promises of their pages, in small."""

import math

import pytest

from benchmarks.gates.__main__ import main
from benchmarks.gates.cases import CASES, Case, Truth
from benchmarks.gates.judges import Thresholds, Verdict, ZTest
from benchmarks.gates.releases import OURS, Played, Release, play
from benchmarks.gates.shadow.cases import CASES as SHADOWS
from benchmarks.gates.shadow.cases import ShadowCase
from benchmarks.gates.shadow.exact import wrong_fails, wrong_passes
from benchmarks.gates.shadow.judges import OURS as OUR_SHADOWS
from benchmarks.gates.shadow.judges import POLICY, Decision, gate
from benchmarks.gates.shadow.table import HEAD as SHADOW_HEAD
from benchmarks.gates.shadow.table import Watched, watch
from benchmarks.gates.shadow.table import row as shadow_row
from benchmarks.gates.shadow.table import share_of as share_of_shadows
from benchmarks.gates.shadow.world import ShadowWorld
from benchmarks.gates.table import HEAD, row, share_of
from benchmarks.gates.world import SCRAPES, World
from greenroom_operator.controller.gate import ALPHA, BETA, Outcome
from greenroom_operator.controller.shadow_gate import ShadowEvidence, gather, judge

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
    for other in (ZTest(), Thresholds(healthy)):
        other.begin(step)
        outcomes = [other.look(scrape) for scrape in range(len(SCRAPES))]
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


# Shadows.


def shadow(name: str) -> ShadowCase:
    """Return the kind of shadow with this name."""
    return next(each for each in SHADOWS if each.name == name)


def watched(name: str) -> list[Watched]:
    """Watch shadows of this kind, always the same ones."""
    return [watch(shadow(name), [7, number]) for number in range(RELEASES)]


@pytest.mark.parametrize(
    "name",
    ["1 % disagree, three pods with the same users", "4 % disagree", "1 % errors", "2 times as long"],
)
def test_the_table_of_counts_is_the_real_gate(name: str) -> None:
    """What the simulation reads off counts is what the operator makes of the pods' reports, look by look."""
    world = ShadowWorld(shadow(name), [7])
    requests = world.count_requests()
    decision = gate(world.count_buckets(), requests)
    assert decision.look is not None
    evidence: ShadowEvidence | None = None
    for look in range(decision.look + 1):
        evidence = gather(
            evidence,
            epoch="v4@1",
            trials=[pod.report(look) for pod in world.pods],
            crashes=0,
            requests=int(requests.answered[look]),
        )
        outcome = judge(evidence, POLICY).outcome
        assert outcome is (decision.outcome if look == decision.look else Outcome.INCONCLUSIVE)


@pytest.mark.parametrize(
    ("name", "outcome"),
    [
        ("0.5 % disagree", Outcome.PASS),
        ("1 % of users always disagree, few send most", Outcome.PASS),
        ("1 % disagree, three pods with the same users", Outcome.PASS),
        ("3 % disagree", Outcome.FAIL),
        ("4 % of users always disagree, few send most", Outcome.FAIL),
        ("1 % errors", Outcome.FAIL),
        ("2 times as long", Outcome.FAIL),
    ],
)
def test_shadows_come_to_the_right_verdict(name: str, outcome: Outcome) -> None:
    """Shadows that are clearly within the bounds pass, those beyond fail, few busy users or not."""
    assert shadows_with(name, OUR_SHADOWS, outcome) == 1


def shadows_with(name: str, who: str, outcome: Outcome) -> float:
    """Return the share of the shadows of this kind of which a judge made this."""
    return share_of_shadows(watched(name), who, outcome)


def test_at_the_bound_a_shadow_hardly_ever_passes() -> None:
    """Where the gate is hardly ever wrong, a z-test peeked at passes many."""
    assert shadows_with("2 % disagree", OUR_SHADOWS, Outcome.PASS) <= 0.05
    assert shadows_with("2 % disagree", "z-test", Outcome.PASS) > 0.2


def test_a_few_busy_users_deceive_who_counts_requests() -> None:
    """Where some users always disagree, a z-test and thresholds take the busiest of them for everybody."""
    harmful = watched("4 % of users always disagree, few send most")
    assert share_of_shadows(harmful, "z-test", Outcome.PASS) > 0
    assert share_of_shadows(harmful, "thresholds", Outcome.PASS) > 0


def test_a_row_of_shadows_tells_shares_and_medians() -> None:
    """Shares are of all shadows; a median is told only where most have come to a verdict."""
    ours = [Decision(outcome=outcome, look=17) for outcome in (Outcome.PASS, Outcome.FAIL)]
    none = Decision(outcome=Outcome.INCONCLUSIVE)
    shadows = [
        Watched(
            decisions={OUR_SHADOWS: one, "z-test": ours[0], "thresholds": none}, buckets=40, requests=1500
        )
        for one in (*ours, none)
    ]
    kind = SHADOWS[0]
    assert shadow_row(kind, shadows) == (
        f"| {kind.name} | within the bounds | 33.3% | 33.3% | 33.3% | 40 | 1,500 | 1.5 "
        "| 100.0% | 0.0% | 0.0% | 0.0% |\n"
    )
    assert " |  |  |  | " in shadow_row(kind, shadows[2:])
    assert SHADOW_HEAD.splitlines()[0].count("|") == shadow_row(kind, shadows).count("|")


def test_kinds_that_there_are_not_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    """Who misspells a kind is told all names, and nothing is played."""
    with pytest.raises(SystemExit):
        main(["shadow", "--only", "2 % disagre"])
    assert "no kind is named 2 % disagre; there are: 0.02 % errors, " in capsys.readouterr().err


def test_kinds_are_played_by_name(capsys: pytest.CaptureFixture[str]) -> None:
    """Only what is asked for is played, and printed as a row of the table."""
    assert main(["shadow", "--only", "10 % disagree", "--releases", "2"]) == 0
    assert (
        capsys.readouterr().out.splitlines()[2].startswith("| 10 % disagree | beyond a bound | 0.0% | 100.0%")
    )


@pytest.mark.parametrize(
    ("bound", "passes", "fails"), [(0.02, 0.0445, 0.0013), (0.001, 0.0394, 0.0008), (0.5, 0.0409, 0.0016)]
)
def test_how_often_a_proof_is_wrong_at_the_bound(bound: float, passes: float, fails: float) -> None:
    """Looked at after each bucket, a proof is wrong as seldom as promised, and as docs/shadow.md says."""
    assert [wrong_passes(bound), wrong_fails(bound)] == pytest.approx([passes, fails], abs=5e-5)
    assert passes <= BETA
    assert fails <= ALPHA / 3
