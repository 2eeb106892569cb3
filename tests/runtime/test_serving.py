"""A serving process from start to end."""

import signal
import socket
import subprocess
import sys
from pathlib import Path

import httpx2
import orjson
import pytest

from greenroom_runtime.contract import names
from greenroom_runtime.contract.config import RuntimeConfig
from greenroom_runtime.contract.report import FailureReason, VersionState
from tests.support.bundles import (
    CLASSIFIER_ROWS,
    REGRESSOR_ROWS,
    bundle_digest,
    classify,
    regress,
    write_classifier,
    write_regressor,
)
from tests.support.plain_http import http
from tests.support.serving import DEADLINE_SECONDS, ServingProcess, flags


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Publish two versions that answer differently."""
    directory = tmp_path / "source"
    write_classifier(directory, "v1")
    write_classifier(directory, "v2", bias=-9.0)
    return directory


def test_serves_the_training_pipelines_answers(source: Path, tmp_path: Path) -> None:
    """Each row gets the label and the probabilities that the training pipeline itself gives."""
    with ServingProcess(tmp_path / "pod", source_uri=source.as_uri()) as pod:
        pod.flags.write(flags("v1"))
        pod.wait_ready("v1")
        for row in CLASSIFIER_ROWS:
            response = pod.predict(row, user_id="u1", context={"country": "NO"})
            label, (no, yes) = classify(row, 0.0)
            assert response.status_code == 200, response.text
            assert response.json()["prediction"] == label
            assert response.json()["probabilities"] == pytest.approx({"no": no, "yes": yes}, abs=1e-6)
            assert response.json()["model"] == "churn"
            assert response.json()["version"] == response.headers[names.HEADER_VERSION] == "v1"
            assert response.json()["request_id"] == response.headers[names.HEADER_REQUEST_ID]
            assert response.headers[names.HEADER_REASON] == "default"


def test_serves_a_regressor(tmp_path: Path) -> None:
    """A regressor answers with a number and without probabilities."""
    write_regressor(tmp_path / "source", "v1", bias=0.5)
    with ServingProcess(tmp_path / "pod", source_uri=(tmp_path / "source").as_uri()) as pod:
        pod.flags.write(flags("v1"))
        pod.wait_ready("v1")
        for row in REGRESSOR_ROWS:
            answer = pod.predict(row).json()
            assert answer["prediction"] == pytest.approx(regress(row, 0.5))
            assert "probabilities" not in answer


def test_probes_tell_starting_from_ready(source: Path, tmp_path: Path) -> None:
    """Without a flag document the pod is alive and started, but not ready, and says what it waits for."""
    with ServingProcess(tmp_path / "pod", source_uri=source.as_uri()) as pod:
        assert http.get(pod.admin_url + names.LIVE_PATH).status_code == 200
        pod.wait_until(lambda report: report.flags_error != "")
        assert http.get(pod.admin_url + names.STARTUP_PATH).status_code == 200
        ready = http.get(pod.admin_url + names.READY_PATH)
        refused = pod.predict(CLASSIFIER_ROWS[0])
        assert ready.status_code == refused.status_code == 503
        assert "no valid flag document" in ready.json()["detail"]
        assert refused.headers["content-type"] == "application/problem+json"
        assert "Retry-After" in refused.headers
        pod.flags.write(flags("v1"))
        pod.wait_ready("v1")
        assert http.get(pod.admin_url + names.READY_PATH).status_code == 200


def test_report_says_what_the_operator_needs(source: Path, tmp_path: Path) -> None:
    """The report names pod, revision, states, digests and golden results, and counts requests."""
    document = flags("v1", "v2")
    with ServingProcess(tmp_path / "pod", source_uri=source.as_uri(), pod="churn-abc") as pod:
        pod.flags.write(document)
        report = pod.wait_settled()
        assert (report.pod, report.model) == ("churn-abc", "churn")
        assert report.revision == document.revision
        assert [version.name for version in report.versions] == ["v1", "v2"]
        for version in report.versions:
            assert version.state is VersionState.READY
            assert version.digest == bundle_digest(source / version.name)
            assert version.golden == "Passed"
            assert version.memory_bytes > 0
        pod.predict(CLASSIFIER_ROWS[0])
        pod.predict({})
        assert (pod.report().requests, pod.report().errors) == (2, 0)


def test_flip_moves_the_alias_in_memory_and_on_disk(source: Path, tmp_path: Path) -> None:
    """A flip changes answers, both symlinks and the revision, in the same process; a flip back too."""
    with ServingProcess(tmp_path / "pod", source_uri=source.as_uri()) as pod:
        pod.flags.write(flags("v1", "v2"))
        pod.wait_settled()
        for production, previous in (("v2", "v1"), ("v1", "v2")):
            document = flags(production, previous, previous=previous)
            pod.flags.write(document)
            report = pod.wait_until(lambda report, want=document.revision: report.revision == want)  # type: ignore[misc]
            assert report.production == production
            assert pod.predict(CLASSIFIER_ROWS[0]).json()["version"] == production
            pod.wait_until(lambda _, want=production: (pod.models / "production").readlink() == Path(want))  # type: ignore[misc]
            pod.wait_until(lambda _, want=previous: (pod.models / "previous").readlink() == Path(want))  # type: ignore[misc]


def test_versions_that_leave_are_removed(source: Path, tmp_path: Path) -> None:
    """A version that is no longer resident leaves the report and the disk; production stays."""
    with ServingProcess(tmp_path / "pod", source_uri=source.as_uri()) as pod:
        pod.flags.write(flags("v1", "v2"))
        pod.wait_settled()
        pod.flags.write(flags("v1"))
        pod.wait_until(lambda report: [version.name for version in report.versions] == ["v1"])
        pod.wait_until(lambda _: not (pod.models / "v2").exists())
        assert (pod.models / "v1").is_dir()


def test_metrics_count_requests_by_version_and_code(source: Path, tmp_path: Path) -> None:
    """Prometheus sees requests, states, the revision and swaps."""
    document = flags("v1")
    with ServingProcess(tmp_path / "pod", source_uri=source.as_uri()) as pod:
        pod.flags.write(document)
        pod.wait_ready("v1")
        pod.predict(CLASSIFIER_ROWS[0])
        pod.predict({})
        text = http.get(pod.admin_url + names.METRICS_PATH).text
        assert 'greenroom_requests_total{code="200",role="production",version="v1"} 1.0' in text
        assert 'greenroom_requests_total{code="422",role="production",version="v1"} 1.0' in text
        assert 'greenroom_version_state{state="Ready",version="v1"} 1.0' in text
        assert f'greenroom_flags_info{{revision="{document.revision}"}} 1.0' in text
        assert "greenroom_swaps_total 1.0" in text


def test_first_pod_prepares_alone(source: Path, tmp_path: Path) -> None:
    """A version that another pod tries first stays Pending here; production does not wait for anybody."""
    with ServingProcess(tmp_path / "pod", source_uri=source.as_uri(), pod="second") as pod:
        pod.flags.write(flags("v1", "v2", first="first"))
        report = pod.wait_ready("v1")
        waiting = report.version("v2")
        assert waiting is not None
        assert (waiting.state, waiting.message) == (VersionState.PENDING, "pod first prepares it first")
        pod.flags.write(flags("v1", "v2", first=""))
        pod.wait_settled()


def test_sigterm_drains_and_exits_with_zero(source: Path, tmp_path: Path) -> None:
    """After SIGTERM the pod stays ready and answers with Connection: close, then exits 0."""
    with ServingProcess(tmp_path / "pod", source_uri=source.as_uri(), drain_seconds=6.0) as pod:
        pod.flags.write(flags("v1"))
        pod.wait_ready("v1")
        with httpx2.Client() as client:
            request = {"features": CLASSIFIER_ROWS[0]}
            assert "connection" not in client.post(pod.url + "/predict", json=request).headers
            pod.process.send_signal(signal.SIGTERM)
            pod.wait_until(lambda report: report.draining)
            answer = client.post(pod.url + "/predict", json=request)
            assert (answer.status_code, answer.headers["connection"]) == (200, "close")
            assert http.get(pod.admin_url + names.READY_PATH).status_code == 200
            assert http.get(pod.url + "/schema").headers["connection"] == "close"
        assert pod.process.wait(DEADLINE_SECONDS) == 0


def test_a_request_that_is_under_way_at_sigterm_is_finished(source: Path, tmp_path: Path) -> None:
    """A request half sent when SIGTERM comes is answered, even with no drain time at all."""
    body = orjson.dumps({"features": CLASSIFIER_ROWS[0]})
    head = f"POST /predict HTTP/1.1\r\nHost: pod\r\nContent-Length: {len(body)}\r\n\r\n".encode()
    with ServingProcess(tmp_path / "pod", source_uri=source.as_uri()) as pod:
        pod.flags.write(flags("v1"))
        pod.wait_ready("v1")
        url = httpx2.URL(pod.url)
        with socket.create_connection((url.host, url.port or 0), timeout=DEADLINE_SECONDS) as client:
            client.sendall(head + body[:10])
            pod.process.send_signal(signal.SIGTERM)
            pod.wait_for_log("draining")
            client.sendall(body[10:])
            answer = b""
            while chunk := client.recv(65536):
                answer += chunk
        assert answer.startswith(b"HTTP/1.1 200 OK")
        assert b"connection: close" in answer
        assert pod.process.wait(DEADLINE_SECONDS) == 0


def test_a_configuration_that_cannot_work_is_told(tmp_path: Path) -> None:
    """An overlapping store, an unknown scheme and a newer schema each end at once with a reason."""
    good = RuntimeConfig(name="churn", source_uri=tmp_path.as_uri(), models_dir=str(tmp_path / "models"))
    bad = {
        "overlap": good,
        "no source": good.model_copy(update={"source_uri": "ftp://models"}),
        "schema version 99": good.model_copy(update={"schema_version": 99}),
    }
    for expected, config in bad.items():
        path = tmp_path / "config.json"
        path.write_text(config.to_json())
        ended = subprocess.run(
            [sys.executable, "-m", "greenroom_runtime", "--config", str(path)],
            capture_output=True,
            text=True,
            timeout=DEADLINE_SECONDS,
            check=False,
        )
        assert ended.returncode == 2
        assert expected in ended.stdout


def test_one_store_belongs_to_one_process(source: Path, tmp_path: Path) -> None:
    """A second process on the same models_dir ends with the remedy, and the first goes on."""
    with ServingProcess(tmp_path / "pod", source_uri=source.as_uri()) as pod:
        pod.flags.write(flags("v1"))
        pod.wait_ready("v1")
        ended = subprocess.run(
            [
                sys.executable,
                "-m",
                "greenroom_runtime",
                "--config",
                str(tmp_path / "pod" / names.CONFIG_FILE),
            ],
            capture_output=True,
            text=True,
            timeout=DEADLINE_SECONDS,
            check=False,
        )
        assert (ended.returncode, "in use by another" in ended.stdout) == (2, True)
        assert pod.predict(CLASSIFIER_ROWS[0]).status_code == 200


def test_restart_serves_from_its_own_disk(source: Path, tmp_path: Path) -> None:
    """A container that is started again verifies and serves what it has stored, with the source gone."""
    for attempt in range(2):
        with ServingProcess(tmp_path / "pod", source_uri=source.as_uri()) as pod:
            pod.flags.write(flags("v1"))
            pod.wait_ready("v1")
            assert pod.stop() == 0
        if attempt == 0:
            source.rename(tmp_path / "gone")


def test_restart_mends_a_damaged_store(source: Path, tmp_path: Path) -> None:
    """A stored file that has changed on disk is fetched again, never served."""
    with ServingProcess(tmp_path / "pod", source_uri=source.as_uri()) as pod:
        pod.flags.write(flags("v1"))
        pod.wait_ready("v1")
        pod.stop()
    stored = tmp_path / "pod" / "models" / "v1" / "model.onnx"
    stored.write_bytes(stored.read_bytes()[:-7])
    with ServingProcess(tmp_path / "pod", source_uri=source.as_uri()) as pod:
        pod.wait_ready("v1")
        assert stored.read_bytes() == (source / "v1" / "model.onnx").read_bytes()


def test_a_version_that_killed_the_process_is_not_loaded_again(source: Path, tmp_path: Path) -> None:
    """A loading marker that outlived a crash makes the version Failed(Crashed); production serves."""
    marker = tmp_path / "pod" / "models" / ".loading-v2"
    marker.parent.mkdir(parents=True)
    marker.write_text("1")
    with ServingProcess(tmp_path / "pod", source_uri=source.as_uri()) as pod:
        pod.flags.write(flags("v1", "v2"))
        pod.wait_ready("v1")
        pod.wait_failed("v2", FailureReason.CRASHED)
        pod.flags.write(flags("v1"))
        pod.wait_until(lambda report: report.version("v2") is None)
        pod.flags.write(flags("v1", "v2"))
        pod.wait_state("v2", VersionState.READY)


def test_a_production_version_that_killed_the_process_is_tried_again(source: Path, tmp_path: Path) -> None:
    """Without its production version the pod is of no use, so a crash of it is tried again."""
    marker = tmp_path / "pod" / "models" / ".loading-v1"
    marker.parent.mkdir(parents=True)
    marker.write_text("1")
    with ServingProcess(tmp_path / "pod", source_uri=source.as_uri()) as pod:
        pod.flags.write(flags("v1"))
        pod.wait_ready("v1")
        assert not marker.exists()
