"""Predictions whose features are fetched: what clients, records, metrics and the report say of it."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import orjson
import pytest

from tests.support.bundles import CLASSIFIER_ROWS, write_classifier
from tests.support.features import KEY_START
from tests.support.plain_http import http
from tests.support.redis import RedisServer, redis_server
from tests.support.serving import ServingProcess, flags
from tests.support.upstream import FeatureService, feature_service

ROW = dict(CLASSIFIER_ROWS[0])
SENT = {"visits": 3, "country": "NO"}
FETCHED = {"age": 41.0, "income": 52000.5, "shoe_size": 44}
GENEROUS = {"timeout_seconds": 10.0}


@pytest.fixture(scope="module")
def service() -> Iterator[FeatureService]:
    """Run a feature service for these tests."""
    with feature_service() as running:
        yield running


@pytest.fixture(scope="module")
def redis() -> Iterator[RedisServer]:
    """Run a Redis for these tests."""
    with redis_server() as running:
        yield running


@pytest.fixture(scope="module")
def pod(
    tmp_path_factory: pytest.TempPathFactory, service: FeatureService, redis: RedisServer
) -> Iterator[ServingProcess]:
    """Run a pod that fetches features by user."""
    root = tmp_path_factory.mktemp("pod")
    write_classifier(root / "source", "v1")
    features = {
        "redis": {"url": redis.url, **GENEROUS},
        "compute": {"url": f"{service.url}/one/{{entity}}", **GENEROUS},
        "defaults": {"income": None},
    }
    log = {"directory": str(root / "log")}
    with ServingProcess(
        root / "run",
        source_uri=f"file://{root / 'source'}",
        namespace="ml",
        features=features,
        prediction_log=log,
        environment={"GREENROOM_FEATURES_COMPUTE_AUTHORIZATION": "Bearer hush"},
    ) as running:
        running.flags.write(flags("v1"))
        running.wait_ready("v1")
        yield running


@pytest.fixture(autouse=True)
def forget(service: FeatureService) -> None:
    """Let the service know what each test begins with, and nothing of the tests before."""
    service.asked.clear()
    service.status, service.body, service.everyone = 200, None, None
    service.features = {}


def metric(pod: ServingProcess, name: str) -> float:
    """Return the value of one series."""
    lines = http.get(f"{pod.admin_url}/metrics").text.splitlines()
    return sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith(f"{name} "))


def infer(pod: ServingProcess, rows: list[dict[str, Any]], **parameters: Any) -> httpx2.Response:
    """Ask by the Open Inference Protocol for rows of the features that were sent."""
    kinds = {"visits": "INT64", "country": "BYTES"}
    inputs = [
        {"name": name, "datatype": kinds[name], "shape": [len(rows), 1], "data": [row[name] for row in rows]}
        for name in rows[0]
    ]
    body = {"inputs": inputs, "parameters": parameters}
    return http.post(f"{pod.url}/v2/models/churn/infer", json=body)


def test_what_is_left_out_is_fetched(pod: ServingProcess, service: FeatureService) -> None:
    """The answer is that of the whole row, and says where the rest came from; sent features win."""
    service.features["ann"] = {**FETCHED, "visits": 99}
    whole = pod.predict(ROW).json()
    first, second = (pod.predict(SENT, user_id="ann") for _ in range(2))
    assert first.json()["probabilities"] == second.json()["probabilities"] == whole["probabilities"]
    assert [answer.headers["X-Feature-Source"] for answer in (first, second)] == ["compute", "memory"]
    assert service.asked == [["ann"]]
    assert service.headers_seen[-1]["Authorization"] == "Bearer hush"


def test_a_request_that_has_all_asks_nobody(pod: ServingProcess, service: FeatureService) -> None:
    """Whoever it is about."""
    answer = pod.predict(ROW, user_id="bob")
    assert (answer.status_code, answer.headers["X-Feature-Source"]) == (200, "request")
    assert service.asked == []


def test_without_an_entity_what_is_missing_is_missing(pod: ServingProcess, service: FeatureService) -> None:
    """Nobody is asked about nobody, nor about a key that is none."""
    for user in ("", "x" * 257, "a\nb"):
        refused = pod.predict(SENT, user_id=user)
        assert refused.status_code == 422
        assert {error["feature"] for error in refused.json()["errors"]} == {"age", "income"}
    assert service.asked == []


def test_who_is_not_known_lacks_what_has_no_default(pod: ServingProcess) -> None:
    """It is the client who can send it: a 422, as for any other feature that is missing."""
    refused = pod.predict(SENT, user_id="nobody")
    assert refused.status_code == 422
    assert [error["feature"] for error in refused.json()["errors"]] == ["age"]
    answer = pod.predict({**SENT, "age": 41.0}, user_id="nobody")
    assert (answer.status_code, answer.headers["X-Feature-Source"]) == (200, "default")


def test_an_entity_is_one_segment_of_the_path(pod: ServingProcess, service: FeatureService) -> None:
    """Whatever a client calls itself, no other path is asked for."""
    service.everyone = FETCHED
    service.paths.clear()
    for user in ("a/b?c#d", "../../admin", "%2e%2e", "Ærlig user"):
        assert pod.predict(SENT, user_id=user).status_code == 200
    assert service.paths == [
        "/one/a%2Fb%3Fc%23d",
        "/one/..%2F..%2Fadmin",
        "/one/%252e%252e",
        "/one/%C3%86rlig%20user",
    ]
    assert pod.predict(SENT, user_id="..").status_code == 422
    assert len(service.paths) == 4


def test_a_changed_type_is_the_services_fault(pod: ServingProcess, service: FeatureService) -> None:
    """Neither coerced nor taken for the client's: a 502 that names feature and source, and shows no value."""
    service.features["carl"] = {**FETCHED, "age": "forty-one"}
    refused = pod.predict(SENT, user_id="carl")
    problem = refused.json()
    assert (refused.status_code, problem["type"]) == (502, "urn:greenroom:problem:features-unfit")
    assert (
        "feature service has changed: 'age' is mistyped, expected float64, found string" in problem["detail"]
    )
    assert "forty-one" not in refused.text
    assert "forty-one" not in str(pod.log)


