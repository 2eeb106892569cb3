"""From named features to a recorded answer, whatever protocol they came by.

Each row that is asked for is counted once and recorded once, here, whether it was answered or refused.
"""

import asyncio
import math
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from http import HTTPStatus
from typing import Any, NamedTuple, Protocol, get_args

import structlog

from greenroom_runtime.api.errors import ProblemError
from greenroom_runtime.contract import names
from greenroom_runtime.contract.bundle import Value
from greenroom_runtime.contract.flags import DEFAULT_KEY, FlagStore
from greenroom_runtime.metrics import Metrics
from greenroom_runtime.models.door import Finding, Problem
from greenroom_runtime.models.residents import LoadedVersion, Residents, Serving
from greenroom_runtime.models.session import Prediction
from greenroom_runtime.predictions.record import Record
from greenroom_runtime.routing.router import Router, compile_router, sticky_key

log = structlog.get_logger(__name__)

Features = Mapping[str, Any]

PRODUCTION = "production"
ROLLOUT = "rollout"
REASON_DEFAULT = "default"
REASON_FALLBACK = "fallback"
REASON_PATH = "path"
REFUSED_WITH_OTHERS = "refused-with-others"
"""The kind of problem of a row that could have been answered alone."""
SOURCE_REQUEST = "request"
"""Where features come from: the request itself."""
_MAX_FINDINGS = 1000
_ROWS_A_TURN = 128
"""Rows that are checked before other requests get their turn of the event loop."""


@dataclass(slots=True)
class Asked:
    """Who asks, and for what."""

    request_id: str
    started: float
    """On the predictor's clock, in seconds."""
    user_id: str = ""
    context: Mapping[str, Any] = field(default_factory=dict)
    """Attributes that rollout rules may name."""
    version: str = ""
    """The version that the path addresses; empty lets the flag store choose."""
    trace_id: str = ""
    size: int = 0
    """Bytes of the body that are this row's share."""


@dataclass(slots=True)
class Answer:
    """One row's prediction, and why that version made it."""

    version: LoadedVersion
    reason: str
    prediction: Value
    probabilities: list[float] | None
    """In the order of the signature's classes; None for regressors."""


@dataclass(slots=True)
class _Row:
    """One row on its way to its answer."""

    asked: Asked
    features: Features
    version: LoadedVersion | None = None
    role: str = ""
    reason: str = ""
    prediction: Prediction | None = None
    problem: ProblemError | None = None
    brief: bool = False
    """Whether enough is told already of the rows before it that do not fit either."""


class _Scene(NamedTuple):
    """Who can answer, and who answers whom: one moment's, for all of a request."""

    serving: Serving
    router: Router | None


class Log(Protocol):
    """Where records go."""

    def write(self, record: Record) -> None:
        """Take a record; never waits and never fails."""


