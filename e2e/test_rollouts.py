"""What Greenroom promises of rollouts, on real pods under load: who gets what, and that nobody notices."""

import itertools
import json
import time
from collections import defaultdict
from typing import Any

import pytest

from e2e.conftest import TrainedModels
from e2e.documents import UNTOUCHED, Documents
from e2e.faulty import HEAVY, write_faulty
from e2e.operators import replace_operator
from e2e.penguins import NAME, PATIENCE, Penguins
from e2e.traffic import Answer, Traffic
from tests.support.kubectl import Kubectl

pytestmark = pytest.mark.usefixtures("operator")

USERS = [f"user-{number}" for number in range(600)]
LENIENT = {
    "minRequests": 50,
    "toleratedErrorPercent": 10,
    "maxErrorRatio": "3",
    "maxLatencyRatio": "20",
}
"""A gate that two busy cores and some hundred users can pass in seconds."""


def watched(penguins: Penguins) -> Documents:
    """Watch the flag documents of the example."""
    return Documents(penguins.kubectl, namespace=penguins.namespace, name=NAME)


def versions_by_user(answers: list[Answer]) -> dict[str, set[str]]:
    """Return the versions that each user was answered by."""
    seen: dict[str, set[str]] = defaultdict(set)
    for answer in answers:
        seen[answer.user].add(answer.version)
    return seen


def _until_everybody_gets(traffic: Traffic, version: str) -> int:
    """Wait until each user's newest answer is by this version; return how many answers there were."""

    def holds(answers: list[Answer]) -> bool:
        newest = {answer.user: answer.version for answer in answers[-4 * len(USERS) :]}
        return len(newest) == len(USERS) and set(newest.values()) == {version}

    traffic.wait_until(holds)
    return len(traffic.answers)


def _of_every_user(traffic: Traffic) -> list[Answer]:
    """Return answers to what is asked from now on, once there is one for each user."""
    now = time.monotonic()
    traffic.wait_until(lambda _: len({answer.user for answer in traffic.asked_since(now)}) == len(USERS))
    return traffic.asked_since(now)


def test_from_one_percent_to_all_users(url: str, penguins: Penguins, models: TrainedModels) -> None:
    """A share raised from 1 to 100 % under load: sticky, monotone, explained, and no request fails."""
    lives = penguins.lives()
    reached_by: dict[float, set[str]] = {}
    with watched(penguins) as documents, Traffic(url, models.rows, users=USERS) as traffic:
        for percent in (1, 10, 50, 100):
            penguins.apply(rollout={"version": "v2", "percent": percent}, wait=False)
            state = "Complete" if percent == 100 else "Running"
            penguins.until_rollout(state, percent=str(percent))
            seen = versions_by_user(_of_every_user(traffic))
            assert all(len(versions) == 1 for versions in seen.values()), "one user, two versions"
            reached_by[percent] = {user for user, versions in seen.items() if versions == {"v2"}}
        penguins.apply(rollout={"version": "v2", "percent": 100}, version="v2", wait=False)
        penguins.until_promoted("v2")
        traffic.wait_for_every_client("v2")
    assert traffic.failed == []
    assert documents.unexplained(traffic.answers) == []
    shares = [reached_by[percent] for percent in (1, 10, 50, 100)]
    assert all(fewer <= more for fewer, more in itertools.pairwise(shares))
    assert [len(users) for users in shares][-1] == len(USERS)
    assert 30 <= len(shares[1]) <= 95
    assert 240 <= len(shares[2]) <= 360
    assert penguins.lives() == lives
    assert penguins.found["status"]["rollout"]["state"] == "Promoted"


def test_steps_rise_behind_their_gate(url: str, penguins: Penguins, models: TrainedModels) -> None:
    """Steps are held, judged and taken by themselves while real users are served; nobody's request fails."""
    steps = [{"percent": 20, "hold": "5s"}, {"percent": 50, "hold": "5s"}]
    with watched(penguins) as documents, Traffic(url, models.rows, users=USERS) as traffic:
        penguins.apply(rollout={"version": "v2", "steps": steps, "gate": LENIENT}, wait=False)
        status = penguins.until_rollout("Complete")
    assert traffic.failed == []
    assert documents.unexplained(traffic.answers) == []
    routed = [document.flags.rollout for document in documents.seen if document.flags.rollout]
    shares = [rollout.hundredths / 100 for rollout in routed]
    assert list(dict.fromkeys(shares)) == [20, 50, 100]
    assert status["percent"] == "100"
    penguins.until_told("RolloutStarted", "RolloutStepped", "RolloutComplete")
    assert penguins.condition("Progressing")["reason"] == "RolloutComplete"
    assert "set spec.version: v2" in penguins.condition("Ready")["message"]