def test_no_answer_names_what_it_lacks(pod: ServingProcess, service: FeatureService) -> None:
    """A 503 with each feature and the remedy, to be tried again."""
    service.status = 500
    refused = pod.predict(SENT, user_id="dora")
    problem = refused.json()
    assert (refused.status_code, refused.headers["Retry-After"]) == (503, "1")
    assert problem["type"] == "urn:greenroom:problem:features-unavailable"
    assert "the feature service answers 500" in problem["detail"]
    assert [error["feature"] for error in problem["errors"]] == ["age", "income"]


def test_the_open_inference_protocol_fetches_as_well(
    pod: ServingProcess, service: FeatureService, redis: RedisServer
) -> None:
    """By the user of its parameters: one row, or many that lack the same."""
    service.features["eve"] = FETCHED
    one = infer(pod, [SENT], user_id="eve")
    assert (one.status_code, one.headers["X-Feature-Source"]) == (200, "compute")
    with redis.client() as client:
        pod.wait_until(lambda _: bool(client.exists(f"{KEY_START}eve")))
    many = infer(pod, [SENT, SENT], user_id="eve")
    assert (many.status_code, many.headers["X-Feature-Source"]) == (200, "redis")
    assert infer(pod, [SENT], user_id="").status_code == 422


def test_a_batch_is_fetched_by_row(pod: ServingProcess, service: FeatureService, redis: RedisServer) -> None:
    """Each row by its own user, Redis asked once; rows that need nothing, or get nothing, do not matter."""
    service.features = dict.fromkeys(("f1", "f2"), FETCHED)
    before = redis.commands("mget")
    rows = [SENT, SENT, ROW, SENT]
    body = {"rows": rows, "user_ids": ["f1", "f2", "f1", "unknown"]}
    answer = http.post(f"{pod.url}/predict/batch", json=body)
    told = answer.json()["predictions"]
    assert [row.get("feature_source") for row in told] == ["compute", "compute", None, None]
    assert [row.get("error", {}).get("status") for row in told] == [None, None, None, 422]
    assert "X-Feature-Source" not in answer.headers
    assert redis.commands("mget") == before + 1


def test_records_say_where_features_are_from_and_how_old(
    pod: ServingProcess, service: FeatureService
) -> None:
    """And hold the features as the model was given them."""
    service.features["gus"] = FETCHED
    for user, name in (("gus", "r1"), ("gus", "r2"), ("nobody", "r3")):
        http.post(
            f"{pod.url}/predict",
            json={"features": {**SENT, "age": 41.0}, "user_id": user},
            headers={"X-Request-Id": name},
        )
    records = {record["id"]: record for record in _records(pod, {"r1", "r2", "r3"})}
    assert [records[name]["feature_source"] for name in ("r1", "r2", "r3")] == [
        "compute",
        "memory",
        "default",
    ]
    assert records["r1"]["features"] == {**SENT, "age": 41.0, "income": 52000.5}
    assert records["r2"]["feature_age_seconds"] >= 0
    assert records["r3"]["feature_age_seconds"] is None


