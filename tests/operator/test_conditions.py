"""The truth table, written out a second time by hand: what users and their tools rely on."""

from collections.abc import Sequence
from datetime import timedelta
from typing import NamedTuple

import pytest

from greenroom_operator.api.fields import Condition, ConditionStatus
from greenroom_operator.controller.conditions import (
    TRUTH_TABLE,
    ConditionType,
    Reason,
    Situation,
    Verdict,
    build_conditions,
    find_condition,
)
from tests.support.builders import NOW
from tests.support.kstatus import compute_kstatus

LATER = NOW + timedelta(minutes=5)
EARLIER = NOW - timedelta(hours=1)

KEPT = "kept"
ABSENT = None
"""Abnormal-true conditions are there only while they are true."""


TABLED = [name for name in ConditionType if not name.endswith("Healthy")]
"""The conditions of the truth table."""


class Row(NamedTuple):
    """A situation, what it says of each condition, and what kstatus makes of a Ready object in it."""

    situation: Situation
    ready: str
    progressing: str
    degraded: str
    reconciling: str | None
    stalled: str | None
    kstatus: str


ROWS = [
    Row(
        Situation.JUST_CREATED,
        "Unknown NotObserved",
        "Unknown NotObserved",
        "Unknown NotObserved",
        "True NotObserved",
        ABSENT,
        "InProgress",
    ),
    Row(
        Situation.PODS_STARTING,
        "False PodsStarting",
        "True PodsStarting",
        "False PodsStarting",
        "True PodsStarting",
        ABSENT,
        "InProgress",
    ),
    Row(
        Situation.FIRST_VERSION_REFUSED,
        "False VerificationFailed",
        "False VerificationFailed",
        "True VerificationFailed",
        ABSENT,
        "True VerificationFailed",
        "Failed",
    ),
    Row(Situation.STEADY, "True Serving", "False Complete", "False Serving", ABSENT, ABSENT, "Current"),
    Row(
        Situation.PROMOTING,
        "True Promoting",
        "True Promoting",
        "False Promoting",
        "True Promoting",
        ABSENT,
        "InProgress",
    ),
    Row(
        Situation.UPDATING,
        "True Updating",
        "True Updating",
        "False Updating",
        "True Updating",
        ABSENT,
        "InProgress",
    ),
    Row(
        Situation.UPDATE_STALLED,
        "True ProgressDeadlineExceeded",
        "False ProgressDeadlineExceeded",
        "True ProgressDeadlineExceeded",
        ABSENT,
        "True ProgressDeadlineExceeded",
        "Failed",
    ),
    Row(
        Situation.PROMOTION_REFUSED,
        "True VerificationFailed",
        "False VerificationFailed",
        "True VerificationFailed",
        ABSENT,
        "True VerificationFailed",
        "Failed",
    ),
    Row(
        Situation.WAITING_FOR_SHADOW,
        "True WaitingForShadow",
        "True WaitingForShadow",
        "False WaitingForShadow",
        ABSENT,
        ABSENT,
        "Current",
    ),
    Row(
        Situation.ROLLING_OUT,
        "True RollingOut",
        "True RollingOut",
        "False RollingOut",
        "True RollingOut",
        ABSENT,
        "InProgress",
    ),
    Row(
        Situation.ROLLED_OUT_IN_PART,
        "True RollingOut",
        "True RollingOut",
        "False RollingOut",
        ABSENT,
        ABSENT,
        "Current",
    ),
    Row(
        Situation.ROLLOUT_COMPLETE,
        "True RolloutComplete",
        "False RolloutComplete",
        "False RolloutComplete",
        ABSENT,
        ABSENT,
        "Current",
    ),
    Row(Situation.PAUSED, "True Paused", "False Paused", "False Paused", ABSENT, ABSENT, "Current"),
    Row(
        Situation.ROLLOUT_REFUSED,
        "True RolloutRefused",
        "False RolloutRefused",
        "True RolloutRefused",
        ABSENT,
        "True RolloutRefused",
        "Failed",
    ),
    Row(
        Situation.ROLLOUT_FAILED,
        "True RolloutAborted",
        "False RolloutAborted",
        "True RolloutAborted",
        ABSENT,
        "True RolloutAborted",
        "Failed",
    ),
    Row(
        Situation.ROLLOUT_ABORTED,
        "True RolloutAborted",
        "False RolloutAborted",
        "False RolloutAborted",
        ABSENT,
        ABSENT,
        "Current",
    ),
    Row(
        Situation.DISABLED,
        KEPT,
        "False ReconcileDisabled",
        "False ReconcileDisabled",
        ABSENT,
        ABSENT,
        "Current",
    ),
    Row(
        Situation.PARTLY_AVAILABLE,
        "True PartlyAvailable",
        "True PartlyAvailable",
        "False PartlyAvailable",
        "True PartlyAvailable",
        ABSENT,
        "InProgress",
    ),
    # Ready is False for good, which kstatus cannot tell from a start: that is the design's choice.
    Row(
        Situation.SCALED_TO_ZERO,
        "False ScaledToZero",
        "False ScaledToZero",
        "False ScaledToZero",
        ABSENT,
        ABSENT,
        "InProgress",
    ),
    Row(Situation.NOT_REPORTING, "True NotReporting", KEPT, "True NotReporting", ABSENT, ABSENT, "Current"),
    Row(
        Situation.DEADLINE_EXCEEDED,
        "False ProgressDeadlineExceeded",
        "False ProgressDeadlineExceeded",
        "True ProgressDeadlineExceeded",
        ABSENT,
        "True ProgressDeadlineExceeded",
        "Failed",
    ),
    Row(
        Situation.NAME_CONFLICT,
        KEPT,
        "False NameConflict",
        "True NameConflict",
        ABSENT,
        "True NameConflict",
        "Failed",
    ),
    Row(
        Situation.INVALID_SPEC,
        KEPT,
        "False InvalidSpec",
        "True InvalidSpec",
        ABSENT,
        "True InvalidSpec",
        "Failed",
    ),
    Row(
        Situation.FORBIDDEN,
        KEPT,
        "False Forbidden",
        "True Forbidden",
        ABSENT,
        "True Forbidden",
        "Failed",
    ),
]