def test_a_person_aborts(url: str, penguins: Penguins, models: TrainedModels) -> None:
    """The action abort takes the version from everybody under load, nothing fails, and it stays away."""
    rollout = {
        "version": "v2",
        "percent": 50,
        "rules": [{"name": "beta", "attribute": "user_id", "in": ["user-1"]}],
    }
    with watched(penguins) as documents, Traffic(url, models.rows, users=USERS) as traffic:
        penguins.apply(rollout=rollout, wait=False)
        penguins.until_rollout("Running", percent="50")
        traffic.wait_until(lambda answers: {answer.version for answer in answers} == {"v1", "v2"})
        penguins.act("abort/v2/now")
        penguins.until_rollout("Aborted")
        settled = _until_everybody_gets(traffic, "v1")
        penguins.apply(rollout=rollout | {"percent": 80}, wait=False)
        traffic.wait_until(lambda answers: len(answers) > settled + len(USERS))
    assert traffic.failed == []
    assert documents.unexplained(traffic.answers) == []
    assert {answer.version for answer in traffic.answers[settled:]} == {"v1"}
    assert penguins.found["status"]["lastHandledAction"] == "abort/v2/now"
    assert penguins.condition("Degraded")["status"] == "False"


def test_the_gate_aborts_what_does_harm(url: str, penguins: Penguins, models: TrainedModels) -> None:
    """A version that fails on its users' requests is taken from them by the gate."""
    write_faulty(models.directory / "v1", version="v4-fragile")
    models.store.upload(models.directory, prefix="penguins")
    heavy = [row for row in models.rows if (row["body_mass_g"] or 0) > HEAVY]
    assert heavy
    steps = [{"percent": 40, "hold": "1h"}]
    with watched(penguins) as documents, Traffic(url, models.rows, users=USERS) as traffic:
        penguins.apply(rollout={"version": "v4-fragile", "steps": steps}, wait=False)
        status = penguins.until_rollout("Aborted")
        settled = _until_everybody_gets(traffic, "v1")
        traffic.wait_until(lambda answers: len(answers) > settled + len(USERS))
    assert {answer.version for answer in traffic.failed} == {"v4-fragile"}
    assert [answer for answer in traffic.answers[settled:] if answer.status != 200] == []
    assert documents.unexplained(traffic.answers) == []
    assert status["reason"] == "GateFailed"
    degraded = penguins.condition("Degraded")
    assert (degraded["status"], degraded["reason"]) == ("True", "RolloutAborted")
    assert penguins.found["status"]["lastFailure"]["version"] == "v4-fragile"
    assert penguins.found["status"]["version"] == "v1"


def test_a_rollout_with_skew_is_refused(url: str, penguins: Penguins, models: TrainedModels) -> None:
    """A version whose golden samples differ never gets a user, and new pods come up on production."""
    with Traffic(url, models.rows, users=USERS) as traffic:
        penguins.apply(rollout={"version": "v3-broken", "percent": 100}, wait=False)
        status = penguins.until_rollout("Refused")
        penguins("scale", "md", NAME, "--replicas=3")
        penguins.until(lambda found: found["status"].get("readyReplicas") == 3)
    assert traffic.failed == []
    assert {answer.version for answer in traffic.answers} == {"v1"}
    assert status["reason"] == "GoldenMismatch"
    assert penguins.found["status"]["lastFailure"]["expected"]
    assert penguins.condition("Degraded")["reason"] == "RolloutRefused"


@pytest.mark.timeout(600, func_only=True)
def test_twenty_promotions_and_rollbacks(url: str, penguins: Penguins, models: TrainedModels) -> None:
    """Ten times there and back under load: no request fails, each answer is explained, no pod is touched."""
    lives = penguins.lives()
    with watched(penguins) as documents, Traffic(url, models.rows, users=USERS) as traffic:
        for _ in range(10):
            for version in ("v2", "v1"):
                penguins.apply(version=version, wait=False)
                penguins.until_promoted(version)
                traffic.wait_for_every_client(version)
    assert traffic.failed == []
    assert documents.unexplained(traffic.answers) == []
    flips = [document.flags.production for document in documents.seen]
    changes = sum(before != after for before, after in itertools.pairwise(flips))
    assert changes == 20
    assert penguins.lives() == lives


