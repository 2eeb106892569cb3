"""The versions that this pod holds: each from Pending to Ready or Failed, and which one is production.

One version is prepared at a time, production first. Everything here runs on the event loop, except
what is handed to a thread or to a trial process; so a request sees either the old or the new
production and nothing in between, and the version that it took stays whole until it is done.
"""

import asyncio
import math
from collections.abc import Callable, Mapping
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial

import structlog

from greenroom_runtime.contract.config import Proof
from greenroom_runtime.contract.flags import FlagStore
from greenroom_runtime.contract.report import Failure, FailureReason, VersionReport, VersionState
from greenroom_runtime.models.batching import Batcher
from greenroom_runtime.models.child import stand_back_as_thread
from greenroom_runtime.models.failures import SourceUnreachableError, VersionError
from greenroom_runtime.models.prover import prove
from greenroom_runtime.models.session import ModelSession
from greenroom_runtime.models.store import BundleStore, StoredBundle
from greenroom_runtime.models.trial import TrialResult

log = structlog.get_logger(__name__)

CRASH_RETRIES = 3
"""How often a production version that crashed is tried again."""
_FETCH_FAILURES = frozenset(
    {
        FailureReason.NO_SUCH_VERSION,
        FailureReason.INVALID_BUNDLE,
        FailureReason.DIGEST_MISMATCH,
        FailureReason.DIGEST_CHANGED,
        FailureReason.NO_SPACE,
    }
)
"""What another publication, or room on the disk, can cure."""
_PASSING_FAILURES = _FETCH_FAILURES | {FailureReason.OUT_OF_MEMORY, FailureReason.TRIAL_TIMEOUT}
"""What time can cure, as on a node whose other pods take its memory or its processors just now."""


@dataclass(frozen=True, kw_only=True)
class Backoff:
    """Exponential, capped, with full jitter."""

    first: float
    """Seconds."""
    cap: float
    """Seconds."""

    def seconds(self, attempt: int, *, chance: float) -> float:
        """Return the wait before the next attempt; ``chance`` is uniform in [0, 1)."""
        return chance * min(self.cap, self.first * math.exp2(min(attempt, 32)))


UNREACHABLE_BACKOFF = Backoff(first=1.0, cap=30.0)
FAILED_BACKOFF = Backoff(first=5.0, cap=300.0)
CRASHED_BACKOFF = Backoff(first=1.0, cap=30.0)


@dataclass(frozen=True, kw_only=True, eq=False)
class LoadedVersion:
    """A proven version in this process. Freed when its last request lets go of it."""

    name: str
    digest: str
    session: ModelSession
    batcher: Batcher
    """Through which requests reach the session."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Serving:
    """Who can answer at one moment. A request that looks more than once looks at the same one."""

    production: LoadedVersion | None = None
    """The version that answers."""
    ready: Mapping[str, LoadedVersion] = field(default_factory=dict)
    """Every resident version that could answer, by name."""
    like_production: frozenset[str] = frozenset()
    """Those of them that answer just the rows that production answers."""
    known_features: frozenset[str] = frozenset()
    """Features that any of these takes."""
    sensitive_features: frozenset[str] = frozenset()
    """Those whose values may not be shown, since one of these says so."""


@dataclass(kw_only=True)
class _Resident:
    """What is known of one version. A Failed one tried again stays Failed until it gets further."""

    name: str
    pinned: str = ""
    state: VersionState = VersionState.PENDING
    message: str = ""
    digest: str = ""
    golden: str = ""
    memory_bytes: int = 0
    failure: Failure | None = None
    loaded: LoadedVersion | None = None
    attempts: int = 0
    """Failed attempts in a row of the present kind."""
    crashes: int = 0
    not_before: float = 0.0
    """On the event loop's clock; infinite when it is not tried again."""

    def report(self) -> VersionReport:
        return VersionReport(
            name=self.name,
            state=self.state,
            message=self.message[:2048],
            digest=self.digest,
            golden=self.golden,
            memory_bytes=self.memory_bytes,
            failure=self.failure,
        )


