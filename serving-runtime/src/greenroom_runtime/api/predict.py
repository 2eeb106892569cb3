"""``POST /predict`` and ``POST /predict/batch``: named features in, predictions out."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from itertools import islice
from typing import Any

import orjson

from greenroom_runtime.api.errors import ProblemError
from greenroom_runtime.api.exchange import Headers, Reply, Request
from greenroom_runtime.api.predictor import Answer, Asked, Predictor
from greenroom_runtime.contract import names
from greenroom_runtime.contract.config import Limits
from greenroom_runtime.features.entry import REQUEST, SOURCES

PATH = "/predict"
BATCH_PATH = "/predict/batch"
MEMBERS = frozenset({"features", "user_id", "context"})
BATCH_MEMBERS = frozenset({"rows", "columns", "user_id", "user_ids", "context"})
_VERSION_HEADER = names.HEADER_VERSION.lower().encode()
_REASON_HEADER = names.HEADER_REASON.lower().encode()
_FEATURE_SOURCES = {
    source: (names.HEADER_FEATURE_SOURCE.lower().encode(), source.encode()) for source in SOURCES
}
_NO_CONTEXT: Mapping[str, Any] = {}
_JSON_OPTIONS = orjson.OPT_NON_STR_KEYS


@dataclass(kw_only=True)
class Predict:
    """Answers one row."""

    predictor: Predictor

    async def __call__(self, request: Request) -> Reply:
        """Return the prediction; ProblemError where there is none."""
        asked, features = _parse(request)
        answer = await self.predictor.answer_row(asked, features)
        document = _spell(answer)
        document["model"] = self.predictor.model
        document["version"] = answer.version.name
        document["request_id"] = request.id
        return Reply(orjson.dumps(document, option=_JSON_OPTIONS), answer_headers(answer))


@dataclass(kw_only=True)
class PredictBatch:
    """Answers many rows, each for itself."""

    predictor: Predictor
    limits: Limits

    async def __call__(self, request: Request) -> Reply:
        """Return a prediction or a problem for each row, in order.

        ProblemError where the rows cannot be read, and where there is nobody to answer any.
        """
        self.predictor.find()
        document = _parse_object(request.body, example='{"rows": [{"name": value}]}', members=BATCH_MEMBERS)
        rows = _rows(document, limit=self.limits.batch_rows)
        users = _users(document, count=len(rows))
        context = _context(document)
        size = len(request.body) // max(1, len(rows))
        asked = [
            Asked(f"{request.id}/{number}", request.started, user, context, "", request.trace_id, size)
            for number, user in enumerate(users)
        ]
        answers = await self.predictor.answer_rows(asked, rows)
        reply = {
            "predictions": [_spell_in_batch(answer) for answer in answers],
            "errors_total": sum(isinstance(answer, ProblemError) for answer in answers),
            "model": self.predictor.model,
            "request_id": request.id,
        }
        return Reply(orjson.dumps(reply, option=_JSON_OPTIONS), feature_source_headers(answers))


def answer_headers(answer: Answer) -> Headers:
    """Return what an answer says of itself beside its body."""
    return [
        (_VERSION_HEADER, answer.version.name.encode()),
        (_REASON_HEADER, answer.reason.encode()),
        _FEATURE_SOURCES[answer.feature_source],
    ]


def feature_source_headers(answers: Sequence[Answer | ProblemError]) -> Headers:
    """Return where the rows' features are from; nothing where they differ."""
    sources = {answer.feature_source for answer in answers if isinstance(answer, Answer)} or {REQUEST}
    return [_FEATURE_SOURCES[source] for source in sources] if len(sources) == 1 else []


def _spell(answer: Answer) -> dict[str, Any]:
    document: dict[str, Any] = {"prediction": answer.prediction}
    if answer.probabilities is not None:
        labels = answer.version.session.bundle.signature.outputs.classes
        classes: Sequence[object] = labels or range(len(answer.probabilities))
        document["probabilities"] = dict(zip(classes, answer.probabilities, strict=True))
    return document


def _spell_in_batch(answer: Answer | ProblemError) -> dict[str, Any]:
    if isinstance(answer, ProblemError):
        return {"error": answer.document()}
    told = {"version": answer.version.name, "reason": answer.reason}
    if answer.feature_source != REQUEST:
        told["feature_source"] = answer.feature_source
    return _spell(answer) | told