def test_the_emergency_rollback(url: str, penguins: Penguins, models: TrainedModels) -> None:
    """After the promotion spec.version goes back with the rollout still in the file: all get the old one."""
    rollout = {"version": "v2", "percent": 100}
    with watched(penguins) as documents, Traffic(url, models.rows, users=USERS) as traffic:
        penguins.apply(rollout=rollout, wait=False)
        penguins.until_rollout("Complete")
        penguins.apply(rollout=rollout, version="v2", wait=False)
        penguins.until_promoted("v2")
        penguins.apply(rollout=rollout, version="v1", wait=False)
        penguins.until_promoted("v1")
        settled = _until_everybody_gets(traffic, "v1")
        traffic.wait_until(lambda answers: len(answers) > settled + len(USERS))
    assert traffic.failed == []
    assert documents.unexplained(traffic.answers) == []
    assert {answer.version for answer in traffic.answers[settled:]} == {"v1"}
    assert penguins.found["status"]["rollout"]["state"] == "Promoted"


@pytest.mark.timeout(900, func_only=True)
def test_the_operator_may_die_at_every_step(
    url: str, penguins: Penguins, models: TrainedModels, kubectl: Kubectl, operator: str
) -> None:
    """Killed in preparation, at each share, at the abort: users notice nothing, and nothing is lost."""
    with watched(penguins) as documents, Traffic(url, models.rows, users=USERS) as traffic:
        for spec, state, percent in (
            ({"percent": 10}, "Running", "10"),
            ({"percent": 50}, "Running", "50"),
            ({"percent": 100}, "Complete", "100"),
        ):
            penguins.apply(rollout={"version": "v2"} | spec, wait=False)
            replace_operator(kubectl, operator)
            penguins.until_rollout(state, percent=percent)
        penguins.act("abort/v2/now")
        replace_operator(kubectl, operator)
        penguins.until_rollout("Aborted")
        traffic.wait_for_every_client("v1")
    assert traffic.failed == []
    assert documents.unexplained(traffic.answers, lag=UNTOUCHED) == []


def test_the_prediction_log_counts_the_shares(url: str, penguins: Penguins, models: TrainedModels) -> None:
    """What pods have recorded shows the share, each user with one version, and why each version answered."""
    with Traffic(url, models.rows, users=USERS) as traffic:
        penguins.apply(rollout={"version": "v2", "percent": 25}, wait=False)
        penguins.until_rollout("Running", percent="25")
        settled = len(traffic.answers)
        traffic.wait_until(lambda answers: len(answers) > settled + 3 * len(USERS))
        after = {answer.user for answer in traffic.answers[settled:]}
    assert traffic.failed == []
    records = _until_recorded(penguins, len(traffic.answers))
    by_reason = {(record["version"], record["role"], record["reason"]) for record in records}
    assert by_reason <= {
        ("v1", "production", "default"),
        ("v1", "production", "fallback"),
        ("v2", "rollout", "percentage"),
    }
    rolled = {record["entity"] for record in records if record["role"] == "rollout"}
    assert after == set(USERS)
    assert 100 <= len(rolled) <= 200
    assert {answer.user for answer in traffic.answers[settled:] if answer.version == "v2"} == rolled


def _until_recorded(penguins: Penguins, count: int) -> list[dict[str, Any]]:
    """Return what pods have written on their own disks, once it is as much as was answered."""
    deadline = time.monotonic() + PATIENCE
    while True:
        names = penguins.pod_names()
        records = [record for name in names for record in _read_log(penguins, name)]
        if len(records) >= count or time.monotonic() > deadline:
            assert len(records) >= count
            return records


def _read_log(penguins: Penguins, pod: str) -> list[dict[str, Any]]:
    script = "cat /var/lib/greenroom/predictions/*.jsonl /var/lib/greenroom/predictions/*.open 2>/dev/null"
    said = penguins("exec", pod, "--container=serving", "--", "sh", "-c", f"{script}; true")
    return [json.loads(line) for line in said.splitlines() if line.endswith("}")]