@dataclass(kw_only=True)
class Residents:
    """Obeys the flag store: holds what it says, answers with its production version once Ready."""

    store: BundleStore
    proof: Proof
    pod: str
    clock: Callable[[], float]
    """Seconds, monotonic."""
    chance: Callable[[], float]
    """Uniform in [0, 1)."""
    batcher: Callable[[str, ModelSession, float], Batcher]
    """Makes what stands before a version's session, given what a row alone takes in seconds."""
    on_swap: Callable[[LoadedVersion], None] = lambda _: None
    on_departure: Callable[[str], None] = lambda _: None
    serving: Serving = Serving()
    """One assignment swaps it."""
    flags: FlagStore | None = None
    """The newest valid document, obeyed or on the way."""
    _loader: Executor = field(
        default_factory=partial(
            ThreadPoolExecutor, 1, thread_name_prefix="loading", initializer=stand_back_as_thread
        )
    )
    _residents: dict[str, _Resident] = field(default_factory=dict)
    _changed: asyncio.Event = field(default_factory=asyncio.Event)
    _previous: str = ""
    _doubted: set[str] = field(default_factory=set)
    """Versions that somebody wants tried again: what is stored of them may be what was wrong."""

    @property
    def production(self) -> LoadedVersion | None:
        """The version that answers now; None before the first."""
        return self.serving.production

    @property
    def revision(self) -> str:
        """The newest valid document's: all states are told under it. Empty before the first.

        It does not wait for production to be what the document says: the operator must learn under which
        document a version has failed, and sees from ``production`` itself whether the pod has switched.
        """
        return self.flags.revision if self.flags else ""

    def obey(self, flags: FlagStore) -> None:
        """Take a new document: swap at once where production is Ready, prepare what is new, drop the rest."""
        # A version that left and came back between two looks at the file has left all the same.
        another_attempt = self.flags is not None and self.flags.attempt != flags.attempt
        self.flags = flags
        for name in flags.resident:
            pinned = flags.digests.get(name, "")
            resident = self._residents.get(name)
            if another_attempt and resident is not None and resident.state is VersionState.FAILED:
                self._doubted.add(name)
                self._depart(name)
                resident = None
            if resident is None:
                self._residents[name] = self._newcomer(name, pinned=pinned)
            elif pinned not in (resident.pinned, resident.digest):
                log.info("other bytes are pinned", version=name, digest=pinned)
                self._residents[name] = _Resident(name=name, pinned=pinned)
            else:
                resident.pinned = pinned
            self._explain_pending(self._residents[name], flags)
        for name in set(self._residents) - set(flags.resident):
            self._depart(name)
        production = self._residents[flags.production]
        if production.state is VersionState.FAILED and production.not_before == math.inf:
            self._schedule_retry(production)
        self._settle()
        self._changed.set()

    def clear(self) -> None:
        """Hold nothing and answer nothing, as before the first document; what comes back is fetched anew."""
        self._doubted |= self._residents.keys()
        self.flags = None
        self.serving = Serving()
        for name in list(self._residents):
            self._depart(name)
        self._changed.set()

    async def run(self) -> None:
        """Prepare versions for ever, one at a time."""
        while True:
            self._changed.clear()
            await self._tidy()
            resident = self._next()
            if resident is None:
                await self._wait()
                continue
            preparation = asyncio.create_task(self._prepare(resident))
            try:
                await self._attend(preparation, resident)
            finally:
                preparation.cancel()
                await asyncio.wait({preparation})  # awaited itself, it would swallow the end of this one

    def reports(self) -> tuple[VersionReport, ...]:
        """Return where the pod is with each version, production first."""
        first = self.flags.production if self.flags else ""
        return tuple(
            self._residents[name].report() for name in sorted(self._residents, key=lambda n: (n != first, n))
        )

    def holds(self, version: str) -> bool:
        """Tell whether the version is resident, or still answers."""
        return version in self._residents or (self.production is not None and self.production.name == version)

    def waiting_for(self) -> str:
        """Say why there is no production version, for a person."""
        if self.flags is None:
            return "no valid flag document has been read yet"
        report = self._residents[self.flags.production].report()
        detail = report.failure.message if report.failure else report.message
        reason = f" ({report.failure.reason})" if report.failure else ""
        return f"version {report.name} is {report.state}{reason}" + (f": {detail}" if detail else "")

    def _newcomer(self, name: str, *, pinned: str) -> _Resident:
        resident = _Resident(name=name, pinned=pinned)
        resident.crashes = self.store.crashes(name)
        if resident.crashes:
            error = VersionError(
                FailureReason.CRASHED,
                f"the serving process died while it was loading {name}, {resident.crashes} time(s)",
            )
            self._fail(resident, error)
        return resident

    def _explain_pending(self, resident: _Resident, flags: FlagStore) -> None:
        if resident.state is VersionState.PENDING:
            own = flags.prepares(resident.name, pod=self.pod)
            resident.message = "" if own else f"pod {flags.first} prepares it first"

    def _next(self) -> _Resident | None:
        """Return what to prepare now: production first, then by name."""
        flags, now = self.flags, self.clock()
        if flags is None:
            return None
        due = [
            resident
            for resident in self._residents.values()
            if resident.state is not VersionState.READY
            and resident.not_before <= now
            and flags.prepares(resident.name, pod=self.pod)
        ]
        return min(due, key=lambda resident: (resident.name != flags.production, resident.name), default=None)

    async def _wait(self) -> None:
        """Wait for a new document, or until something is to be tried again."""
        ours = [
            resident.not_before
            for resident in self._residents.values()
            if not resident.loaded and self.flags and self.flags.prepares(resident.name, pod=self.pod)
        ]
        soonest = min(ours, default=math.inf)
        timeout = max(0.0, soonest - self.clock()) if soonest < math.inf else None
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout):
                await self._changed.wait()

    async def _attend(self, preparation: "asyncio.Task[None]", resident: _Resident) -> None:
        """Wait for a preparation; give it up when its version is no longer wanted or production is."""
        while not preparation.done():
            changed = asyncio.create_task(self._changed.wait())
            await asyncio.wait({preparation, changed}, return_when=asyncio.FIRST_COMPLETED)
            changed.cancel()
            self._changed.clear()
            gone = self._residents.get(resident.name) is not resident
            urgent = self._next()
            outranked = (
                urgent is not None
                and self.flags is not None
                and urgent.name == self.flags.production != resident.name
            )
            if (gone or outranked) and resident.state is not VersionState.LOADING:
                if not gone and resident.failure is None:
                    self._move(resident, VersionState.PENDING, "another version goes first")
                return
        await preparation

    async def _prepare(self, resident: _Resident) -> None:
        try:
            bundle = await self._fetch(resident)
            trial = await self._prove(resident, bundle)
            loaded = await self._load(resident, bundle)
        except SourceUnreachableError as error:
            self._await_source(resident, error)
        except VersionError as error:
            if error.failure.reason is FailureReason.CRASHED:
                resident.crashes += 1
            self._fail(resident, error)
        except OSError as error:
            self._await_source(resident, error)
        except Exception as error:
            # Whatever it is, production goes on serving.
            log.exception("a version could not be prepared", version=resident.name)
            message = f"unexpected {type(error).__name__}: {error}; see the pod's log"
            self._fail(resident, VersionError(FailureReason.NOT_LOADABLE, message))
        else:
            self._become_ready(resident, loaded, trial)

    async def _fetch(self, resident: _Resident) -> StoredBundle:
        if resident.failure is None:
            self._move(resident, VersionState.FETCHING, resident.message)
        bundle = await self.store.obtain(resident.name, pinned=resident.pinned or None)
        resident.digest = bundle.digest
        return bundle

    async def _prove(self, resident: _Resident, bundle: StoredBundle) -> TrialResult:
        if resident.failure is None or resident.failure.reason in _FETCH_FAILURES:
            self._move(resident, VersionState.PROVING)
        return await prove(bundle, proof=self.proof)

    async def _load(self, resident: _Resident, bundle: StoredBundle) -> LoadedVersion:
        self._move(resident, VersionState.LOADING)
        # A thread cannot be cancelled: the marker goes only when the load is really over.
        load = partial(_load, self.store, bundle, self.batcher)
        return await asyncio.shield(asyncio.get_running_loop().run_in_executor(self._loader, load))

    def _become_ready(self, resident: _Resident, loaded: LoadedVersion, trial: TrialResult) -> None:
        if self._residents.get(resident.name) is not resident:
            return
        resident.loaded, resident.attempts, resident.crashes = loaded, 0, 0
        resident.golden, resident.memory_bytes = trial.golden, trial.memory_bytes
        self._move(resident, VersionState.READY)
        self._settle()

    def _settle(self) -> None:
        """Let production be what the document says, as soon as that is Ready."""
        before, wanted = self.production, self._wanted()
        ready = {name: held.loaded for name, held in self._residents.items() if held.loaded}
        production = wanted or before
        # Production goes on answering after it has left the document, until its successor is Ready.
        doors = [one.session.door for one in {*ready.values(), *([production] if production else [])}]
        self.serving = Serving(
            production=production,
            ready=ready,
            like_production=frozenset(
                name for name, one in ready.items() if production and _takes(one) == _takes(production)
            ),
            known_features=frozenset().union(*(door.names for door in doors)),
            sensitive_features=frozenset().union(*(door.sensitive for door in doors)),
        )
        if wanted is not None and wanted is not before:
            self._end_swap(before, wanted)

    def _wanted(self) -> LoadedVersion | None:
        """Return what the document wants as production, None where that is not Ready."""
        return self._residents[self.flags.production].loaded if self.flags else None

    def _end_swap(self, before: LoadedVersion | None, wanted: LoadedVersion) -> None:
        log.info("production", version=wanted.name, previous=before.name if before else "")
        self.on_swap(wanted)
        self._changed.set()
        if before is not None and before.name != wanted.name:
            self._previous = before.name
            if before.name not in self._residents:
                self.on_departure(before.name)

    def _depart(self, name: str) -> None:
        resident = self._residents.pop(name)
        if resident.state is not VersionState.LOADING:
            with suppress(OSError):  # a disk that fails is no reason to stop serving
                self.store.end_loading(name)  # leaving is another chance, even for who comes back at once
        log.info("version is no longer resident", version=name)
        if self.production is None or self.production.name != name:
            self.on_departure(name)

    async def _tidy(self) -> None:
        """Bring the disk in line: aliases point at what is in force, departed versions are removed."""
        in_force = self.production.name if self.production else ""
        doubted, self._doubted = self._doubted - {in_force}, set()
        for name in doubted:
            await asyncio.to_thread(self.store.forget, name)
        if self.flags is None:
            return
        keep = {*self._residents, *([in_force] if in_force else [])}
        previous = self.flags.previous or self._previous
        try:
            self.store.point_alias("production", in_force)
            self.store.point_alias(
                "previous", previous if previous in keep and self.store.has(previous) else ""
            )
            for name in await asyncio.to_thread(self.store.collect, frozenset(keep)):
                log.info("removed from disk", version=name)
        except OSError as error:
            log.warning("the bundle store could not be tidied", error=str(error))

    def _await_source(self, resident: _Resident, error: Exception) -> None:
        delay = UNREACHABLE_BACKOFF.seconds(resident.attempts, chance=self.chance())
        resident.attempts += 1
        resident.not_before = self.clock() + delay
        message = f"not fetched yet, it is tried again: {error}"
        if resident.failure is None:
            self._move(resident, VersionState.FETCHING, message)
        else:
            resident.message = message

    def _fail(self, resident: _Resident, error: VersionError) -> None:
        resident.failure, resident.loaded = error.failure, None
        self._move(resident, VersionState.FAILED)
        self._schedule_retry(resident)

    def _schedule_retry(self, resident: _Resident) -> None:
        """Try a Failed version again only where the pod is of no use without it."""
        resident.not_before, resident.message = (
            math.inf,
            "not tried again until it has left the resident versions",
        )
        failure = resident.failure
        if failure is None or self.flags is None or resident.name != self.flags.production:
            return
        if failure.reason is FailureReason.CRASHED and resident.crashes <= CRASH_RETRIES:
            delay = CRASHED_BACKOFF.seconds(resident.crashes, chance=self.chance())
            resident.message = f"the production version is tried again, {resident.crashes} of {CRASH_RETRIES}"
        elif failure.reason in _PASSING_FAILURES and self.production is None:
            delay = FAILED_BACKOFF.seconds(resident.attempts, chance=self.chance())
            resident.message = "the pod serves nothing without it, so it is tried again from time to time"
            resident.attempts += 1
        else:
            return
        resident.not_before = self.clock() + delay

    def _move(self, resident: _Resident, state: VersionState, message: str = "") -> None:
        if state not in (VersionState.FAILED, VersionState.FETCHING, VersionState.PENDING):
            resident.failure = None
        moved = (resident.state, resident.message) != (state, message) or state is VersionState.FAILED
        resident.state, resident.message = state, message
        if moved:
            details: Mapping[str, object] = (
                resident.failure.model_dump(exclude_defaults=True) if resident.failure else {}
            )
            log.info(
                "version", version=resident.name, state=str(state), waiting_for=message or None, **details
            )


def _takes(version: LoadedVersion) -> tuple[object, bool]:
    """Return what decides whether a version answers a row."""
    session = version.session
    return session.door.demands, bool(session.bundle.signature.outputs.probabilities)


def _load(
    store: BundleStore, bundle: StoredBundle, batcher: Callable[[str, ModelSession, float], Batcher]
) -> LoadedVersion:
    store.begin_loading(bundle.version)
    try:
        session = ModelSession(bundle.path, bundle=bundle.bundle)
        seconds = session.warm_up()
    finally:
        store.end_loading(bundle.version)
    return LoadedVersion(
        name=bundle.version,
        digest=bundle.digest,
        session=session,
        batcher=batcher(bundle.version, session, seconds),
    )
