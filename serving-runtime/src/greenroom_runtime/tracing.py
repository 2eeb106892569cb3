"""OpenTelemetry traces of predictions where an OTLP endpoint is configured; where none is, nothing is loaded.

All settings are OpenTelemetry's own environment variables
(https://opentelemetry.io/docs/specs/otel/configuration/sdk-environment-variables/), over HTTP. Unless
``OTEL_TRACES_SAMPLER`` says otherwise the caller's decision is followed, and one request in a hundred
without a caller's is traced: a span costs as much as a small model.
"""

import logging
import threading
from collections.abc import Mapping
from importlib.metadata import version as distribution_version
from typing import TYPE_CHECKING, Any

import structlog

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.trace import Span

log = structlog.get_logger(__name__)

ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
_SAMPLER = "OTEL_TRACES_SAMPLER"
_ATTRIBUTES = "OTEL_RESOURCE_ATTRIBUTES"
_DEFAULT_RATIO = 0.01
_SERVER_ERROR = 500


class Tracing:
    """Makes one span of each exchange, and sends them from a thread of its own."""

    def __init__(self, provider: "TracerProvider") -> None:
        from opentelemetry.trace import SpanKind, Status, StatusCode  # noqa: PLC0415
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator  # noqa: PLC0415

        self._provider = provider
        self._tracer = provider.get_tracer("greenroom", distribution_version("greenroom"))
        self._extract = TraceContextTextMapPropagator().extract
        self._kind = SpanKind.SERVER
        self._failed = Status(StatusCode.ERROR)

    def begin(self, scope: Mapping[str, Any], headers: Mapping[bytes, bytes]) -> "Span":
        """Begin the span of a request, as a part of its caller's trace where it has one."""
        carrier = {
            name: headers[key].decode("latin-1")
            for name, key in (("traceparent", b"traceparent"), ("tracestate", b"tracestate"))
            if key in headers
        }
        return self._tracer.start_span(
            f"{scope['method']} {scope['path']}",
            context=self._extract(carrier),
            kind=self._kind,
            attributes={"http.request.method": scope["method"], "url.path": scope["path"]},
        )

    def end(self, span: "Span", *, status: int, request_id: str, headers: list[tuple[bytes, bytes]]) -> None:
        """End it with what was answered; headers are told as the semantic conventions for HTTP say."""
        if span.is_recording():
            span.set_attribute("http.response.status_code", status)
            span.set_attribute("greenroom.request_id", request_id)
            for name, value in headers:
                span.set_attribute(f"http.response.header.{name.decode()}", [value.decode("latin-1")])
            if status >= _SERVER_ERROR:
                span.set_status(self._failed)
        span.end()

    def close(self, seconds: float) -> None:
        """Send what is left, for so long and no longer."""
        closing = threading.Thread(target=self._provider.shutdown, daemon=True)
        closing.start()
        closing.join(seconds)


def trace_id(span: "Span") -> str:
    """Return the trace's id for an exemplar: 32 hexadecimal digits, empty where the trace is not sampled."""
    context = span.get_span_context()
    return f"{context.trace_id:032x}" if context.trace_flags.sampled else ""


def open_tracing(environment: Mapping[str, str], *, model: str, pod: str) -> Tracing | None:
    """Return the tracing that the environment asks for; None where it asks for none."""
    if environment.get("OTEL_SDK_DISABLED", "").lower() == "true":
        return None
    if environment.get("OTEL_TRACES_EXPORTER", "otlp") == "none":
        return None
    if not any(environment.get(name) for name in ENDPOINTS):
        return None
    # Imported here: a second of start-up and 20 MB that only those pay who trace.
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter  # noqa: PLC0415
    from opentelemetry.sdk.resources import Resource  # noqa: PLC0415
    from opentelemetry.sdk.trace import TracerProvider  # noqa: PLC0415
    from opentelemetry.sdk.trace.export import BatchSpanProcessor  # noqa: PLC0415
    from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased  # noqa: PLC0415

    sampler = None if environment.get(_SAMPLER) else ParentBased(TraceIdRatioBased(_DEFAULT_RATIO))
    named = environment.get("OTEL_SERVICE_NAME") or "service.name=" in environment.get(_ATTRIBUTES, "")
    resource = Resource.create({"service.instance.id": pod, **({} if named else {"service.name": model})})
    provider = TracerProvider(sampler=sampler, resource=resource, shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    logging.getLogger("opentelemetry").addHandler(_OneVoice())
    logging.getLogger("opentelemetry").propagate = False
    return Tracing(provider)


class _OneVoice(logging.Handler):
    """Tell what the exporter complains of in the process's own log, each complaint once."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self._told: set[str] = set()

    def emit(self, record: logging.LogRecord) -> None:
        if record.msg not in self._told:
            self._told.add(str(record.msg))
            log.warning("traces", error=record.getMessage()[:512])
