"""Fetched features and rollouts: who waits for what, and what counts as evidence."""

from collections.abc import Iterator
from dataclasses import replace

import pytest

from greenroom_runtime.contract.flags import Rollout
from greenroom_runtime.contract.report import VersionState
from tests.support.bundles import CLASSIFIER_ROWS, REGRESSOR_ROWS, write_classifier, write_regressor
from tests.support.serving import ServingProcess, flags
from tests.support.upstream import FeatureService, feature_service

HALF = Rollout(version="v2", hundredths=5000, salt="ml/churn", epoch="v2@1")
ROW = dict(REGRESSOR_ROWS[0])
"""All that production takes, and nothing of what the rollout takes."""


@pytest.fixture(scope="module")
def service() -> Iterator[FeatureService]:
    """Run a feature service that knows what the rollout takes."""
    with feature_service() as running:
        yield running


@pytest.fixture(scope="module")
def pod(tmp_path_factory: pytest.TempPathFactory, service: FeatureService) -> Iterator[ServingProcess]:
    """Serve a regressor, and a classifier of other features that half of the users shall have."""
    root = tmp_path_factory.mktemp("rollout")
    write_regressor(root / "source", "v1")
    write_classifier(root / "source", "v2")
    compute = {"url": f"{service.url}/one/{{entity}}", "timeout_seconds": 10.0, "max_attempts": 1}
    uri = (root / "source").as_uri()
    with ServingProcess(root / "pod", source_uri=uri, features={"compute": compute}) as running:
        yield running


def begin(pod: ServingProcess, epoch: str) -> None:
    """Roll out, and wait until the pod holds the version."""
    pod.flags.write(flags("v1", "v2", rollout=replace(HALF, epoch=epoch)))
    pod.wait_state("v2", VersionState.READY)
    pod.wait_until(lambda report: report.evidence is not None and report.evidence.epoch == epoch)


def ask(pod: ServingProcess, start: int) -> dict[str, str]:
    """Ask for forty users; return who was answered by which version, and why."""
    answers = {
        f"user-{number}": pod.predict(ROW, user_id=f"user-{number}") for number in range(start, start + 40)
    }
    assert {answer.status_code for answer in answers.values()} == {200}
    return {user: answer.headers["X-Version-Reason"] for user, answer in answers.items()}


def test_only_users_of_the_rollout_wait_for_its_features(
    pod: ServingProcess, service: FeatureService
) -> None:
    """They are answered by it; production's users, who have all that it takes, count as comparable."""
    service.everyone = CLASSIFIER_ROWS[0]
    begin(pod, "v2@well")
    reasons = ask(pod, 0)
    rolled_out = sorted(user for user, reason in reasons.items() if reason == "percentage")
    assert sorted(user for (user,) in service.asked) == rolled_out
    assert set(reasons.values()) == {"percentage", "default"}
    evidence = pod.report().evidence
    assert evidence is not None
    assert (evidence.rollout.requests, evidence.production.requests) == (
        len(rolled_out),
        40 - len(rolled_out),
    )


def test_fetched_features_that_do_not_fit_the_rollout_give_way(
    pod: ServingProcess, service: FeatureService
) -> None:
    """Production takes none of them: that they have changed is no reason to refuse anybody."""
    service.everyone = {**CLASSIFIER_ROWS[0], "age": "old"}
    service.asked.clear()
    begin(pod, "v2@changed")
    reasons = ask(pod, 2000)
    assert set(reasons.values()) == {"fallback", "default"}
    assert len(service.asked) == list(reasons.values()).count("fallback")


def test_a_rollout_without_its_features_gives_way(pod: ServingProcess, service: FeatureService) -> None:
    """Where nobody has them production answers, and nothing of the rollout's is counted as its fault."""
    service.status = 500
    begin(pod, "v2@away")
    assert set(ask(pod, 1000).values()) == {"fallback", "default"}
    evidence = pod.report().evidence
    assert evidence is not None
    assert (evidence.rollout.requests, evidence.rollout.errors, evidence.production.errors) == (0, 0, 0)
