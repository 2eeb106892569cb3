"""The public port: predictions first, everything else through FastAPI."""

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse
from fastapi.telemetry import TelemetryConfig
from fastapi_swagger import patch_fastapi
from starlette.exceptions import HTTPException

from greenroom_runtime.api.errors import CONTENT_TYPE, ProblemError
from greenroom_runtime.api.exchange import Application, Receive, Scope, Send
from greenroom_runtime.api.open_inference.endpoint import OpenInference
from greenroom_runtime.api.predictor import Predictor
from greenroom_runtime.api.schema import describe_operations, request_schema

NO_TELEMETRY: TelemetryConfig = {"tracing": False, "metrics": False, "logs": False, "operation_spans": False}


def problem_response(problem: ProblemError) -> Response:
    """Return the problem as a response."""
    return Response(
        problem.body(),
        status_code=problem.status.value,
        media_type=CONTENT_TYPE,
        headers=dict(problem.headers),
    )


async def on_http_exception(_: Request, error: Exception) -> Response:
    """Tell FastAPI's own refusals, such as an unknown path, as problem documents."""
    if not isinstance(error, HTTPException):
        raise error
    status = HTTPStatus(error.status_code)
    return problem_response(
        ProblemError(status=status, kind="http", detail=str(error.detail), headers=error.headers or {})
    )


async def on_problem(_: Request, error: Exception) -> Response:
    """Answer with the problem that a route has raised."""
    if not isinstance(error, ProblemError):
        raise error
    return problem_response(error)


def build_public(
    endpoints: Mapping[str, Application],
    *,
    open_inference: OpenInference,
    predictor: Predictor,
    version: str,
) -> Application:
    """Return the ASGI application of the public port: what is hot by its path, all else by FastAPI."""
    app = FastAPI(
        title=f"Greenroom: {predictor.model}",
        version=version,
        telemetry=NO_TELEMETRY,
        # FastAPI's own pages load their scripts from the internet, which a cluster need not have.
        docs_url=None,
        redoc_url=None,
        swagger_ui_oauth2_redirect_url=None,
    )
    patch_fastapi(app, redirect_from_root_to_docs=False)
    app.add_exception_handler(HTTPException, on_http_exception)
    app.add_exception_handler(ProblemError, on_problem)

    @app.get("/schema", summary="JSON Schema of the request", tags=["model"])
    async def schema() -> Response:
        return JSONResponse(request_schema(predictor.find().session.bundle.signature))

    generate = app.openapi

    def openapi() -> dict[str, Any]:
        document = generate()
        production = predictor.residents.production
        operations = describe_operations(production.session.bundle.signature if production else None)
        paths = {**operations, **open_inference.operations(), **document["paths"]}
        return {**document, "paths": paths}

    app.openapi = openapi  # type: ignore[method-assign]

    async def serve(scope: Scope, receive: Receive, send: Send) -> None:
        path = scope["path"]
        endpoint = endpoints.get(path)
        if endpoint is None:
            endpoint = open_inference if open_inference.owns(path) else app
        await endpoint(scope, receive, send)

    return serve
