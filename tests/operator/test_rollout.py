"""Rollouts, decision by decision, on a small stage whose status goes through its own YAML between passes."""

from datetime import timedelta
from typing import Any

import pytest

from greenroom_operator.controller.actions import Verb
from greenroom_operator.controller.conditions import ConditionType
from greenroom_runtime.contract.flags import Rule
from tests.support.builders import digest
from tests.support.stage import CLEAN, HARMFUL, Stage

READY, PROGRESSING, DEGRADED = ConditionType.READY, ConditionType.PROGRESSING, ConditionType.DEGRADED
STALLED, RECONCILING = ConditionType.STALLED, ConditionType.RECONCILING
STEPS = [{"percent": 1, "hold": "30s"}, {"percent": 10, "hold": "60s"}, {"percent": 50, "hold": "60s"}]


def stage(**rollout: Any) -> Stage:
    """Return a steady v2, and a rollout of v3 that has begun or is over."""
    steady = Stage(pods={"churn-a": set(), "churn-b": set()}).settle()
    assert steady.status.version == "v2"
    return steady.edit(rollout={"version": "v3"} | rollout)


def stepping(**rollout: Any) -> Stage:
    """Return a rollout at its first step, with clean traffic."""
    begun = stage(steps=STEPS, **rollout)
    begun.traffic = CLEAN
    return begun.settle()


# Preparing


def test_a_version_is_proven_on_every_pod_before_anybody_gets_it() -> None:
    """The first flag store with users was written when every pod had the version, one pod first.

    The bytes that they proved are pinned.
    """
    rolled = stage(percent=10)

    asked = [flags for flags in rolled.written if "v3" in flags.resident]
    assert [(flags.first, flags.rollout is not None) for flags in asked] == [
        ("churn-a", False),
        ("", False),
        ("", True),
    ]
    assert rolled.share == 10
    assert rolled.flags is not None
    assert rolled.flags.production == "v2"
    assert rolled.flags.digests == {"v2": digest("v2"), "v3": digest("v3")}
    assert rolled.status.rollout is not None
    assert rolled.status.rollout.digest == digest("v3")


def test_a_version_that_fails_its_proof_is_refused_and_told() -> None:
    """A pod that cannot hold the version: nobody is routed, status and conditions say where and why."""
    steady = Stage(pods={"churn-a": {"v3"}, "churn-b": set()}).settle()
    steady.edit(rollout={"version": "v3", "percent": 10})

    assert steady.routed is None
    assert steady.state == "Refused"
    assert steady.status.rollout is not None
    assert steady.status.rollout.summary == "v3 (refused)"
    assert steady.condition(READY) == ("True", "RolloutRefused")
    assert steady.condition(DEGRADED) == ("True", "RolloutRefused")
    assert steady.condition(STALLED) == ("True", "RolloutRefused")
    assert steady.status.last_failure is not None
    assert (steady.status.last_failure.version, steady.status.last_failure.pod) == ("v3", "churn-a")
    assert "RolloutRefused" in steady.reasons
    assert steady.flags is not None
    assert steady.flags.resident == ("v2",)


def test_what_was_refused_stays_refused_until_a_person_asks_again() -> None:
    """A mended version is not tried by itself; the action retry tries it, as another attempt."""
    steady = Stage(pods={"churn-a": {"v3"}, "churn-b": set()}).settle()
    steady.edit(rollout={"version": "v3", "percent": 10})
    steady.pods["churn-a"].clear()
    steady.wait(600, every=60)
    assert steady.state == "Refused"

    steady.act(Verb.RETRY, "v3")

    assert steady.share == 10
    assert steady.state == "Running"
    assert steady.condition(DEGRADED) == ("False", "RollingOut")


def test_a_proof_that_takes_too_long_is_refused() -> None:
    """Where pods do not say that they have the version within progressDeadline, it is refused."""
    steady = Stage().settle()
    steady.lagging = True
    steady.edit(rollout={"version": "v3", "percent": 10})
    steady.wait(599, every=60)
    assert steady.state == "Preparing"

    steady.wait(60)

    assert steady.state == "Refused"
    assert steady.status.rollout is not None
    assert steady.status.rollout.reason == "DeadlineExceeded"


