"""Many rows in one request: each is answered, refused, counted for itself."""

import json
from collections.abc import Iterator
from typing import Any

import httpx2
import pytest

from greenroom_runtime.contract import names
from greenroom_runtime.contract.flags import Rollout, Rule
from tests.support.bundles import CLASSIFIER_ROWS, write_classifier, write_regressor
from tests.support.plain_http import http
from tests.support.serving import ServingProcess, flags

ROWS = [dict(row) for row in CLASSIFIER_ROWS]
LIMIT = 50


@pytest.fixture(scope="module")
def pod(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServingProcess]:
    """Serve the classifier; beta users get a second edition of it."""
    root = tmp_path_factory.mktemp("batch")
    write_classifier(root / "source", "v1")
    write_classifier(root / "source", "v2")
    rules = (Rule(name="beta", attribute="user_id", values=("ann", "17")),)
    rollout = Rollout(version="v2", hundredths=0, salt="ml/churn", rules=rules)
    with ServingProcess(
        root / "pod", source_uri=(root / "source").as_uri(), limits={"batch_rows": LIMIT}
    ) as pod:
        pod.flags.write(flags("v1", "v2", rollout=rollout))
        pod.wait_settled()
        yield pod


def _batch(pod: ServingProcess, **request: Any) -> httpx2.Response:
    return http.post(pod.url + "/predict/batch", json=request)


def _predictions(pod: ServingProcess, **request: Any) -> list[dict[str, Any]]:
    response = _batch(pod, **request)
    assert response.status_code == 200, response.text
    told: list[dict[str, Any]] = response.json()["predictions"]
    return told


def test_rows_are_answered_in_order(pod: ServingProcess) -> None:
    """Each row gets what /predict would have said, at its own place."""
    rows = [ROWS[n % len(ROWS)] for n in range(30)]
    told = _predictions(pod, rows=rows)
    single = [pod.predict(row).json() for row in ROWS]
    for number, answer in enumerate(told):
        expected = single[number % len(ROWS)]
        assert answer["prediction"] == expected["prediction"]
        assert answer["probabilities"] == pytest.approx(expected["probabilities"], abs=1e-6)
        assert (answer["version"], answer["reason"]) == ("v1", "default")


def test_columns_are_the_same_rows(pod: ServingProcess) -> None:
    """A table by columns is answered like the table by rows."""
    columns = {name: [row[name] for row in ROWS] for name in ROWS[0]}
    assert _predictions(pod, columns=columns) == _predictions(pod, rows=ROWS)


def test_a_row_that_does_not_fit_is_told_at_its_place(pod: ServingProcess) -> None:
    """The others are answered all the same; the error is what /predict would have told."""
    broken = {**ROWS[1], "age": "old"}
    response = _batch(pod, rows=[ROWS[0], broken, ROWS[2]])
    document = response.json()
    assert document["errors_total"] == 1
    assert [("error" in answer) for answer in document["predictions"]] == [False, True, False]
    problem = document["predictions"][1]["error"]
    assert problem["status"] == 422
    assert problem["errors"][0]["feature"] == "age"


def test_each_row_may_have_its_own_user(pod: ServingProcess) -> None:
    """`user_ids` routes each row for itself, `user_id` all of them together."""
    told = _predictions(pod, rows=ROWS[:4], user_ids=["ann", "bob", 17, None])
    assert [answer["version"] for answer in told] == ["v2", "v1", "v2", "v1"]
    assert [answer["reason"] for answer in told] == ["rule:beta", "default", "rule:beta", "default"]
    told = _predictions(pod, rows=ROWS[:3], user_id="ann")
    assert {answer["version"] for answer in told} == {"v2"}


def test_no_rows_are_no_predictions(pod: ServingProcess) -> None:
    """An empty list is answered with an empty list."""
    assert _predictions(pod, rows=[]) == []
    assert _predictions(pod, columns={}) == []


@pytest.mark.parametrize(
    ("request_body", "status", "kind"),
    [
        ({"rows": ROWS[:1] * (LIMIT + 1)}, 413, "too-many-rows"),
        ({"columns": {"age": [1.0] * (LIMIT + 1)}}, 413, "too-many-rows"),
        ({}, 422, "request"),
        ({"rows": {}}, 422, "request"),
        ({"rows": [1]}, 422, "request"),
        ({"rows": ROWS, "columns": {}}, 422, "request"),
        ({"columns": {"age": [1.0], "income": []}}, 422, "request"),
        ({"columns": {"age": 1.0}}, 422, "request"),
        ({"rows": ROWS[:2], "user_ids": ["a"]}, 422, "request"),
        ({"rows": ROWS[:1], "user_ids": ["a"], "user_id": "a"}, 422, "request"),
        ({"rows": ROWS[:1], "user_ids": [1.5]}, 422, "request"),
        ({"rows": ROWS[:1], "user_ids": None}, 422, "request"),
        ({"rows": ROWS[:1], "context": []}, 422, "request"),
        ({"rows": ROWS[:1], "features": {}}, 422, "request"),
        ([], 422, "request"),
    ],
)
def test_malformed_batches_are_problems(
    pod: ServingProcess, request_body: object, status: int, kind: str
) -> None:
    """What is no table is refused as a whole."""
    response = http.post(pod.url + "/predict/batch", content=json.dumps(request_body))
    assert response.status_code == status, response.text
    assert response.json()["type"] == f"urn:greenroom:problem:{kind}"


def test_every_row_is_counted(pod: ServingProcess) -> None:
    """A batch of three is three predictions, refused ones included; a refused batch is one."""
    before = pod.report().requests
    _batch(pod, rows=[*ROWS[:2], {}])
    _batch(pod, rows=7)
    assert pod.report().requests == before + 4


def test_while_nothing_serves_a_batch_is_refused_as_a_whole(tmp_path_factory: pytest.TempPathFactory) -> None:
    """A 503 with Retry-After, as for a single row: clients come back by themselves."""
    root = tmp_path_factory.mktemp("nothing")
    write_classifier(root / "source", "v1")
    with ServingProcess(root / "pod", source_uri=(root / "source").as_uri()) as pod:
        response = _batch(pod, rows=ROWS[:2])
        assert response.status_code == 503
        assert "retry-after" in response.headers


def test_a_batch_does_not_hold_up_a_regressor(tmp_path_factory: pytest.TempPathFactory) -> None:
    """A regressor's rows have no probabilities, in a batch as alone."""
    root = tmp_path_factory.mktemp("regressor")
    write_regressor(root / "source", "v1")
    with ServingProcess(root / "pod", source_uri=(root / "source").as_uri()) as pod:
        pod.flags.write(flags("v1"))
        pod.wait_ready("v1")
        schema = http.get(pod.url + "/schema").json()["properties"]["features"]["properties"]
        row = {name: 1.0 if "number" in feature["type"] else False for name, feature in schema.items()}
        told = _predictions(pod, rows=[row, row])
        assert [sorted(answer) for answer in told] == [["prediction", "reason", "version"]] * 2
        assert told[0]["prediction"] == pod.predict(row).json()["prediction"]
        assert names.HEADER_FEATURE_SOURCE in _batch(pod, rows=[row]).headers
