"""The public port: predictions by their path, and by Starlette what people look at."""

from collections.abc import Mapping
from html import escape
from http import HTTPStatus
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from greenroom_runtime.api.errors import CONTENT_TYPE, ProblemError, defect
from greenroom_runtime.api.exchange import Application, Receive, Scope, Send
from greenroom_runtime.api.open_inference.endpoint import OpenInference
from greenroom_runtime.api.predictor import Predictor
from greenroom_runtime.api.schema import describe_operations, request_schema

_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<link rel="icon" href="swagger/favicon-32x32.png">
<link rel="stylesheet" href="swagger/swagger-ui.css">
</head>
<body>
<div id="page"></div>
<script src="swagger/swagger-ui-bundle.js"></script>
<script>SwaggerUIBundle({{url: "openapi.json", dom_id: "#page", tryItOutEnabled: true}})</script>
</body>
</html>
"""


def problem_response(problem: ProblemError) -> Response:
    """Return the problem as a response."""
    return Response(
        problem.body(),
        status_code=problem.status.value,
        media_type=CONTENT_TYPE,
        headers=dict(problem.headers),
    )


async def on_http_exception(_: Request, error: Exception) -> Response:
    """Tell Starlette's own refusals, such as an unknown path, as problem documents."""
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


async def on_defect(_: Request, __: Exception) -> Response:
    """Answer although a route has failed; Starlette raises the error once more, for the log."""
    return problem_response(defect())


PROBLEMS: Mapping[Any, Any] = {
    HTTPException: on_http_exception,
    ProblemError: on_problem,
    Exception: on_defect,
}
"""Exception handlers: every refusal is a problem document."""


def build_public(
    endpoints: Mapping[str, Application],
    *,
    open_inference: OpenInference,
    predictor: Predictor,
    version: str,
) -> Application:
    """Return the ASGI application of the public port."""
    title = f"Greenroom: {predictor.model}"
    fetched = predictor.features is not None

    async def schema(_: Request) -> Response:
        return JSONResponse(request_schema(predictor.find().session.bundle.signature, fetched=fetched))

    async def openapi(_: Request) -> Response:
        production = predictor.residents.production
        operations = describe_operations(
            production.session.bundle.signature if production else None, fetched=fetched
        )
        paths = {**operations, **open_inference.operations(), "/schema": _SCHEMA_OPERATION}
        info = {"title": title, "version": version}
        return JSONResponse({"openapi": "3.1.0", "info": info, "paths": paths})

    async def docs(_: Request) -> Response:
        return HTMLResponse(_PAGE.format(title=escape(title)))

    app = Starlette(
        routes=[
            Route("/schema", schema),
            Route("/openapi.json", openapi),
            Route("/docs", docs),
            Mount("/swagger", StaticFiles(directory=_swagger_directory())),
        ],
        exception_handlers=PROBLEMS,
    )

    async def serve(scope: Scope, receive: Receive, send: Send) -> None:
        path = scope["path"]
        endpoint = endpoints.get(path)
        if endpoint is None:
            endpoint = open_inference if open_inference.owns(path) else app
        await endpoint(scope, receive, send)

    return serve


_SCHEMA_OPERATION: dict[str, Any] = {
    "get": {
        "tags": ["model"],
        "summary": "JSON Schema of the request",
        "operationId": "schema",
        "responses": {
            "200": {"description": "The schema.", "content": {"application/json": {"schema": {}}}},
            "503": {
                "description": "No version serves yet; the problem says why.",
                "content": {CONTENT_TYPE: {"schema": {"type": "object"}}},
            },
        },
    }
}


def _swagger_directory() -> Path:
    """Return where Swagger UI's files are: a cluster without internet has a page, too.

    The package that brings them is found and not imported: it would load a whole framework.
    """
    spec = find_spec("fastapi_swagger")
    if spec is None or spec.origin is None:
        message = "fastapi-swagger is not installed"
        raise ModuleNotFoundError(message)
    return Path(spec.origin).parent / "resources"