def _records(pod: ServingProcess, wanted: set[str]) -> list[dict[str, Any]]:
    def read() -> list[dict[str, Any]]:
        paths = [*(_log(pod)).glob("*.jsonl"), *(_log(pod)).glob("*.open")]
        return [orjson.loads(line) for path in paths for line in path.read_bytes().splitlines() if line]

    pod.wait_until(lambda _: wanted <= {record["id"] for record in read()})
    return read()


def _log(pod: ServingProcess) -> Path:
    return pod.models.parent.parent / "log"


def test_metrics_and_report_add_up(pod: ServingProcess, service: FeatureService) -> None:
    """Each row whose features were fetched is counted once, by where they came from."""
    before = pod.report().features
    service.features["hal"] = FETCHED
    for _ in range(3):
        pod.predict(SENT, user_id="hal")
    report = pod.report().features
    assert before is not None
    assert report is not None
    assert (report.compute, report.memory) == (before.compute + 1, before.memory + 2)
    for source in ("memory", "redis", "compute", "stale", "default"):
        assert metric(pod, f'greenroom_feature_rows_total{{source="{source}"}}') == getattr(report, source)
    assert metric(pod, "greenroom_feature_failed_total") == report.failed
    assert report.compute_state is not None
    assert report.compute_state.calls > 0
    assert metric(pod, "greenroom_feature_entities") > 0


def test_the_schema_requires_nothing_that_can_be_fetched(pod: ServingProcess) -> None:
    """Tools that are made from the document may leave features out."""
    assert http.get(f"{pod.url}/schema").json()["properties"]["features"]["required"] == []


def test_a_pod_ends_in_order_while_features_are_fetched(tmp_path: Path) -> None:
    """Neither a Redis nor a service that hangs delays the end."""
    write_classifier(tmp_path / "source", "v1")
    with redis_server() as redis, feature_service(delay_seconds=60) as service:
        features = {
            "redis": {"url": redis.url, **GENEROUS},
            "compute": {"url": f"{service.url}/one/{{entity}}", "timeout_seconds": 0.2},
        }
        uri = f"file://{tmp_path / 'source'}"
        with ServingProcess(tmp_path / "run", source_uri=uri, features=features) as pod:
            pod.flags.write(flags("v1"))
            pod.wait_ready("v1")
            assert pod.predict(SENT, user_id="u").status_code == 503
            redis.freeze()
            assert pod.stop() == 0
            redis.thaw()
        assert [line for line in pod.log if line.get("level") == "error" or "Task" in str(line)] == []


def test_a_default_of_the_wrong_type_is_told_as_such(tmp_path: Path) -> None:
    """Nobody has changed it: whoever wrote the ModelDeployment corrects it there."""
    write_classifier(tmp_path / "source", "v1")
    uri = f"file://{tmp_path / 'source'}"
    with feature_service() as service:
        features = {
            "compute": {"url": f"{service.url}/one/{{entity}}", **GENEROUS},
            "defaults": {"age": "old", "income": None},
        }
        with ServingProcess(tmp_path / "run", source_uri=uri, features=features) as pod:
            pod.flags.write(flags("v1"))
            pod.wait_ready("v1")
            refused = pod.predict(SENT, user_id="u")
            answer = pod.predict({**SENT, "age": 41.0}, user_id="u")
    problem = refused.json()
    assert (refused.status_code, problem["type"]) == (502, "urn:greenroom:problem:features-unfit")
    assert "features.defaults are not what the model takes: 'age'; correct them" in problem["detail"]
    assert (answer.status_code, answer.headers["X-Feature-Source"]) == (200, "default")


def test_layers_that_cannot_work_are_told_and_production_serves(tmp_path: Path) -> None:
    """A password in the URL, or a certificate that is none, keeps no pod from serving."""
    write_classifier(tmp_path / "source", "v1")
    features = {
        "redis": {"url": "redis://me:secret@localhost"},
        "compute": {"url": "https://features.ml/{entity}"},
        "defaults": {"age": 41.0, "income": 52000.5},
    }
    with ServingProcess(
        tmp_path / "run",
        source_uri=f"file://{tmp_path / 'source'}",
        features=features,
        environment={"GREENROOM_FEATURES_COMPUTE_CA_CERT": "no certificate"},
    ) as pod:
        pod.flags.write(flags("v1"))
        pod.wait_ready("v1")
        answer = pod.predict(SENT, user_id="u")
        assert (answer.status_code, answer.headers["X-Feature-Source"]) == (200, "default")
        report = pod.report().features
    assert report is not None
    assert report.redis_state is not None
    assert report.compute_state is not None
    assert "GREENROOM_FEATURES_REDIS_PASSWORD" in report.redis_state.error
    assert "CA_CERT is no certificate" in report.compute_state.error
    assert "secret@" not in str(pod.log)