def _parse(request: Request) -> tuple[Asked, Mapping[str, Any]]:
    document = _parse_object(request.body, example='{"features": {"name": value}}', members=MEMBERS)
    features = document.get("features")
    if not isinstance(features, dict):
        raise malformed('the body must be an object like {"features": {"name": value}}')
    asked = Asked(
        request.id,
        request.started,
        _user(document),
        _context(document),
        "",
        request.trace_id,
        len(request.body),
    )
    return asked, features


def _parse_object(body: bytes, *, example: str, members: frozenset[str]) -> dict[str, Any]:
    document = parse_json(body)
    if not isinstance(document, dict):
        raise malformed(f"the body must be an object like {example}")
    if unknown := document.keys() - members:
        told = sorted(name[:64] for name in islice(unknown, 16))
        raise malformed(f"unknown members {told}: it must be an object like {example}")
    return document


def parse_json(body: bytes) -> Any:
    """Return the document; ProblemError 400 where it is none."""
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError as error:
        detail = f"the body is not JSON: {error} (NaN and Infinity are no JSON either)"
        raise ProblemError(status=HTTPStatus.BAD_REQUEST, kind="json", detail=detail) from error


def _user(document: Mapping[str, Any]) -> str:
    return user_key(document.get("user_id", ""), member="user_id")


def user_key(value: object, *, member: str) -> str:
    """Return who asks as text; ProblemError where it is neither text nor a whole number."""
    if type(value) is str:
        return value
    if type(value) is int:
        return str(value)
    raise malformed(f"`{member}` must be text or a whole number")


def _context(document: Mapping[str, Any]) -> Mapping[str, Any]:
    context: Mapping[str, Any] = document.get("context", _NO_CONTEXT)
    if type(context) is not dict and context is not _NO_CONTEXT:
        raise malformed("`context` must be an object")
    return context


def _users(document: Mapping[str, Any], *, count: int) -> list[str]:
    if "user_ids" not in document:
        return [_user(document)] * count
    users = document["user_ids"]
    if "user_id" in document:
        raise malformed("give `user_id` for all rows, or `user_ids` with one for each, not both")
    if not isinstance(users, list) or len(users) != count:
        raise malformed(f"`user_ids` must be a list with one for each of the {count} rows")
    return [user_key("" if user is None else user, member="user_ids") for user in users]


def _rows(document: Mapping[str, Any], *, limit: int) -> Sequence[Mapping[str, Any]]:
    given = document.keys() & {"rows", "columns"}
    if len(given) != 1:
        raise malformed("give `rows` as a list of objects, or `columns` as an object of lists: one of them")
    table = document[given.pop()]
    if isinstance(table, dict) and "columns" in document:
        return _rows_of_columns(table, limit=limit)
    if not isinstance(table, list) or "columns" in document:
        raise malformed("`rows` must be a list of objects, `columns` an object of lists")
    refuse_too_many_rows(len(table), limit=limit)
    if not all(isinstance(row, dict) for row in table):
        raise malformed('each of `rows` must be an object like {"name": value}')
    return table


def _rows_of_columns(columns: Mapping[str, Any], *, limit: int) -> Sequence[Mapping[str, Any]]:
    if not all(isinstance(column, list) for column in columns.values()):
        raise malformed('each of `columns` must be a list, as in {"name": [value, value]}')
    lengths = {len(column) for column in columns.values()}
    if len(lengths) > 1:
        told = ", ".join(f"{name[:64]!r} has {len(column)}" for name, column in list(columns.items())[:16])
        raise malformed(f"all columns must have the same number of values: {told}")
    refuse_too_many_rows(next(iter(lengths), 0), limit=limit)
    return [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]


def refuse_too_many_rows(count: int, *, limit: int) -> None:
    """Raise ProblemError 413 where one request brings more rows than it may."""
    if count > limit:
        raise ProblemError(
            status=HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
            kind="too-many-rows",
            detail=f"{count} rows are more than {limit}: send them in several requests",
        )


def malformed(detail: str) -> ProblemError:
    """Return the refusal of a body that is JSON, but not what was to be sent."""
    return ProblemError(status=HTTPStatus.UNPROCESSABLE_ENTITY, kind="request", detail=detail)