def test_a_promotion_goes_first() -> None:
    """While production changes the rollout waits, and begins when that is done."""
    steady = Stage().settle()
    steady.lagging = True
    steady.edit(version="v4", rollout={"version": "v3", "percent": 10})
    assert steady.state == "Preparing"
    assert steady.flags is not None
    assert "v3" not in steady.flags.resident
    assert steady.status.rollout is not None
    assert steady.status.rollout.message == "the promotion of v4 goes first"

    steady.lagging = False
    steady.settle()

    assert (steady.flags.production, steady.share) == ("v4", 10)


# Shares


def test_percent_is_followed_both_ways() -> None:
    """A fixed share is what Git says, exact to 0.01 %, up and down; 100 completes it."""
    rolled = stage(percent=0.07)
    assert rolled.routed is not None
    assert rolled.routed.hundredths == 7

    for percent in (33.33, 5, 100, 50):
        rolled.edit(rollout={"version": "v3", "percent": percent})
        assert rolled.share == percent
        assert rolled.state == ("Complete" if percent == 100 else "Running")
    assert rolled.status.rollout is not None
    assert rolled.status.rollout.summary == "v3 (50%)"


def test_rules_are_written_before_the_percentage() -> None:
    """Rules come with their names, attributes and values; the sticky key is the spec's."""
    rules = [{"name": "beta", "attribute": "cohorts", "in": ["beta", "staff"]}]
    rolled = stage(key="account", rules=rules)

    assert rolled.routed is not None
    assert rolled.routed.rules == (Rule(name="beta", attribute="cohorts", values=("beta", "staff")),)
    assert (rolled.routed.key, rolled.routed.hundredths, rolled.routed.salt) == ("account", 0, "ml/churn")
    assert rolled.status.rollout is not None
    assert rolled.status.rollout.summary == "v3 (0% + 1 rule)"


def test_without_a_share_and_rules_nobody_is_routed() -> None:
    """A rollout of 0 % holds the version ready on every pod, and the flag store routes nobody."""
    rolled = stage()

    assert rolled.routed is None
    assert rolled.flags is not None
    assert rolled.flags.resident == ("v2", "v3")
    assert rolled.state == "Running"


def test_complete_tells_what_git_should_say() -> None:
    """At 100 % production is still Git's, and the condition says what to set."""
    rolled = stage(percent=100)

    assert rolled.flags is not None
    assert (rolled.flags.production, rolled.status.version) == ("v2", "v2")
    assert rolled.condition(PROGRESSING) == ("False", "RolloutComplete")
    assert rolled.condition(DEGRADED) == ("False", "RolloutComplete")
    assert any("set spec.version: v3" in condition.message for condition in rolled.status.conditions)
    assert rolled.status.history[0].event == "RolloutComplete"


def test_complete_is_said_once_pods_obey() -> None:
    """While a pod has not read that all users get the version, the conditions do not claim it."""
    rolled = stage(percent=50)
    rolled.lagging = True

    rolled.edit(rollout={"version": "v3", "percent": 100})
    assert rolled.condition(PROGRESSING) == ("True", "RollingOut")
    assert rolled.condition(RECONCILING) == ("True", "RollingOut")

    rolled.lagging = False
    rolled.settle()
    assert rolled.condition(PROGRESSING) == ("False", "RolloutComplete")


# Steps


def test_steps_rise_by_themselves_and_end_with_all_users() -> None:
    """Each share is held for its time and passes its gate before the next; all users follow the last."""
    rolled = stepping()
    seen = [rolled.share]
    for _ in range(60):
        rolled.wait(5)
        if rolled.share != seen[-1]:
            seen.append(rolled.share)
    assert seen == [1, 10, 50, 100]
    assert rolled.state == "Complete"
    assert rolled.reasons.count("RolloutStepped") == 2
    assert rolled.status.rollout is not None
    assert rolled.status.rollout.evidence is None


def test_a_step_is_not_taken_before_its_hold_is_over() -> None:
    """What passes at once is held all the same."""
    rolled = stepping()
    rolled.wait(25)
    assert (rolled.share, rolled.state) == (1, "Holding")
    assert rolled.condition(PROGRESSING) == ("True", "RollingOut")
    assert rolled.condition(RECONCILING) == ("", "")

    rolled.wait(10)

    assert rolled.share == 10