@dataclass(kw_only=True)
class Predictor:
    """Routes, checks, infers, counts and records."""

    model: str
    residents: Residents
    metrics: Metrics
    log: Log | None = None
    clock: Callable[[], float] = time.perf_counter
    wall_clock: Callable[[], float] = time.time
    _router: Router | None = None
    _failing: set[str] = field(default_factory=set)
    """Versions whose failures are in the log already."""

    def obey(self, flags: FlagStore) -> None:
        """Route by a new document from now on."""
        self._router = compile_router(flags)

    @property
    def routable(self) -> frozenset[str]:
        """The versions that may answer users, whether this pod holds them yet or not."""
        production = self.residents.production
        serving = frozenset({production.name} if production else ())
        return serving | self._router.routable if self._router else serving

    def find(self, version: str = "") -> LoadedVersion:
        """Return the production version, or the routable one of this name.

        ProblemError: 404 for a version that no user is routed to, 503 for one that is not there yet.
        """
        return self._find(version, _Scene(self.residents.serving, self._router))

    def _find(self, version: str, scene: _Scene) -> LoadedVersion:
        production = scene.serving.production
        if version == "" or (production is not None and version == production.name):
            if production is None:
                raise _not_ready(f"no version serves: {self.residents.waiting_for()}")
            return production
        if scene.router is None or version not in scene.router.routable:
            detail = f"version {version!r} of {self.model!r} is not routable: it answers no user"
            raise ProblemError(status=HTTPStatus.NOT_FOUND, kind="no-such-version", detail=detail)
        loaded = scene.serving.ready.get(version)
        if loaded is None:
            raise _not_ready(f"version {version!r} is not ready in this pod")
        return loaded

    async def answer_row(self, asked: Asked, features: Features) -> Answer:
        """Answer one row; ProblemError where that cannot be."""
        row = _Row(asked, features)
        self._route(row, _Scene(self.residents.serving, self._router))
        if row.problem is None and row.version is not None:
            try:
                self._take(row, await row.version.batcher.predict(features))
            except Exception as error:  # noqa: BLE001 a model may raise anything
                self._take(row, error)
        return self._end(row)

    async def answer_rows(
        self, asked: Sequence[Asked], rows: Sequence[Features], *, together: bool = False
    ) -> list[Answer | ProblemError]:
        """Answer the rows of one request in order, each with its own asker; a problem for each that fails.

        Rows that are asked ``together`` are answered by the same version: where a rollout's lacks something
        of any row, production answers them all. They are answered all or none.
        """
        begun = [_Row(who, features) for who, features in zip(asked, rows, strict=True)]
        await self._route_many(begun, together=together)
        if together:
            _refuse_with_others(begun)
        await self._infer_many(begun)
        if together:
            _refuse_with_others(begun)
        answers: list[Answer | ProblemError] = []
        for number, row in enumerate(begun):
            await _let_others(number)
            try:
                answers.append(self._end(row))
            except ProblemError as problem:
                answers.append(problem)
        return answers

    def refused(self, request_id: str, problem: ProblemError, *, started: float) -> None:
        """Count and record a request of which not even the features could be read."""
        row = _Row(Asked(request_id, started), {})
        row.problem = problem
        self._count(row)

    async def _route_many(self, rows: Sequence[_Row], *, together: bool) -> None:
        scene, findings = _Scene(self.residents.serving, self._router), 0
        for number, row in enumerate(rows):
            await _let_others(number)
            row.brief = findings >= _MAX_FINDINGS
            self._route(row, scene)
            if row.problem is not None:
                findings += len(row.problem.extra.get("errors", ()))
        if together and any(row.reason == REASON_FALLBACK for row in rows):
            for number, row in enumerate(rows):
                await _let_others(number)
                if row.reason not in (REASON_FALLBACK, REASON_DEFAULT):
                    self._fall_back(row, scene.serving)

    def _route(self, row: _Row, scene: _Scene) -> None:
        """Choose the version and check the features against it; what hinders goes into the row."""
        serving, router = scene.serving, scene.router
        try:
            production = self._find("", scene)
            if row.asked.version:
                row.version, row.reason = self._find(row.asked.version, scene), REASON_PATH
                row.role = PRODUCTION if row.version is production else ROLLOUT
                _check(row, serving)
                return
        except ProblemError as problem:
            row.problem = problem
            return
        decision = router.choose(_key(row.asked, router.key), row.asked.context) if router else None
        if decision is None or decision.reason == REASON_DEFAULT:
            row.version, row.role, row.reason = production, PRODUCTION, REASON_DEFAULT
            _check(row, serving)
            return
        rollout = serving.ready.get(decision.version)
        if rollout is not None and rollout.session.door.fits(row.features, known=serving.known_features):
            row.version, row.role, row.reason = rollout, ROLLOUT, decision.reason
        else:
            self._fall_back(row, serving)

    def _fall_back(self, row: _Row, serving: Serving) -> None:
        row.version, row.role, row.reason = serving.production, PRODUCTION, REASON_FALLBACK
        _check(row, serving)
        if row.problem is None:
            self.metrics.counts.fallbacks += 1

    async def _infer_many(self, rows: Sequence[_Row]) -> None:
        groups: dict[LoadedVersion, list[_Row]] = {}
        for row in rows:
            if row.version is not None and row.problem is None:
                groups.setdefault(row.version, []).append(row)
        for version, group in groups.items():
            outcomes = await version.batcher.predict_many([row.features for row in group])
            for row, outcome in zip(group, outcomes, strict=True):
                self._take(row, outcome)

    def _take(self, row: _Row, outcome: Prediction | Exception) -> None:
        """Take what the model made of the row: an answer that is not finite is none."""
        if isinstance(outcome, Prediction):
            if _is_finite(outcome):
                row.prediction = outcome
                return
            outcome = ArithmeticError("the answer is not finite")
        row.problem = self._model_failed(row.version.name if row.version else "", outcome)

    def _end(self, row: _Row) -> Answer:
        self._count(row)
        if row.problem is not None:
            raise row.problem
        assert row.version is not None and row.prediction is not None  # noqa: S101, PT018 it was routed and inferred
        return Answer(row.version, row.reason, row.prediction.prediction, row.prediction.probabilities)

    def _count(self, row: _Row) -> None:
        """Count the row once and record it once; a problem learns who could not answer."""
        asked, problem, version = row.asked, row.problem, row.version
        name = version.name if version is not None else ""
        if problem is not None:
            problem.counted = True
            if version is not None:
                told = {names.HEADER_VERSION: name, names.HEADER_REASON: row.reason}
                problem.headers = {**problem.headers, **told}
        status = 200 if problem is None else problem.status.value
        seconds = self.clock() - asked.started
        self.metrics.answered(name, row.role, code=status, seconds=seconds, trace_id=asked.trace_id)
        if self.log is None:
            return
        prediction = row.prediction
        self.log.write(
            Record(
                asked.request_id,
                self.wall_clock(),
                name,
                row.role,
                row.reason,
                asked.user_id,
                row.features,
                SOURCE_REQUEST,
                status,
                seconds * 1000,
                None if prediction is None else prediction.prediction,
                None if prediction is None else prediction.probabilities,
                version.session.bundle.signature.outputs.classes if version is not None else None,
                "" if problem is None else problem.record,
                self.residents.serving.sensitive_features,
                None if problem is None else self.residents.serving.known_features,
                asked.size,
            )
        )

    def _model_failed(self, version: str, error: Exception) -> ProblemError:
        if version not in self._failing:
            self._failing = {version}
            log.warning("the model fails on a request", version=version, error=str(error))
        detail = f"version {version} failed on these features: {type(error).__name__}"
        problem = ProblemError(status=HTTPStatus.INTERNAL_SERVER_ERROR, kind="model-failed", detail=detail)
        problem.__cause__ = error
        return problem


