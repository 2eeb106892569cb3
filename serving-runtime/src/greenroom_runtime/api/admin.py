"""The admin port, cluster-internal: health, the report, metrics."""

from collections.abc import Callable
from http import HTTPStatus

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from greenroom_runtime.api.errors import ProblemError
from greenroom_runtime.api.exchange import Application
from greenroom_runtime.api.public import PROBLEMS
from greenroom_runtime.contract import names, report
from greenroom_runtime.metrics import Metrics
from greenroom_runtime.models.residents import Residents

_MESSAGE_LENGTHS = (2048, 512, 128, 0)


def build_admin(
    *,
    residents: Residents,
    metrics: Metrics,
    started: Callable[[], bool],
    pod: Callable[[], report.PodReport],
) -> Application:
    """Return the ASGI application of the admin port."""

    async def startup(_: Request) -> Response:
        """Pass once the flag store has been read: from here on a restart would cure nothing."""
        if not started():
            raise _unavailable("the flag store has not been read yet")
        return _fine()

    async def live(_: Request) -> Response:
        """Pass while the event loop turns."""
        return _fine()

    async def ready(_: Request) -> Response:
        """Pass while a production version answers, during the drain too: endpoints decide that, not we."""
        if residents.production is None:
            raise _unavailable(residents.waiting_for())
        return _fine()

    async def tell_report(_: Request) -> Response:
        return Response(encode_report(pod()), media_type="application/json")

    async def tell_metrics(request: Request) -> Response:
        content, content_type = metrics.exposition(request.headers.get("accept", ""))
        return Response(content, headers={"Content-Type": content_type})

    return Starlette(
        routes=[
            Route(names.STARTUP_PATH, startup),
            Route(names.LIVE_PATH, live),
            Route(names.READY_PATH, ready),
            Route(names.REPORT_PATH, tell_report),
            Route(names.METRICS_PATH, tell_metrics),
        ],
        exception_handlers=PROBLEMS,
    )


def encode_report(pod: report.PodReport) -> bytes:
    """Return the report as JSON of at most ``report.MAX_BYTES``: messages are cut first, never states."""
    encoded = b""
    for length in _MESSAGE_LENGTHS:
        versions = tuple(_shortened(version, length) for version in pod.versions)
        shortened = pod.model_copy(update={"versions": versions, "flags_error": pod.flags_error[:length]})
        encoded = shortened.model_dump_json().encode()
        if len(encoded) <= report.MAX_BYTES:
            break
    return encoded


def _shortened(version: report.VersionReport, length: int) -> report.VersionReport:
    failure = version.failure and version.failure.model_copy(
        update={
            "message": version.failure.message[:length],
            "file": version.failure.file[:length],
            "expected": version.failure.expected[:length],
            "found": version.failure.found[:length],
        }
    )
    return version.model_copy(update={"message": version.message[:length], "failure": failure})


def _fine() -> Response:
    return Response(b'{"status":"ok"}', media_type="application/json")


def _unavailable(detail: str) -> ProblemError:
    return ProblemError(status=HTTPStatus.SERVICE_UNAVAILABLE, kind="not-ready", detail=detail)