def test_a_step_is_not_taken_without_a_pass() -> None:
    """Without traffic the gate knows nothing, and the share stays for hours; then it asks for a person."""
    rolled = stage(steps=STEPS)
    rolled.wait(3600)
    assert (rolled.share, rolled.state) == (1, "Holding")

    rolled.wait(300)

    assert (rolled.share, rolled.state) == (1, "Paused")
    assert rolled.condition(PROGRESSING) == ("False", "Paused")
    rolled.traffic = CLEAN
    rolled.wait(5)
    assert rolled.share == 10


def test_time_without_evidence_is_not_held() -> None:
    """An operator that was away for an hour does not take the hour for a hold."""
    rolled = stepping()
    rolled.wait(10)

    rolled.now += timedelta(hours=1)
    rolled.settle()

    assert rolled.share == 1
    rolled.wait(35)
    assert rolled.share == 10


def test_pods_that_do_not_obey_hold_nothing() -> None:
    """While pods have not read the share its hold does not begin, and status says that they are told."""
    rolled = stepping()
    rolled.wait(25)
    rolled.lagging = True
    rolled.wait(5)
    assert rolled.share == 10
    assert rolled.state == "Running"
    assert rolled.condition(RECONCILING) == ("True", "RollingOut")

    rolled.wait(600)
    assert rolled.share == 10

    rolled.lagging = False
    rolled.settle().wait(65)
    assert rolled.share == 50


def test_harm_aborts_at_once_for_good() -> None:
    """A Fail takes the version from everybody, is told as what it is, and does not begin again."""
    rolled = stepping()
    rolled.wait(40)
    rolled.traffic = HARMFUL
    rolled.wait(5)

    assert rolled.routed is None
    assert rolled.state == "Aborted"
    assert rolled.condition(READY) == ("True", "RolloutAborted")
    assert rolled.condition(DEGRADED) == ("True", "RolloutAborted")
    assert rolled.condition(STALLED) == ("True", "RolloutAborted")
    assert rolled.status.last_failure is not None
    assert rolled.status.last_failure.reason == "GateFailed"
    assert rolled.status.history[0].event == "RolloutAborted"
    rolled.traffic = CLEAN
    rolled.wait(3600, every=60).edit(rollout={"version": "v3", "percent": 50})
    assert rolled.routed is None
    assert rolled.edit(rollout={"version": "v4", "percent": 50}).share == 50


def test_a_fixed_share_with_a_gate_is_aborted_too() -> None:
    """Percent beside gate: nothing is raised, and harm ends it."""
    rolled = stage(percent=10, gate={"maxErrorRatio": "2"})
    rolled.traffic = CLEAN
    rolled.wait(3600, every=30)
    assert (rolled.share, rolled.state) == (10, "Running")

    rolled.traffic = HARMFUL
    rolled.wait(5)

    assert rolled.state == "Aborted"


def test_three_crashes_of_serving_processes_abort() -> None:
    """Pods that crash while users have the version count against it, each crash once."""
    rolled = stepping()
    for _ in range(3):
        assert rolled.state != "Aborted"
        rolled.now += timedelta(seconds=1)
        rolled.crashed = {"churn-a": rolled.now}
        rolled.settle().wait(5)

    assert rolled.state == "Aborted"


def test_an_earlier_crash_is_no_evidence() -> None:
    """What crashed before the first user got the version says nothing of it."""
    steady = Stage().settle()
    steady.crashed = {"churn-a": steady.now - timedelta(seconds=1), "churn-b": steady.now}
    steady.traffic = CLEAN
    steady.edit(rollout={"version": "v3", "steps": STEPS}).wait(300)
    assert steady.state == "Complete"


