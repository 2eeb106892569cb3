"""Everything under ``/v2``: the Open Inference Protocol over REST, as one bare ASGI callable."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from http import HTTPStatus
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

import orjson

from greenroom_runtime.api.errors import ProblemError
from greenroom_runtime.api.exchange import Admission, Endpoint, Receive, Reply, Request, Scope, Send
from greenroom_runtime.api.open_inference.answer import encode_answers
from greenroom_runtime.api.open_inference.compression import ENCODINGS, inflate
from greenroom_runtime.api.open_inference.describe import describe_operations, model_metadata
from greenroom_runtime.api.open_inference.layout import PROBABILITIES, Layout, layout_of
from greenroom_runtime.api.open_inference.request import InferenceRequest, read_request
from greenroom_runtime.api.predict import answer_headers, feature_source_headers
from greenroom_runtime.api.predictor import REFUSED_WITH_OTHERS, Answer, Asked, Predictor, unfit
from greenroom_runtime.models.door import Finding, describe
from greenroom_runtime.models.residents import LoadedVersion
from greenroom_runtime.tracing import Tracing

PREFIX = "/v2"
EXTENSIONS = ("binary_tensor_data",)
_LENGTH_HEADER = b"inference-header-content-length"
_JSON = b"application/json"
_BINARY = b"application/octet-stream"
_LARGE_BYTES = 64 * 1024
"""Bodies from this size on are read in a thread: others must not wait for them."""
_MAX_ERRORS = 1000
_SHOWN_ERRORS = 8


class _Address(NamedTuple):
    """Where a path leads below the model."""

    version: str
    """Empty for whichever the flag store chooses."""
    action: str
    """``infer``, ``ready``, or empty for the metadata."""


class OpenInference:
    """Answers the paths of the protocol. What others would tell in a problem, it tells as ``error`` too."""

    def __init__(
        self, *, predictor: Predictor, admission: Admission, version: str, tracing: Tracing | None = None
    ) -> None:
        """Serve with this predictor; ``version`` is the server's own."""
        self._predictor = predictor
        self._limits = admission.limits
        self._version = version
        self._layouts: WeakKeyDictionary[LoadedVersion, Layout] = WeakKeyDictionary()
        self._infer = Endpoint(
            answer=self._answer,
            admission=admission,
            refusals=predictor,
            spell=spell,
            problem_type=_JSON,
            encodings=ENCODINGS,
            tracing=tracing,
        )

    @staticmethod
    def owns(path: str) -> bool:
        """Tell whether a path is one of the protocol's, whether anything is there or not."""
        return path.startswith("/v2/") or path == PREFIX

    def operations(self) -> dict[str, Any]:
        """Return the OpenAPI path items, with the features of the version that serves now."""
        production = self._predictor.residents.production
        layout = self._layout(production) if production else None
        return describe_operations(self._predictor.model, layout)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["path"].endswith("/infer"):
            await self._infer(scope, receive, send)
            return
        status, headers = HTTPStatus.OK, []
        try:
            if scope["method"] != "GET":
                raise _not_allowed(scope["path"])
            body = orjson.dumps(self._tell(scope["path"]))
        except ProblemError as problem:
            status, body = problem.status, spell(problem, "")
            headers = [(name.lower().encode(), value.encode()) for name, value in problem.headers.items()]
        headers = [(b"content-type", _JSON), (b"content-length", b"%d" % len(body)), *headers]
        await send({"type": "http.response.start", "status": status.value, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    def _tell(self, path: str) -> Mapping[str, Any]:
        """Return what a GET asks for."""
        if path == PREFIX:
            return {"name": "greenroom", "version": self._version, "extensions": EXTENSIONS}
        if path == f"{PREFIX}/health/live":
            return {"live": True}
        if path == f"{PREFIX}/health/ready":
            self._find_ready("")
            return {"ready": True}
        address = self._address(path)
        if address.action == "ready":
            self._find_ready(address.version)
            return {"name": self._predictor.model, "ready": True}
        loaded = self._predictor.find(address.version)
        routable = self._predictor.routable
        return model_metadata(self._predictor.model, self._layout(loaded), versions=sorted(routable))

    def _find_ready(self, version: str) -> None:
        try:
            self._predictor.find(version)
        except ProblemError as problem:
            raise replace(problem, extra={**problem.extra, "ready": False}) from problem

    def _address(self, path: str) -> _Address:
        parts = path.split("/")[2:]
        if len(parts) >= 2 and parts[0] == "models":  # noqa: PLR2004 and its name
            model, rest = parts[1], parts[2:]
            if model != self._predictor.model:
                detail = f"there is no model {model[:64]!r} here, only {self._predictor.model!r}"
                raise ProblemError(status=HTTPStatus.NOT_FOUND, kind="no-such-model", detail=detail)
            version = ""
            if rest[:1] == ["versions"] and len(rest) > 1 and rest[1]:
                version, rest = rest[1], rest[2:]
            if rest in ([], ["ready"], ["infer"]):
                return _Address(version, rest[0] if rest else "")
        detail = f"nothing is at {path[:256]!r}: see /openapi.json"
        raise ProblemError(status=HTTPStatus.NOT_FOUND, kind="http", detail=detail)

    async def _answer(self, request: Request) -> Reply:
        """Answer an inference request."""
        address = self._address(request.path)
        loaded = self._predictor.find(address.version)
        read = partial(self._read, request, self._layout(loaded))
        small = len(request.body) < _LARGE_BYTES and b"content-encoding" not in request.headers
        asked = read() if small else await asyncio.to_thread(read)
        if asked.unknown:
            raise self._unknown(asked, loaded)
        answers = await self._answers(request, asked, version=address.version)
        body, head = encode_answers(
            answers,
            request=asked,
            layout=self._layout(answers[0].version),
            model=self._predictor.model,
            request_id=request.id,
        )
        headers = answer_headers(answers[0])
        if len(answers) > 1:
            headers[-1:] = feature_source_headers(answers)
        if head is None:
            return Reply(body, headers)
        return Reply(body, [*headers, (_LENGTH_HEADER, b"%d" % head)], _BINARY)

    def _read(self, request: Request, layout: Layout) -> InferenceRequest:
        encoding = request.headers.get(b"content-encoding", b"identity")
        return read_request(
            inflate(request.body, encoding=encoding, limit=self._limits.body_bytes),
            header_length=request.headers.get(_LENGTH_HEADER),
            layout=layout,
            known=self._predictor.residents.serving.known_features,
            max_rows=self._limits.batch_rows,
        )

    async def _answers(self, request: Request, asked: InferenceRequest, *, version: str) -> Sequence[Answer]:
        """Return an answer for each row, all by one version; ProblemError where any row has none."""
        user, context, trace = asked.user_id, asked.context, request.trace_id
        size = asked.size // max(1, len(asked.rows))
        wants = any(output.name == PROBABILITIES for output in asked.outputs)
        if len(asked.rows) == 1:
            one = Asked(request.id, request.started, user, context, version, trace, size, wants)
            return (await self._predictor.answer_row(one, asked.rows[0]),)
        many = [
            Asked(f"{request.id}/{number}", request.started, user, context, version, trace, size, wants)
            for number in range(len(asked.rows))
        ]
        outcomes = await self._predictor.answer_rows(many, asked.rows, together=True)
        answers = [outcome for outcome in outcomes if isinstance(outcome, Answer)]
        if len(answers) < len(outcomes):
            raise _of_rows(outcomes)
        return answers

    def _unknown(self, asked: InferenceRequest, loaded: LoadedVersion) -> ProblemError:
        """Return the refusal of inputs that nobody knows, with what else is wrong in the first row."""
        row = asked.rows[0] if asked.rows else {}
        findings = loaded.session.door.findings(row, known=self._predictor.residents.serving.known_features)
        return unfit([*findings, *(Finding(feature=name, problem="unexpected") for name in asked.unknown)])

    def _layout(self, loaded: LoadedVersion) -> Layout:
        layout = self._layouts.get(loaded)
        if layout is None:
            session = loaded.session
            layout = layout_of(session.bundle.signature, output_types=session.output_types)
            self._layouts[loaded] = layout
        return layout


def spell(problem: ProblemError, request_id: str) -> bytes:
    """Return the problem document with the protocol's own member ``error``, all that some clients show."""
    document = problem.document()
    errors = [error for error in document.get("errors", ()) if "feature" in error]
    findings = [
        Finding(**{name: value for name, value in error.items() if name != "row"})
        for error in errors[:_SHOWN_ERRORS]
        if error.get("row") == errors[0].get("row")
    ]
    document["error"] = f"{problem.detail}. {describe(findings)}" if findings else problem.detail
    if request_id:
        document["request_id"] = request_id
    return orjson.dumps(document)


def _of_rows(outcomes: Sequence[Answer | ProblemError]) -> ProblemError:
    """Return the problems of a request's rows as one; the protocol has no other place for them."""
    problems = [
        (number, one)
        for number, one in enumerate(outcomes)
        if isinstance(one, ProblemError) and one.kind != REFUSED_WITH_OTHERS
    ]
    number, first = problems[0]
    errors = [{"row": number, **error} for number, one in problems for error in one.extra.get("errors", ())]
    detail = f"{len(problems)} of {len(outcomes)} rows cannot be answered; row {number}: {first.detail}"
    extra = {"errors": errors[:_MAX_ERRORS], "errors_total": len(errors)} if errors else {}
    return replace(first, detail=detail, extra=extra)


def _not_allowed(path: str) -> ProblemError:
    return ProblemError(
        status=HTTPStatus.METHOD_NOT_ALLOWED,
        kind="method",
        detail=f"{path[:256]} answers GET",
        headers={"Allow": "GET"},
    )