def steady_before() -> tuple[Condition, ...]:
    """Return the conditions of an hour ago, when all was well, and somebody else's among them."""
    verdict = Verdict(situation=Situation.STEADY, message="v1 serves on 3 pods")
    foreign = Condition(
        type="example.com/Audited",
        status=ConditionStatus.TRUE,
        last_transition_time="2026-11-01T00:00:00Z",
        reason="Audited",
        message="by somebody else",
    )
    return (*build_conditions(verdict, before=(), generation=6, now=EARLIER), foreign)


def told(conditions: Sequence[Condition], name: ConditionType) -> str | None:
    """Return a condition as the table spells it."""
    found = find_condition(conditions, name)
    return f"{found.status} {found.reason}" if found else ABSENT


def kstatus(conditions: Sequence[Condition], *, generation: int, observed_generation: int) -> str:
    """Return what kstatus makes of a ModelDeployment with these conditions."""
    told = [condition.model_dump(mode="json", by_alias=True) for condition in conditions]
    status = {"observedGeneration": observed_generation, "conditions": told}
    return compute_kstatus({"metadata": {"generation": generation}, "status": status})


def test_the_table_is_complete() -> None:
    """Each situation has a row, here and in the operator."""
    assert [row.situation for row in ROWS] == list(Situation)
    assert set(TRUTH_TABLE) == set(Situation)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.situation.name)
def test_what_a_situation_says(row: Row) -> None:
    """Status and reason of each condition are the table's; what it keeps is as it was, to the letter."""
    if row.situation is Situation.JUST_CREATED:
        before: tuple[Condition, ...] = ()
    else:
        before = steady_before()
    verdict = Verdict(situation=row.situation, message="why")
    conditions = build_conditions(verdict, before=before, generation=7, now=NOW)

    for name, expected in zip(TABLED, row[1:6], strict=True):
        if expected == KEPT:
            assert find_condition(conditions, name) == find_condition(before, name)
        else:
            assert told(conditions, name) == expected
    assert kstatus(conditions, generation=7, observed_generation=7) == row.kstatus
    assert kstatus(conditions, generation=8, observed_generation=7) == "InProgress"


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.situation.name)
def test_what_a_situation_says_of_something_new(row: Row) -> None:
    """Without a past, what would be kept is Unknown; nothing new is ever Current but by serving."""
    verdict = Verdict(situation=row.situation, message="why")
    conditions = build_conditions(verdict, before=(), generation=1, now=NOW)

    for name, expected in zip(TABLED, row[1:6], strict=True):
        assert told(conditions, name) == ("Unknown NotObserved" if expected == KEPT else expected)
    if kstatus(conditions, generation=1, observed_generation=1) == "Current":
        assert row.ready.startswith("True ")


@pytest.mark.parametrize("situation", list(Situation))
def test_only_our_conditions_are_ours(situation: Situation) -> None:
    """Somebody else's condition is neither repeated nor changed: server-side apply leaves it to its owner."""
    conditions = build_conditions(
        Verdict(situation=situation, message="why"), before=steady_before(), generation=7, now=NOW
    )
    types = [condition.type for condition in conditions]

    assert set(types) <= {str(name) for name in ConditionType}
    assert len(set(types)) == len(types)


@pytest.mark.parametrize("before", list(Situation))
def test_a_transition_is_a_change_of_status(before: Situation) -> None:
    """The time of transition moves when, and only when, the status does; a new reason never moves it."""
    old = build_conditions(
        Verdict(situation=before, message="then"), before=steady_before(), generation=6, now=NOW
    )
    known = {condition.type: condition.status for condition in old}
    for after in Situation:
        new = build_conditions(Verdict(situation=after, message="now"), before=old, generation=7, now=LATER)
        for condition in new:
            moved = condition.last_transition_time == "2026-11-03T09:35:00Z"
            assert moved == (known.get(condition.type) != condition.status), after


@pytest.mark.parametrize("situation", list(Situation))
def test_the_same_again_is_the_same(situation: Situation) -> None:
    """A later pass over the same situation repeats the conditions to the letter."""
    verdict = Verdict(situation=situation, message="why")
    first = build_conditions(verdict, before=steady_before(), generation=7, now=NOW)

    assert build_conditions(verdict, before=first, generation=7, now=LATER) == first


def test_what_is_kept_is_of_the_generation_that_was_observed() -> None:
    """A spec that is refused does not become observed: `kubectl wait` must not take Ready for the new one."""
    verdict = Verdict(situation=Situation.INVALID_SPEC, message="why")
    conditions = build_conditions(verdict, before=steady_before(), generation=7, now=NOW)
    seen = {condition.type: condition.observed_generation for condition in conditions}

    assert seen == {"Ready": 6, "Progressing": 7, "Degraded": 7, "Stalled": 7}


@pytest.mark.parametrize("reason", list(Reason))
def test_reasons_are_one_word(reason: Reason) -> None:
    """Reasons are CamelCase words, as the API conventions ask."""
    assert reason.value.isalpha()
    assert reason.value[0].isupper()