@pytest.mark.parametrize(
    ("steps", "share"),
    [
        ([(1, "30s"), (5, "30s"), (10, "60s"), (50, "60s")], 10),
        ([(1, "30s"), (20, "60s")], 1),
        ([(40, "60s")], 40),
        ([(1, "1s"), (10, "60s")], 10),
    ],
)
def test_edited_steps_never_raise_a_share_that_was_not_earned(
    steps: list[tuple[int, str]], share: int
) -> None:
    """At 10 % other steps put it at the last step that is not above; a first step above begins it.

    However long the 10 % were held: that was another step's hold.
    """
    rolled = stepping()
    rolled.wait(75)
    assert rolled.share == 10

    edited = [{"percent": percent, "hold": hold} for percent, hold in steps]
    rolled.edit(rollout={"version": "v3", "steps": edited})

    assert rolled.share == share


def test_another_production_is_compared_anew() -> None:
    """A promotion of another version in the middle keeps the share, and counts and holds from the start."""
    rolled = stepping()
    rolled.wait(60)
    assert rolled.routed is not None
    epoch = rolled.routed.epoch

    rolled.edit(version="v4")

    assert rolled.flags is not None
    assert (rolled.flags.production, rolled.share) == ("v4", 10)
    assert rolled.routed is not None
    assert rolled.routed.epoch != epoch
    rolled.wait(50)
    assert rolled.share == 10
    rolled.wait(15)
    assert rolled.share == 50


def test_no_step_is_taken_in_the_middle_of_a_promotion() -> None:
    """Production may be another one in a moment: what has passed beside it waits until that is decided."""
    rolled = Stage(pods={"churn-a": set()}, traffic=CLEAN).settle()
    rolled.edit(rollout={"version": "v3", "steps": STEPS}).wait(35)
    assert rolled.share == 10
    rolled.slow = {"v4"}
    rolled.edit(version="v4").wait(300)
    assert (rolled.share, rolled.condition(PROGRESSING)) == (10, ("True", "Promoting"))

    rolled.slow = set()
    rolled.settle()

    assert rolled.flags is not None
    assert (rolled.flags.production, rolled.share) == ("v4", 10)


# Pausing, actions


def test_paused_by_git_stays_where_it_is() -> None:
    """spec.rollout.paused holds the share, whatever the gate says; taking it back goes on."""
    rolled = stepping()
    rolled.wait(35).edit(rollout={"version": "v3", "steps": STEPS, "paused": True})
    rolled.wait(600)
    assert (rolled.share, rolled.state) == (10, "Paused")
    assert rolled.condition(PROGRESSING) == ("False", "Paused")
    assert rolled.status.rollout is not None
    assert rolled.status.rollout.summary == "v3 (10%, paused)"

    rolled.edit(rollout={"version": "v3", "steps": STEPS})

    assert rolled.share == 50


def test_paused_before_it_began_routes_nobody() -> None:
    """It is proven everywhere and waits; rules, too, begin with it."""
    rules = [{"name": "beta", "attribute": "cohorts", "in": ["beta"]}]
    rolled = stage(percent=10, rules=rules, paused=True)
    assert rolled.routed is None
    assert rolled.state == "Paused"
    assert rolled.flags is not None
    assert rolled.flags.resident == ("v2", "v3")

    rolled.edit(rollout={"version": "v3", "percent": 10, "rules": rules})

    assert rolled.share == 10


def test_a_paused_share_may_still_fall_and_never_rises() -> None:
    """While paused a smaller percent is followed at once, a larger one waits."""
    rolled = stage(percent=50)
    assert rolled.edit(rollout={"version": "v3", "percent": 80, "paused": True}).share == 50
    assert rolled.edit(rollout={"version": "v3", "percent": 5, "paused": True}).share == 5


def test_harm_aborts_a_paused_rollout() -> None:
    """Pausing does not switch the gate off."""
    rolled = stepping(paused=False)
    rolled.wait(35).edit(rollout={"version": "v3", "steps": STEPS, "paused": True})
    rolled.traffic = HARMFUL
    rolled.wait(5)
    assert rolled.state == "Aborted"


def test_actions_pause_and_resume() -> None:
    """Pause holds the share until resume; each is done once and acknowledged."""
    rolled = stepping()
    rolled.act(Verb.PAUSE, "v3").wait(100)
    assert (rolled.share, rolled.state) == (1, "Paused")
    assert rolled.status.last_handled_action == rolled.annotations["greenroom.dev/action"]

    rolled.act(Verb.RESUME, "v3")
    assert rolled.share == 10


