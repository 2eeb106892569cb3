"""From named features to a recorded answer, whatever protocol they came by.

Each row that is asked for is counted once and recorded once, here, whether it was answered or refused.
"""

import asyncio
import math
import time
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from http import HTTPStatus
from typing import Any, NamedTuple, Protocol, get_args
from weakref import WeakSet

import structlog

from greenroom_runtime.api.errors import ProblemError
from greenroom_runtime.api.fetched import UNAVAILABLE, UNFIT, blame
from greenroom_runtime.contract import names
from greenroom_runtime.contract.bundle import Value
from greenroom_runtime.contract.flags import DEFAULT_KEY, FlagStore
from greenroom_runtime.features.chain import ENTITY_LENGTH, FeatureCache
from greenroom_runtime.features.entry import REQUEST, FeaturesUnavailableError, Found
from greenroom_runtime.metrics import Metrics
from greenroom_runtime.models.door import Finding, Problem
from greenroom_runtime.models.residents import LoadedVersion, Residents, Serving
from greenroom_runtime.models.session import Prediction
from greenroom_runtime.predictions.record import Record
from greenroom_runtime.routing.evidence import EvidenceCounter, count_evidence
from greenroom_runtime.routing.router import Router, compile_router, sticky_key
from greenroom_runtime.shadow.mirror import Mirror
from greenroom_runtime.shadow.target import Target

log = structlog.get_logger(__name__)

Features = Mapping[str, Any]

PRODUCTION = "production"
ROLLOUT = "rollout"
REASON_DEFAULT = "default"
REASON_PERCENTAGE = "percentage"
REASON_FALLBACK = "fallback"
REASON_PATH = "path"
REFUSED_WITH_OTHERS = "refused-with-others"
"""The kind of problem of a row that could have been answered alone."""
MODEL_FAILED = "model-failed"
_MAX_FINDINGS = 1000
_SPARE_FEATURES = 10_000
"""So many that no version takes are looked at one by one."""
_LARGE_BYTES = 64 * 1024
"""A row from this size on is run in a thread, however quick the model was with its warm-up rows."""
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
    wants_probabilities: bool = False
    """Whether an answer without them is none."""


@dataclass(slots=True)
class Answer:
    """One row's prediction, and why that version made it."""

    version: LoadedVersion
    reason: str
    prediction: Value
    probabilities: list[float] | None
    """In the order of the signature's classes; None for regressors."""
    feature_source: str = REQUEST


class _Scene(NamedTuple):
    """Who can answer, and who answers whom: one moment's, for all of a request."""

    serving: Serving
    """Whoever leaves meanwhile: what it called sensitive is sensitive to this request's record."""
    router: Router | None
    evidence: EvidenceCounter | None
    target: Target | None
    """To whom production's answers are mirrored."""


@dataclass(slots=True)
class _Row:
    """One row on its way to its answer."""

    asked: Asked
    features: Features
    scene: _Scene
    version: LoadedVersion | None = None
    role: str = ""
    reason: str = ""
    key: str = ""
    """The sticky key, where a router decided."""
    prediction: Prediction | None = None
    model_seconds: float = 0.0
    """How long the model took, its wait for others included; of a batch the row's share."""
    problem: ProblemError | None = None
    entity: str = ""
    """Whose features may be fetched; empty where none are."""
    lacking: Collection[str] = ()
    """What the request left out, and was looked for elsewhere."""
    feature_source: str = REQUEST
    feature_age: float | None = None
    """In seconds."""
    trouble: FeaturesUnavailableError | None = None
    """Why it could not be had."""
    brief: bool = False
    """Whether enough is told already of the rows before it that do not fit either."""


class Log(Protocol):
    """Where records go."""

    def write(self, record: Record) -> None:
        """Take a record; never waits and never fails."""

    def forget(self, version: str) -> None:
        """Fold the accounts of a version that has left into one for all such."""


