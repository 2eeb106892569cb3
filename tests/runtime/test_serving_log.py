"""The prediction log of a whole serving process: every prediction of every protocol, once."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

from greenroom_runtime.contract import names
from greenroom_runtime.contract.flags import Rollout, Rule
from greenroom_runtime.contract.report import FailureReason
from tests.support.bundles import CLASSIFIER_ROWS, CLASSIFIER_SIGNATURE, write_classifier
from tests.support.plain_http import http
from tests.support.serving import ServingProcess, flags

ROW = dict(CLASSIFIER_ROWS[0])
SECRET_AGE = 41.03125


def _pod(tmp_path: Path, **prediction_log: Any) -> ServingProcess:
    features = tuple(
        feature.model_copy(update={"sensitive": feature.name == "age"})
        for feature in CLASSIFIER_SIGNATURE.features
    )
    signature = CLASSIFIER_SIGNATURE.model_copy(update={"features": features})
    for version in ("v1", "v2"):
        write_classifier(tmp_path / "source", version, signature=signature)
    log = {"sink": "Files", "directory": str(tmp_path / "log"), **prediction_log}
    return ServingProcess(tmp_path / "pod", source_uri=(tmp_path / "source").as_uri(), prediction_log=log)


def _begin(pod: ServingProcess) -> None:
    rules = (Rule(name="ann", attribute="user_id", values=("ann",)),)
    rollout = Rollout(version="v2", hundredths=0, salt="ml/churn", rules=rules)
    pod.flags.write(flags("v1", "v2", rollout=rollout))
    pod.wait_settled()


def _records(tmp_path: Path) -> list[dict[str, Any]]:
    segments = sorted((tmp_path / "log").rglob("*.jsonl"))
    return [json.loads(line) for segment in segments for line in segment.read_text().splitlines()]


def _ask(pod: ServingProcess) -> int:
    """Ask for predictions in every way; return how many were asked for."""
    headers = {names.HEADER_REQUEST_ID: "order-7"}
    body = {"features": {**ROW, "age": SECRET_AGE}, "user_id": "ann"}
    http.post(pod.url + "/predict", json=body, headers=headers)
    pod.predict(ROW)
    pod.predict({**ROW, "age": "secret", "unheard_of": "secret"})
    http.post(pod.url + "/predict", content=b"{")
    http.post(pod.url + "/predict/batch", json={"rows": [ROW, {}, ROW], "user_id": "bob"})
    inputs = [
        {"name": "age", "datatype": "FP64", "shape": [2], "data": [20.0, 30.0]},
        {"name": "income", "datatype": "FP64", "shape": [2], "data": [1.0, 2.0]},
        {"name": "visits", "datatype": "INT64", "shape": [2], "data": [1, 2]},
        {"name": "country", "datatype": "BYTES", "shape": [2], "data": ["NO", "SE"]},
    ]
    answer = http.post(pod.url + "/v2/models/churn/infer", json={"inputs": inputs})
    assert answer.status_code == 200, answer.text
    return 9


def test_every_prediction_is_recorded_once(tmp_path: Path) -> None:
    """Whatever way it came and however it ended, a row has one record; the accounts agree with the file."""
    with _pod(tmp_path) as pod:
        _begin(pod)
        asked = _ask(pod)
        report = pod.wait_until(
            lambda report: report.prediction_log is not None and report.prediction_log.pending == 0
        )
        assert report.prediction_log is not None
        assert (report.requests, report.prediction_log.logged) == (asked, asked)
        assert pod.stop() == 0
    records = _records(tmp_path)
    assert len(records) == len({record["id"] for record in records}) == asked
    told = Counter((record["version"], record["role"], record["status"]) for record in records)
    assert told == {
        ("v2", "rollout", 200): 1,
        ("v1", "production", 200): 5,
        ("v1", "production", 422): 2,
        ("", "", 400): 1,
    }
    first = next(record for record in records if record["id"] == "order-7")
    assert (first["reason"], first["entity"], first["features"]["income"]) == (
        "rule:ann",
        "ann",
        ROW["income"],
    )
    assert first["prediction"] in ("no", "yes")
    assert set(first["probabilities"]) == {"no", "yes"}


def test_sensitive_values_are_nowhere_on_the_disk(tmp_path: Path) -> None:
    """Neither a sensitive feature's value nor that of a feature that nobody knows is written."""
    with _pod(tmp_path) as pod:
        _begin(pod)
        _ask(pod)
        assert pod.stop() == 0
    text = "".join(path.read_text() for path in (tmp_path / "log").rglob("*.jsonl"))
    assert str(SECRET_AGE) not in text
    assert "secret" not in text
    assert "unheard_of" not in text.replace("'unheard_of'", "")