def test_promote_step_takes_one_step_without_waiting() -> None:
    """Neither hold nor gate is waited for, and one action is one step."""
    rolled = stage(steps=STEPS)
    rolled.act(Verb.PROMOTE_STEP, "v3").wait(30)
    assert rolled.share == 10
    rolled.act(Verb.PROMOTE_STEP, "v3").act(Verb.PROMOTE_STEP, "v3", text="again")
    assert (rolled.share, rolled.state) == (100, "Complete")


@pytest.mark.parametrize("paused_by", ["spec", "action"])
def test_promote_step_begins_what_was_paused_before_it_began(paused_by: str) -> None:
    """Also the first step is taken, one for one action, and it stays paused there."""
    if paused_by == "spec":
        rolled = stage(steps=STEPS, paused=True)
    else:
        rolled = Stage().settle()
        rolled.lagging = True
        rolled.edit(rollout={"version": "v3", "steps": STEPS}).act(Verb.PAUSE, "v3")
        rolled.lagging = False
        rolled.settle()
    assert (rolled.share, rolled.state) == (0, "Paused")

    rolled.act(Verb.PROMOTE_STEP, "v3").wait(100)

    assert (rolled.share, rolled.state) == (1, "Paused")
    assert rolled.objections == []


@pytest.mark.parametrize("percent", [10, 100])
def test_abort_takes_percentage_and_rules_alike(percent: int) -> None:
    """Abort gives everybody production at once, nobody is alarmed, and it does not begin again by itself."""
    rules = [{"name": "beta", "attribute": "cohorts", "in": ["beta"]}]
    rolled = stage(percent=percent, rules=rules)
    rolled.act(Verb.ABORT, "v3")

    assert rolled.routed is None
    assert rolled.state == "Aborted"
    assert rolled.condition(DEGRADED) == ("False", "RolloutAborted")
    assert rolled.condition(PROGRESSING) == ("False", "RolloutAborted")
    assert rolled.condition(STALLED) == ("", "")
    rolled.edit(rollout={"version": "v3", "percent": 50}).wait(600, every=60)
    assert rolled.routed is None
    assert rolled.act(Verb.RETRY, "v3").share == 50


@pytest.mark.parametrize(
    ("action", "objection"),
    [
        ("promote-step/v3/x", "it has no steps"),
        ("abort/v9/x", "spec.rollout.version is v3"),
        ("retry/v3/x", "its rollout is Running"),
        ("abort/v3", "write VERB/VERSION/TEXT"),
        ("destroy/v3/x", "promote-step, abort, pause, resume, retry"),
        ("//", "write VERB/VERSION/TEXT"),
    ],
)
def test_an_action_without_effect_is_answered(action: str, objection: str) -> None:
    """What means nothing changes nothing, is acknowledged once, and says why."""
    rolled = stage(percent=10)
    before = rolled.flags
    rolled.annotations["greenroom.dev/action"] = action
    rolled.settle().settle()

    assert rolled.flags == before
    assert len(rolled.objections) == 1
    assert objection in rolled.objections[0]
    assert rolled.status.last_handled_action == action


def test_resume_does_not_overrule_git() -> None:
    """Where Git says paused, resume says so."""
    rolled = stage(percent=10, paused=True).act(Verb.RESUME, "v3")
    assert rolled.state == "Paused"
    assert "spec.rollout.paused is true" in rolled.objections[0]


def test_resume_says_that_nobody_has_paused() -> None:
    """A gate that waits for a person asks for something else, and elsewhere there is nothing to resume."""
    rolled = stage(steps=STEPS).act(Verb.RESUME, "v3")
    assert "it is not paused" in rolled.objections[-1]

    rolled.wait(4000, every=60)
    assert rolled.state == "Paused"
    rolled.act(Verb.RESUME, "v3")

    assert "use promote-step or abort" in rolled.objections[-1]
    assert rolled.act(Verb.PROMOTE_STEP, "v3").share == 10


def test_pause_twice_says_so() -> None:
    """The second one changes nothing."""
    rolled = stage(percent=10).act(Verb.PAUSE, "v3").act(Verb.PAUSE, "v3", text="again")
    assert rolled.state == "Paused"
    assert rolled.objections == ["pause of v3 has no effect: it is paused already"]