@dataclass(kw_only=True)
class Predictor:
    """Routes, checks, infers, counts and records."""

    model: str
    residents: Residents
    metrics: Metrics
    log: Log | None = None
    features: FeatureCache | None = None
    clock: Callable[[], float] = time.perf_counter
    wall_clock: Callable[[], float] = time.time
    evidence: EvidenceCounter | None = None
    """What is counted of the rollout's users; None while nothing is."""
    mirror: Mirror | None = None
    _target: Target | None = None
    _router: Router | None = None
    _failing: "WeakSet[LoadedVersion]" = field(default_factory=WeakSet)
    """Versions whose failures are in the process's log already."""

    def obey(self, flags: FlagStore) -> None:
        """Route by a new document from now on, and count what it asks for."""
        self._router = compile_router(flags)
        self.evidence = count_evidence(flags.rollout, before=self.evidence)
        self._target = self.mirror.obey(flags) if self.mirror is not None else None

    def forget(self, version: str) -> None:
        """Drop what is counted of a version that has left."""
        self.metrics.forget(version)
        if self.log is not None:
            self.log.forget(version)

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
        return self._find(version, self._scene())

    def _scene(self) -> _Scene:
        return _Scene(self.residents.serving, self._router, self.evidence, self._target)

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
        row = _Row(asked, features, self._scene())
        if self.features is not None:
            await self._complete(row, self.features)
        self._route(row)
        if row.problem is None and row.version is not None:
            if asked.size >= _LARGE_BYTES:
                await self._infer_many([row])
            else:
                await self._infer(row, row.version)
        self._count(row)
        if row.problem is not None:
            raise row.problem
        return _answer(row)

    async def answer_rows(
        self, asked: Sequence[Asked], rows: Sequence[Features], *, together: bool = False
    ) -> list[Answer | ProblemError]:
        """Answer the rows of one request in order, each with its own asker; a problem for each that fails.

        Rows that are asked ``together`` are answered by the same version: where a rollout's lacks something
        of any row, production answers them all. They are answered all or none.
        """
        scene = self._scene()
        begun = [_Row(who, features, scene) for who, features in zip(asked, rows, strict=True)]
        if self.features is not None:
            await self._complete_many(begun, self.features)
        await self._route_many(begun, together=together)
        if together:
            _refuse_with_others(begun)
        await self._infer_many(begun)
        if together:
            _refuse_with_others(begun)
        answers: list[Answer | ProblemError] = []
        for number, row in enumerate(begun):
            await _let_others(number)
            self._count(row)
            answers.append(_answer(row) if row.problem is None else row.problem)
        return answers

    def refused(self, request_id: str, problem: ProblemError, *, started: float) -> None:
        """Count and record a request of which not even the features could be read."""
        row = _Row(Asked(request_id, started), {}, self._scene())
        row.problem = problem
        self._count(row)

    async def _complete(self, row: _Row, cache: FeatureCache) -> None:
        """Fetch what the row leaves out of what its version takes; a row that has all never waits."""
        row.entity = entity = _entity_of(row.asked, cache.entity_key)
        takers = self._takers(row)
        lacking = _lacking(row, takers) if entity else ()
        if not lacking:
            return
        accept = takers[0].session.door.complaint
        found: Found | FeaturesUnavailableError | None = cache.recall(entity, lacking, accept)
        if found is None:
            try:
                found = await cache.fetch(entity, lacking, accept)
            except FeaturesUnavailableError as error:
                found = error.with_traceback(None)
        _fill(row, lacking, found)

    async def _complete_many(self, rows: Sequence[_Row], cache: FeatureCache) -> None:
        """Fetch what rows leave out, each entity once."""
        wanted: dict[str, set[str]] = {}
        lacks: list[tuple[_Row, str, Collection[str]]] = []
        takers: Sequence[LoadedVersion] = ()
        for number, row in enumerate(rows):
            await _let_others(number)
            row.entity = entity = _entity_of(row.asked, cache.entity_key)
            takers = self._takers(row)
            lacking = _lacking(row, takers) if entity else ()
            if lacking:
                wanted.setdefault(entity, set()).update(lacking)
                lacks.append((row, entity, lacking))
        if lacks:
            # The first taker is production, or the version that the path names: the same for all rows.
            found = await cache.fetch_many(wanted, takers[0].session.door.complaint)
            for row, entity, lacking in lacks:
                _fill(row, lacking, found[entity])

    def _takers(self, row: _Row) -> Sequence[LoadedVersion]:
        """Return who may answer the row: production or the version that the path names, and its rollout's."""
        (serving, router, _, _), asked = row.scene, row.asked
        first = serving.ready.get(asked.version) if asked.version else serving.production
        if first is None:
            return ()
        if router is None or asked.version or len(router.routable) == 1:
            return (first,)
        decision = router.choose(_key(asked, router.key), asked.context)
        rollout = serving.ready.get(decision.version)
        return (first,) if rollout is None or rollout is first else (first, rollout)

    async def _route_many(self, rows: Sequence[_Row], *, together: bool) -> None:
        findings = 0
        for number, row in enumerate(rows):
            await _let_others(number)
            row.brief = findings >= _MAX_FINDINGS
            self._route(row)
            if row.problem is not None:
                findings += len(row.problem.extra.get("errors", ()))
        if together and any(row.reason == REASON_FALLBACK for row in rows):
            for number, row in enumerate(rows):
                await _let_others(number)
                if row.reason not in (REASON_FALLBACK, REASON_DEFAULT):
                    _fall_back(row)

    def _route(self, row: _Row) -> None:
        """Choose the version and check the features against it; what hinders goes into the row."""
        self._choose(row)
        if row.lacking and row.problem is not None:
            row.problem = blame(row.problem, row.lacking, source=row.feature_source, trouble=row.trouble)

    def _choose(self, row: _Row) -> None:
        serving, router, _, _ = row.scene
        try:
            production = self._find("", row.scene)
            if row.asked.version:
                row.version, row.reason = self._find(row.asked.version, row.scene), REASON_PATH
                row.role = PRODUCTION if row.version is production else ROLLOUT
                _check(row)
                return
        except ProblemError as problem:
            row.problem = problem.with_traceback(None)  # that refers to the row
            return
        decision = None
        if router is not None:
            row.key = _key(row.asked, router.key)
            decision = router.choose(row.key, row.asked.context)
        if decision is None or decision.reason == REASON_DEFAULT:
            row.version, row.role, row.reason = production, PRODUCTION, REASON_DEFAULT
            _check(row)
            return
        rollout = serving.ready.get(decision.version)
        if rollout is not None and _can_answer(rollout, row):
            row.version, row.role, row.reason = rollout, ROLLOUT, decision.reason
        else:
            _fall_back(row)

    async def _infer(self, row: _Row, version: LoadedVersion) -> None:
        target = row.scene.target
        started = 0.0 if target is None else self.clock()
        try:
            self._take(row, await version.batcher.predict(row.features))
        except Exception as error:  # noqa: BLE001 a model may raise anything
            self._take(row, error)
        if target is not None:
            row.model_seconds = self.clock() - started

    async def _infer_many(self, rows: Sequence[_Row]) -> None:
        groups: dict[LoadedVersion, list[_Row]] = {}
        for row in rows:
            if row.version is not None and row.problem is None:
                groups.setdefault(row.version, []).append(row)
        for version, group in groups.items():
            started = self.clock()
            outcomes = await version.batcher.predict_many([row.features for row in group])
            seconds = (self.clock() - started) / len(group)
            for row, outcome in zip(group, outcomes, strict=True):
                row.model_seconds = seconds
                self._take(row, outcome)

    def _take(self, row: _Row, outcome: Prediction | Exception) -> None:
        """Take what the model made of the row: an answer that is not finite is none."""
        if isinstance(outcome, Prediction):
            if _is_finite(outcome):
                row.prediction = outcome
                return
            outcome = ArithmeticError("the answer is not finite")
        assert row.version is not None  # noqa: S101 it was routed
        row.problem = self._model_failed(row.version, outcome)

    def _count(self, row: _Row) -> None:
        """Count the row once and record it once; a problem learns who could not answer."""
        asked, problem, version = row.asked, row.problem, row.version
        name = version.name if version is not None else ""
        if problem is not None:
            problem.counted = True
            if version is not None:
                told = {names.HEADER_VERSION: name, names.HEADER_REASON: row.reason}
                problem.headers = {**problem.headers, **told}
        elif row.reason == REASON_FALLBACK:
            self.metrics.counts.fallbacks += 1
        status = 200 if problem is None else problem.status.value
        seconds = self.clock() - asked.started
        self.metrics.answered(name, row.role, code=status, seconds=seconds, trace_id=asked.trace_id)
        if row.scene.evidence is not None:
            _count_evidence(row, row.scene.evidence, status=status, seconds=seconds)
        if self.log is not None:
            prediction = row.prediction
            self.log.write(
                Record(
                    asked.request_id,
                    self.wall_clock(),
                    name,
                    row.role,
                    row.reason,
                    _entity(row),
                    row.features or None,
                    row.feature_source,
                    status,
                    seconds * 1000,
                    None if prediction is None else prediction.prediction,
                    None if prediction is None else prediction.probabilities,
                    version.session.bundle.signature.outputs.classes if version is not None else None,
                    "" if problem is None else problem.record,
                    row.scene.serving.sensitive_features,
                    None if problem is None else row.scene.serving.known_features,
                    asked.size,
                    row.feature_age,
                )
            )
        if row.scene.target is not None and row.role == PRODUCTION:
            self._reflect(row, row.scene.target)
        if row.scene.serving is not self.residents.serving and version is not None:
            self._forget_late(name)

    def _reflect(self, row: _Row, target: Target) -> None:
        """Show the shadow what production's model has made of the row, a failure of its own included."""
        asked, problem, version = row.asked, row.problem, row.version
        if self.mirror is None or version is None:
            return
        if problem is not None and problem.kind != MODEL_FAILED:
            return
        self.mirror.offer(
            target,
            request_id=asked.request_id,
            key=_entity(row),
            context=asked.context,
            version=version.name,
            features=row.features,
            prediction=row.prediction,
            classes=version.session.bundle.signature.outputs.classes,
            error="" if problem is None else problem.detail,
            seconds=row.model_seconds,
            size=asked.size,
        )

    def _forget_late(self, version: str) -> None:
        # A version's last requests outlive it, and count anew what was dropped with it.
        if not self.residents.holds(version):
            self.forget(version)

    def _model_failed(self, version: LoadedVersion, error: Exception) -> ProblemError:
        if version not in self._failing:
            self._failing.add(version)
            # What onnxruntime complains of may be a value: "idx=37 must be within the range [0,9]".
            told = "" if version.session.door.sensitive else str(error)
            log.warning(
                "the model fails on a request", version=version.name, kind=type(error).__name__, error=told
            )
        detail = f"version {version.name} failed on these features: {type(error).__name__}"
        return ProblemError(status=HTTPStatus.INTERNAL_SERVER_ERROR, kind=MODEL_FAILED, detail=detail)


