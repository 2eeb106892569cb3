"""Users of a rollout: who gets which version, over real HTTP, and what happens when theirs cannot answer."""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest

from greenroom_runtime.contract import names
from greenroom_runtime.contract.flags import Rollout, Rule
from greenroom_runtime.contract.report import VersionState
from greenroom_runtime.routing.router import compile_router
from tests.support.bundles import CLASSIFIER_ROWS, write_classifier, write_regressor
from tests.support.plain_http import http
from tests.support.serving import FlagMount, ServingProcess, flags

ROW = dict(CLASSIFIER_ROWS[0])
RULES = (
    Rule(name="beta", attribute="cohorts", values=("beta",)),
    Rule(name="nordics", attribute="country", values=("NO", "SE")),
)


def _rollout(version: str = "v2", *, hundredths: int = 3000, **changes: Any) -> Rollout:
    return Rollout(version=version, hundredths=hundredths, salt="ml/churn", rules=RULES, **changes)


@pytest.fixture(scope="module")
def pod(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServingProcess]:
    """Serve v1 to most, v2 to 30 % and to those whom rules choose; v3 takes other features."""
    root = tmp_path_factory.mktemp("rollout")
    for version in ("v1", "v2"):
        write_classifier(root / "source", version)
    write_regressor(root / "source", "v3")
    with ServingProcess(root / "pod", source_uri=(root / "source").as_uri()) as pod:
        pod.flags.write(flags("v1", "v2", rollout=_rollout()))
        pod.wait_settled()
        yield pod


def _answered(response: httpx2.Response) -> tuple[str, str]:
    assert response.status_code == 200, response.text
    assert response.json()["version"] == response.headers[names.HEADER_VERSION]
    return response.headers[names.HEADER_VERSION], response.headers[names.HEADER_REASON]


def test_users_get_what_the_document_says(pod: ServingProcess) -> None:
    """Each of two hundred users is answered by the version that the flag document chooses, time and again."""
    router = compile_router(flags("v1", "v2", rollout=_rollout()))
    shares: Counter[str] = Counter()
    for number in range(200):
        decision = router.choose(f"user-{number}", {})
        told = {_answered(pod.predict(ROW, user_id=f"user-{number}")) for _ in range(2)}
        assert told == {(decision.version, decision.reason)}
        shares[decision.version] += 1
    assert 40 <= shares["v2"] <= 80


@pytest.mark.parametrize(
    ("request_parts", "expected"),
    [
        ({}, ("v1", "default")),
        ({"context": {"cohorts": ["alpha", "beta"]}}, ("v2", "rule:beta")),
        ({"context": {"country": "SE"}, "user_id": "u"}, ("v2", "rule:nordics")),
        ({"context": {"country": "DE"}}, ("v1", "default")),
        ({"context": {"country": {"code": "SE"}}}, ("v1", "default")),
    ],
)
def test_rules_come_before_the_percentage(
    pod: ServingProcess, request_parts: dict[str, Any], expected: tuple[str, str]
) -> None:
    """A rule's users get the version whatever their bucket; without a key and a rule it is production."""
    assert _answered(pod.predict(ROW, **request_parts)) == expected


def test_production_answers_for_a_rollout_that_is_not_there(tmp_path: Path) -> None:
    """While the rollout's version has failed or misses a feature its users get production, counted."""
    source = tmp_path / "source"
    write_classifier(source, "v1")
    write_regressor(source, "v3")
    everyone = [Rule(name="all", attribute="user_id", values=("ann",))]
    with ServingProcess(tmp_path / "pod", source_uri=source.as_uri()) as pod:
        _begin(pod.flags, "v4", everyone)
        pod.wait_state("v4", VersionState.FAILED)
        assert _answered(pod.predict(ROW, user_id="ann")) == ("v1", "fallback")
        _begin(pod.flags, "v3", everyone)
        pod.wait_state("v3", VersionState.READY)
        assert _answered(pod.predict(ROW, user_id="ann")) == ("v1", "fallback")
        report = pod.report()
        assert (report.requests, report.errors, report.fallbacks) == (2, 0, 2)
        refused = pod.predict({}, user_id="ann")
        assert refused.status_code == 422  # what production lacks is an error of the request
        assert {error["feature"] for error in refused.json()["errors"]} == set(ROW)
        assert pod.report().fallbacks == 2


def _begin(mount: FlagMount, version: str, rules: list[Rule]) -> None:
    rollout = Rollout(version=version, hundredths=0, salt="ml/churn", rules=tuple(rules))
    mount.write(flags("v1", version, rollout=rollout))


def test_metrics_tell_roles_apart(pod: ServingProcess) -> None:
    """Requests are counted by version and role, and a traced one is an exemplar for OpenMetrics."""
    trace = "4bf92f3577b34da6a3ce929d0e0e4736"
    body = {"features": ROW, "context": {"country": "NO"}}
    http.post(pod.url + "/predict", json=body, headers={"traceparent": f"00-{trace}-00f067aa0ba902b7-01"})
    plain = http.get(pod.admin_url + names.METRICS_PATH)
    assert 'greenroom_requests_total{code="200",role="rollout",version="v2"}' in plain.text
    assert trace not in plain.text
    accept = {"Accept": "application/openmetrics-text; version=1.0.0"}
    rich = http.get(pod.admin_url + names.METRICS_PATH, headers=accept)
    assert rich.headers["content-type"].startswith("application/openmetrics-text")
    assert f'trace_id="{trace}"' in rich.text
    assert rich.text.endswith("# EOF\n")