# Git's last word


def test_git_follows_a_complete_rollout_without_a_change_for_users() -> None:
    """spec.version set to the rolled out version: users have it all the while, and it is over for good."""
    rolled = stage(percent=100)
    written = len(rolled.written)
    rolled.edit(version="v3")

    answers = {
        (flags.production, flags.rollout.version if flags.rollout else None)
        for flags in rolled.written[written - 1 :]
    }
    assert answers <= {("v2", "v3"), ("v3", None)}
    assert rolled.state == "Promoted"
    assert rolled.status.version == "v3"
    assert rolled.condition(READY) == ("True", "Serving")
    assert rolled.status.rollout is not None
    assert rolled.status.rollout.summary is None


def test_the_emergency_rollback_gives_everybody_the_old_version() -> None:
    """spec.version back, rollout.version still in the file: nobody has the new one, and it stays so."""
    rolled = stage(percent=100).edit(version="v3")
    rolled.edit(version="v2")
    rolled.wait(600, every=60)

    assert rolled.flags is not None
    assert (rolled.flags.production, rolled.routed) == ("v2", None)
    assert rolled.state == "Promoted"
    assert rolled.act(Verb.RETRY, "v3").share == 100


def test_an_emergency_before_the_promotion_was_noticed() -> None:
    """Back at once, while the pass after the flip has not been made: the outcome is the same."""
    rolled = stage(percent=100)
    rolled.version, rolled.generation = "v3", 9
    while rolled.flags is None or rolled.flags.production != "v3":
        assert rolled.make_pass()
    rolled.edit(version="v2")

    assert rolled.flags is not None
    assert (rolled.flags.production, rolled.routed, rolled.state) == ("v2", None, "Promoted")


def test_git_promotes_a_rollout_in_the_middle() -> None:
    """spec.version set to a version at 10 %: it becomes production for all, and its rollout is over."""
    rolled = stage(percent=10).edit(version="v3")
    assert rolled.flags is not None
    assert (rolled.flags.production, rolled.routed, rolled.state) == ("v3", None, "Promoted")


@pytest.mark.parametrize(
    ("rollout", "more", "less"),
    [
        ({"percent": 50}, {"percent": 60}, {"percent": 10}),
        ({"steps": STEPS}, {"steps": [{"percent": 30}]}, {"steps": [{"percent": "0.5"}]}),
    ],
)
def test_what_is_refused_as_production_is_given_to_nobody_more(
    rollout: dict[str, Any], more: dict[str, Any], less: dict[str, Any]
) -> None:
    """A pod cannot hold the version any more, so its promotion is refused: only a lower share counts."""
    rolled = stage(**rollout)
    share = rolled.share
    rolled.pods["churn-b"] = {"v3"}
    rolled.edit(version="v3")
    assert rolled.status.promotion is not None
    assert rolled.status.promotion.state == "Refused"
    assert rolled.share == share

    rolled.edit(rollout={"version": "v3"} | more).wait(60)
    assert rolled.share == share

    rolled.edit(rollout={"version": "v3"} | less)
    assert 0 < rolled.share < share


def test_taking_the_rollout_out_gives_everybody_production() -> None:
    """Without spec.rollout nobody is routed, the version makes room, and status forgets it."""
    rolled = stage(percent=50).edit(rollout=None)
    assert rolled.flags is not None
    assert (rolled.routed, rolled.flags.resident) == (None, ("v2",))
    assert rolled.status.rollout is None
    assert rolled.reasons[-1] == "RolloutWithdrawn"


def test_a_version_that_is_production_from_the_start_is_no_rollout() -> None:
    """A rebuilt cluster with rollout.version equal to version: nothing to roll out, then or later."""
    built = Stage(version="v3", spec={"rollout": {"version": "v3", "percent": 50}}).settle()
    assert built.state == "Promoted"
    built.edit(version="v2")
    assert built.flags is not None
    assert (built.flags.production, built.routed) == ("v2", None)


