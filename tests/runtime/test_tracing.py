"""Traces, against a real OTLP receiver."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from tests.support.bundles import CLASSIFIER_ROWS, write_classifier
from tests.support.plain_http import http
from tests.support.serving import DEADLINE_SECONDS, ServingProcess, flags

TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
SAMPLED, UNSAMPLED = f"00-{TRACE}-{PARENT}-01", f"00-{TRACE}-{PARENT}-00"


class Collector:
    """Receives OTLP over HTTP and keeps the spans."""

    def __init__(self) -> None:
        self.spans: list[Any] = []
        self.services: set[str] = set()
        self.came = threading.Event()

    def take(self, body: bytes) -> None:
        """Keep what one export brings."""
        for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
            attributes = {a.key: a.value.string_value for a in resource.resource.attributes}
            self.services.add(attributes["service.name"])
            self.spans += [span for scope in resource.scope_spans for span in scope.spans]
        self.came.set()


@contextmanager
def _collecting() -> Iterator[tuple[Collector, str]]:
    collector = Collector()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            collector.take(self.rfile.read(int(self.headers["Content-Length"])))
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield collector, f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def _pod(tmp_path: Path, endpoint: str) -> ServingProcess:
    write_classifier(tmp_path / "source", "v1")
    return ServingProcess(
        tmp_path / "pod",
        source_uri=(tmp_path / "source").as_uri(),
        environment={"OTEL_EXPORTER_OTLP_ENDPOINT": endpoint, "OTEL_BSP_SCHEDULE_DELAY": "100"},
    )


def test_a_prediction_is_a_span_of_its_callers_trace(tmp_path: Path) -> None:
    """The caller's decision to sample is followed; the span says version, reason and status."""
    with _collecting() as (collector, endpoint), _pod(tmp_path, endpoint) as pod:
        pod.flags.write(flags("v1"))
        pod.wait_ready("v1")
        for parent in (UNSAMPLED, SAMPLED):
            response = http.post(
                pod.url + "/predict",
                json={"features": CLASSIFIER_ROWS[0]},
                headers={"traceparent": parent, "X-Request-Id": "order-7"},
            )
            assert response.status_code == 200
        assert collector.came.wait(DEADLINE_SECONDS)
        assert pod.stop() == 0
        (span,) = collector.spans
        assert collector.services == {"churn"}
        assert (span.trace_id.hex(), span.parent_span_id.hex()) == (TRACE, PARENT)
        told = {attribute.key: attribute.value for attribute in span.attributes}
        assert told["http.response.status_code"].int_value == 200
        assert told["greenroom.request_id"].string_value == "order-7"
        version = told["http.response.header.x-model-version"].array_value.values
        assert [value.string_value for value in version] == ["v1"]


def test_a_dead_collector_harms_nobody(tmp_path: Path) -> None:
    """Predictions are answered, the log says once what is wrong, and the process ends as it should."""
    with _pod(tmp_path, "http://127.0.0.1:9") as pod:
        pod.flags.write(flags("v1"))
        pod.wait_ready("v1")
        for _ in range(20):
            response = http.post(
                pod.url + "/predict",
                json={"features": CLASSIFIER_ROWS[0]},
                headers={"traceparent": SAMPLED},
            )
            assert response.status_code == 200
        assert pod.wait_for_log("traces")["level"] == "warning"
        assert pod.stop() == 0


def test_without_an_endpoint_nothing_of_it_is_loaded(tmp_path: Path) -> None:
    """Who does not trace pays nothing: the library is not even imported."""
    write_classifier(tmp_path / "source", "v1")
    with ServingProcess(tmp_path / "pod", source_uri=(tmp_path / "source").as_uri()) as pod:
        pod.flags.write(flags("v1"))
        pod.wait_ready("v1")
        assert pod.predict(CLASSIFIER_ROWS[0]).status_code == 200
        mapped = Path(f"/proc/{pod.process.pid}/maps").read_text()
        assert "onnxruntime" in mapped
        assert "protobuf" not in mapped