def test_production_that_has_left_the_document_keeps_its_secrets(tmp_path: Path) -> None:
    """While its successor is not Ready the old version answers, and its sensitive features stay hidden."""
    with _pod(tmp_path) as pod:
        pod.flags.write(flags("v1"))
        pod.wait_ready("v1")
        pod.flags.write(flags("v9"))
        pod.wait_failed("v9", FailureReason.NO_SUCH_VERSION)
        answer = pod.predict({**ROW, "age": SECRET_AGE})
        assert (answer.status_code, answer.json()["version"]) == (200, "v1")
        assert pod.stop() == 0
    (record,) = _records(tmp_path)
    assert record["features"]["income"] == ROW["income"]
    assert str(SECRET_AGE) not in json.dumps(record)


def test_the_record_names_the_sticky_key(tmp_path: Path) -> None:
    """Where a rollout goes by another field than `user_id`, records are about whom that field names."""
    with _pod(tmp_path) as pod:
        rollout = Rollout(version="v2", hundredths=0, salt="ml/churn", key="account")
        pod.flags.write(flags("v1", "v2", rollout=rollout))
        pod.wait_settled()
        pod.predict(ROW, user_id="ann", context={"account": 17})
        assert pod.stop() == 0
    assert [record["entity"] for record in _records(tmp_path)] == ["17"]


def test_what_is_not_sampled_is_counted(tmp_path: Path) -> None:
    """With percent 0 nothing but errors is recorded, and the accounts say so."""
    with _pod(tmp_path, percent=0) as pod:
        _begin(pod)
        asked = _ask(pod)
        log = pod.wait_until(
            lambda report: report.prediction_log is not None and report.prediction_log.pending == 0
        ).prediction_log
        assert log is not None
        assert (log.logged, log.sampled_out, log.dropped) == (3, asked - 3, 0)
        metrics = http.get(pod.admin_url + names.METRICS_PATH).text
        assert 'greenroom_predictions_sampled_out_total{role="production",version="v1"} 5.0' in metrics
        assert pod.stop() == 0
    assert {record["status"] for record in _records(tmp_path)} == {400, 422}


def test_a_log_that_cannot_be_written_harms_nobody(tmp_path: Path) -> None:
    """Predictions are answered; the report says what is wrong and counts what is lost."""
    (tmp_path / "log").write_text("a file where the directory should be")
    with _pod(tmp_path) as pod:
        _begin(pod)
        asked = _ask(pod)
        log = pod.wait_until(
            lambda report: report.prediction_log is not None and bool(report.prediction_log.error)
        ).prediction_log
        assert log is not None
        assert log.logged == 0
        assert pod.predict(ROW).status_code == 200
        assert pod.report().requests == asked + 1
        assert pod.stop() == 0
        ended = pod.wait_for_log("prediction log")
        assert (ended["dropped"], ended["pending"]) == (asked + 1, 0)


def test_a_log_whose_settings_cannot_work_harms_nobody(tmp_path: Path) -> None:
    """A process whose log can never send anything starts and answers; every record counts as dropped."""
    with _pod(tmp_path, sink="Http", uri="collector/events") as pod:
        _begin(pod)
        asked = _ask(pod)
        log = pod.report().prediction_log
        assert log is not None
        assert (log.dropped, log.pending) == (asked, 0)
        assert "use http://" in log.error
        assert pod.stop() == 0
        assert pod.wait_for_log("the prediction log is in trouble")["part"] == "settings"