def _entity(row: _Row) -> str:
    """Return whom the record is about: the sticky key where a rollout has one of its own, else the user."""
    router = row.scene.router
    return row.asked.user_id if router is None else row.key or _key(row.asked, router.key)


def _answer(row: _Row) -> Answer:
    assert row.version is not None and row.prediction is not None  # noqa: S101, PT018 it was routed and inferred
    prediction, probabilities = row.prediction.prediction, row.prediction.probabilities
    return Answer(row.version, row.reason, prediction, probabilities, row.feature_source)


def _can_answer(version: LoadedVersion, row: _Row) -> bool:
    if row.asked.wants_probabilities and not version.session.bundle.signature.outputs.probabilities:
        return False
    return version.session.door.fits(row.features, known=row.scene.serving.known_features)


def _count_evidence(row: _Row, evidence: EvidenceCounter, *, status: int, seconds: float) -> None:
    """Count the row where the percentage decided about it, and nothing else."""
    if row.reason == REASON_PERCENTAGE:
        arm = evidence.rollout
    elif row.reason == REASON_DEFAULT and row.key:
        arm = evidence.production
    else:
        return
    if _is_comparable(row, evidence):
        evidence.count(arm, row.key, status=status, seconds=seconds)


def _is_comparable(row: _Row, evidence: EvidenceCounter) -> bool:
    """Tell whether the other arm's version could have answered the row as well.

    Where the rollout's cannot, its users fall back and are not counted: so production's are not either.
    What it takes beyond production is fetched for its own users only: for the others it is as if it were
    there. A row that failed since features could not be had says nothing of either version.
    """
    if row.problem is not None and row.problem.kind in (UNAVAILABLE, UNFIT):
        return False
    serving = row.scene.serving
    if evidence.version in serving.like_production:
        return True
    other = serving.production if row.role == ROLLOUT else serving.ready.get(evidence.version)
    if other is None or _can_answer(other, row):
        return other is not None
    return bool(row.entity) and row.role == PRODUCTION and not other.session.door.complaint(row.features)