def _check(row: _Row, serving: Serving) -> None:
    """Refuse the row where its features do not fit the version."""
    known = serving.known_features
    if row.version is None or row.version.session.door.fits(row.features, known=known):
        return
    if row.brief:
        detail = "the features do not fit the model's signature either: see the rows before"
        row.problem = ProblemError(status=HTTPStatus.UNPROCESSABLE_ENTITY, kind="features", detail=detail)
    else:
        row.problem = unfit(row.version.session.door.findings(row.features, known=known))


def _key(asked: Asked, name: str) -> str:
    """Return what the user is told apart by: the member ``user_id``, or an attribute of the context."""
    return sticky_key(asked.user_id if name == DEFAULT_KEY else asked.context.get(name))


def _refuse_with_others(rows: Sequence[_Row]) -> None:
    """Where any of the rows cannot be answered, refuse all: what nobody receives is no answer."""
    first = next((row.problem for row in rows if row.problem is not None), None)
    if first is None:
        return
    for row in rows:
        if row.problem is None:
            detail = "another row of the request cannot be answered"
            row.problem = ProblemError(status=first.status, kind=REFUSED_WITH_OTHERS, detail=detail)
            row.prediction = None


async def _let_others(number: int) -> None:
    """Give other requests their turn of the event loop now and then."""
    if number % _ROWS_A_TURN == _ROWS_A_TURN - 1:
        await asyncio.sleep(0)


def _not_ready(detail: str) -> ProblemError:
    return ProblemError(
        status=HTTPStatus.SERVICE_UNAVAILABLE,
        kind="not-ready",
        detail=detail,
        headers={"Retry-After": "5"},
    )


def unfit(findings: Sequence[Finding]) -> ProblemError:
    """Return the refusal of features that do not fit."""
    told = [
        {key: value[:256] for key, value in asdict(finding).items() if value}
        for finding in findings[:_MAX_FINDINGS]
    ]
    counted = Counter(finding.problem for finding in findings)
    counts = ", ".join(f"{counted[problem]} {problem}" for problem in get_args(Problem) if counted[problem])
    detail = f"the features do not fit the model's signature: {counts}; GET /schema shows it"
    extra = {"errors": told, "errors_total": len(findings)}
    return ProblemError(status=HTTPStatus.UNPROCESSABLE_ENTITY, kind="features", detail=detail, extra=extra)


def _is_finite(prediction: Prediction) -> bool:
    value, probabilities = prediction.prediction, prediction.probabilities
    if isinstance(value, float) and not math.isfinite(value):
        return False
    return probabilities is None or all(map(math.isfinite, probabilities))