def test_what_is_refused_as_production_is_not_tried_as_a_rollout() -> None:
    """One edit names the same version twice: it is the promotion that proves it, once."""
    steady = Stage(pods={"churn-a": {"v3"}, "churn-b": set()}).settle()
    steady.edit(version="v3", rollout={"version": "v3", "percent": 50}).wait(60)

    assert steady.status.promotion is not None
    assert steady.status.promotion.state == "Refused"
    assert steady.status.rollout is None
    assert steady.flags is not None
    assert (steady.flags.production, steady.flags.resident) == ("v2", ("v2",))
    assert len([flags for flags in steady.written if "v3" in flags.resident]) == 1


def test_a_rebuilt_cluster_begins_at_the_first_step() -> None:
    """From the same Git and nothing else: production is spec.version, the rollout at its first step."""
    built = Stage(version="v2", spec={"rollout": {"version": "v3", "steps": STEPS}}).settle()
    assert built.flags is not None
    assert (built.flags.production, built.share) == ("v2", 1)


# Writes that are lost


@pytest.mark.parametrize("lost", ["flags", "status"])
@pytest.mark.parametrize("after", range(6))
def test_an_operator_that_dies_between_writes_loses_nothing(lost: str, after: int) -> None:
    """It dies in its n-th pass after harm was done; another one goes on, to the same end."""
    rolled = stepping()
    rolled.wait(35)
    rolled.traffic = HARMFUL
    rolled.now += timedelta(seconds=5)
    for number in range(after + 1):
        rolled.make_pass(dies_before=lost if number == after else "")

    rolled.settle()

    assert (rolled.state, rolled.routed) == ("Aborted", None)
    rolled.traffic = CLEAN
    rolled.wait(300)
    assert (rolled.state, rolled.routed) == ("Aborted", None)
    assert rolled.reasons.count("RolloutAborted") == 1


def test_an_abort_that_is_remembered_is_never_taken_back() -> None:
    """Dead after status and before the flag store: the next pass takes the users away, whatever it sees."""
    rolled = stepping()
    rolled.wait(35)
    rolled.traffic = HARMFUL
    rolled.now += timedelta(seconds=5)
    rolled.make_pass()
    assert (rolled.state, rolled.share) == ("Aborted", 10)
    rolled.traffic = CLEAN

    rolled.settle()

    assert rolled.routed is None


def test_lost_status_keeps_what_users_have() -> None:
    """Where status is gone and the flag store routes users, they keep their version."""
    rolled = stage(percent=100)
    rolled.status = type(rolled.status)()
    rolled.settle()
    assert (rolled.share, rolled.state) == (100, "Complete")

    stepped = stepping()
    stepped.wait(35)
    stepped.status = type(stepped.status)()
    stepped.settle()
    assert (stepped.share, stepped.state) == (10, "Holding")


def test_a_lost_flag_store_is_written_again() -> None:
    """Where the flag store is gone, status says what users had."""
    rolled = stage(percent=30)
    before, rolled.flags = rolled.flags, None
    rolled.settle()
    assert before is not None
    assert rolled.flags is not None
    assert (rolled.flags.production, rolled.flags.rollout) == ("v2", before.rollout)


def test_a_second_pass_writes_nothing() -> None:
    """At rest neither flag store nor status changes, for hours; only a gate's counters do."""
    rolled = stage(percent=30)
    status, written = rolled.status, len(rolled.written)
    rolled.wait(7200, every=60)
    assert (rolled.status, len(rolled.written)) == (status, written)


def test_counters_are_written_every_thirty_seconds_at_most() -> None:
    """While a gate watches, status changes at most twice a minute."""
    rolled = stage(percent=30, gate={})
    changes = 0
    for number in range(60):
        before = rolled.status
        rolled.traffic = (CLEAN[0].model_copy(update={"requests": number}), CLEAN[1])
        rolled.now += timedelta(seconds=2)
        rolled.settle()
        changes += rolled.status != before
    assert changes <= 5


# New pods


def test_new_pods_come_up_whatever_the_rollout() -> None:
    """A pod on which the version fails serves production, and status names it."""
    rolled = stepping()
    rolled.pods["churn-c"] = {"v3"}
    rolled.wait(60)

    assert rolled.share == 1
    assert rolled.state == "Running"
    assert rolled.status.rollout is not None
    assert "pod churn-c cannot serve v3" in (rolled.status.rollout.message or "")