def _fall_back(row: _Row) -> None:
    row.version, row.role, row.reason = row.scene.serving.production, PRODUCTION, REASON_FALLBACK
    _check(row)


def _check(row: _Row) -> None:
    """Refuse the row where its features do not fit the version."""
    known = row.scene.serving.known_features
    if row.version is None or row.version.session.door.fits(row.features, known=known):
        return
    if row.brief:
        detail = "the features do not fit the model's signature either: see the rows before"
    elif len(row.features) > len(known) + _SPARE_FEATURES:
        detail = f"{len(row.features)} features are far more than the {len(known)} that any version takes"
    else:
        row.problem = unfit(row.version.session.door.findings(row.features, known=known))
        return
    row.problem = ProblemError(status=HTTPStatus.UNPROCESSABLE_ENTITY, kind="features", detail=detail)


def _key(asked: Asked, name: str) -> str:
    """Return what the user is told apart by: the member ``user_id``, or an attribute of the context."""
    return sticky_key(asked.user_id if name == DEFAULT_KEY else asked.context.get(name))


def _entity_of(asked: Asked, name: str) -> str:
    """Return whose features to fetch; empty for nobody."""
    entity = asked.user_id if name == DEFAULT_KEY else sticky_key(asked.context.get(name))
    return entity if len(entity) <= ENTITY_LENGTH and entity.isprintable() else ""


def _lacking(row: _Row, takers: Sequence[LoadedVersion]) -> Collection[str]:
    """Return what the row leaves out of what any of these takes."""
    names = [taker.session.door.names for taker in takers]
    if not names:
        return ()
    wanted = names[0] if len(names) == 1 else frozenset().union(*names)
    return wanted.difference(row.features) if row.features else wanted


def _fill(row: _Row, lacking: Collection[str], found: Found | FeaturesUnavailableError) -> None:
    """Give the row what it lacks; what it has wins, and what nobody asked for stays where it was."""
    row.lacking = lacking
    if isinstance(found, FeaturesUnavailableError):
        row.trouble = found
        return
    row.feature_source, row.feature_age = found.source, found.age_seconds
    # In a batch the entity's other rows may lack more.
    row.features = {**found.features, **row.features}


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
