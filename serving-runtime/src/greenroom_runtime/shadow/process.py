"""``python -m greenroom_runtime.shadow.process``: holds the shadow's version and compares it with production.

It has no side effects but its counts and its records: it fetches no features, writes no cache and serves no
HTTP. Its supervisor is told several times a second, and tells everybody else.
"""

import argparse
import asyncio
import os
import random
import signal
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import structlog
from pydantic import ValidationError

from greenroom_runtime.contract import names
from greenroom_runtime.contract.config import RuntimeConfig, parse_config
from greenroom_runtime.contract.flags import FlagStore, Shadow
from greenroom_runtime.contract.report import VersionState
from greenroom_runtime.contract.shadow import ProcessReport
from greenroom_runtime.models.batching import Batcher
from greenroom_runtime.models.residents import LoadedVersion, Residents
from greenroom_runtime.models.session import ModelSession
from greenroom_runtime.models.source import open_source
from greenroom_runtime.models.store import BundleStore, StoreError
from greenroom_runtime.predictions.log import PredictionLog, open_log
from greenroom_runtime.routing.flag_file import FlagFile
from greenroom_runtime.settings import Settings, configure_logs, read_settings
from greenroom_runtime.shadow import child
from greenroom_runtime.shadow.compare import NOT_COMPARABLE, Answered, compare
from greenroom_runtime.shadow.counts import Tally
from greenroom_runtime.shadow.ends import OUT_OF_MEMORY_CODE, UNUSABLE_CODE
from greenroom_runtime.shadow.frame import Frame
from greenroom_runtime.shadow.inbox import Inbox, parse_address
from greenroom_runtime.shadow.metrics import STALE, UNREADY, ShadowMetrics
from greenroom_runtime.shadow.records import record_of
from greenroom_runtime.shadow.teller import SupervisorGoneError, Teller
from greenroom_runtime.shadow.worker import Answer, Worker, leave_when_starved

log = structlog.get_logger(__name__)

_TOGETHER: Final = 32
"""Rows that go to the worker at once; counts and changes of the flag store wait for them."""
_MEMORY_SHARE: Final = 0.8 / 0.9
"""A trial takes at most nine tenths of the limit that it is told; the supervisor kills at eight tenths."""
_FLUSH_SECONDS: Final = 5.0
_LEAVE_SECONDS: Final = 1.0
"""How long threads may take to end when all that matters is done."""


@dataclass(frozen=True, kw_only=True)
class Pace:
    """Intervals, in seconds."""

    tell: float = 0.25
    metrics: float = 1.0
    """Between two times that metrics are told, which cost more than all else."""
    row: float = 10.0
    """How long one row may take before the process tells nothing any more, and so is hung."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Scene:
    """What frames are compared under; one assignment swaps it."""

    production: str
    shadow: Shadow
    segments: tuple[str, ...]
    """As records name them."""


class ShadowProcess:
    """Everything of one process, wired."""

    def __init__(
        self,
        config: RuntimeConfig,
        settings: Settings,
        *,
        teller: Teller,
        resume: ProcessReport,
        frames_port: int,
        pace: Pace = Pace(),
    ) -> None:
        """Open the source and the store; ValueError or StoreError where that cannot work."""
        if config.shadow is None:
            raise ValueError("the configuration has no shadow")
        self._config = config
        self._tolerance = config.shadow.tolerance
        self._pace = pace
        self._teller = teller
        place = parse_address(config.shadow.address, host=config.host, port=frames_port)
        self._store = BundleStore(
            Path(config.models_dir), source=open_source(config.source_uri, environment=settings.environment)
        )
        self._worker = Worker()
        self._loading = ThreadPoolExecutor(1)
        self._residents = Residents(
            store=self._store,
            proof=config.proof.model_copy(update={"memory_limit_bytes": _memory(settings.environment)}),
            pod=settings.pod,
            clock=time.monotonic,
            chance=random.random,
            batcher=self._unused_batcher,
        )
        self._inbox = Inbox(place)
        self._scene: _Scene | None = None
        self._tally = Tally(resume)
        self._told_lacking = ""
        self._revision = ""
        self._flag_file = FlagFile(path=Path(config.flags_path), on_document=self._obey)
        self._log = _open_log(config, settings)
        self._metrics = ShadowMetrics(
            report=self.report,
            refused=lambda: self._inbox.refused,
            connections=lambda: self._inbox.connections,
            log=self._log,
        )
        self._next_metrics = 0.0

    async def run(self) -> None:
        """Compare until SIGTERM or SIGINT; raises where a part of it fails."""
        stop = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
        works = (
            self._flag_file.watch(),
            self._residents.run(),
            self._inbox.watch(),
            self._work(),
            self._beat(),
        )
        tasks = [asyncio.create_task(work) for work in works]
        told = asyncio.create_task(_wait(stop))
        done, _ = await asyncio.wait({told, *tasks}, return_when=asyncio.FIRST_COMPLETED)
        for task in tasks:
            task.cancel()
        self._inbox.close()
        await asyncio.wait(tasks, timeout=_LEAVE_SECONDS)
        await asyncio.to_thread(self._flush)
        for task in done - {told}:
            task.result()
        self._teller.tell(self.report(), metrics=self._metrics.exposition())

    def report(self) -> ProcessReport:
        """Return what is known and counted."""
        flags, counts = self._residents.flags, self._tally.report()
        versions = self._residents.reports()
        return ProcessReport(
            revision=self._revision,
            flags_error=self._flag_file.error[:2048],
            production=self._scene.production if self._scene and flags and self._loaded(self._scene) else "",
            version=versions[0] if versions else None,
            epoch=self._tally.epoch,
            counts=counts[0],
            trials=counts[1],
            prediction_log=self._log.report() if self._log is not None else None,
        )

    def _obey(self, flags: FlagStore) -> None:
        shadow = flags.shadow
        self._revision = flags.revision
        held = self._residents.flags
        if held is not None and (shadow is None or held.production != shadow.version):
            # Unlike production's successor, a shadow's is waited for by nobody.
            self._residents.clear()
        if shadow is None:
            self._scene = None
            self._tally = Tally(ProcessReport())
            self._metrics.forget("")
            return
        segments = tuple(f"{attribute}={value}" for attribute, value in shadow.segments)
        self._scene = _Scene(production=flags.production, shadow=shadow, segments=segments)
        self._tally = Tally.of(shadow, before=self._tally)
        self._metrics.forget(shadow.version)
        self._residents.obey(_own_flags(flags, shadow))

    async def _work(self) -> None:
        """Take frames and compare, for ever."""
        while True:
            frames = await self._inbox.take(_TOGETHER)
            try:
                await self._compare(frames)
            except Exception as error:
                leave_when_starved(error)
                log.exception("frames could not be compared", frames=len(frames))

    async def _compare(self, frames: Sequence[Frame]) -> None:
        scene, tally = self._scene, self._tally
        if scene is None:
            return
        name = scene.shadow.version
        current = [frame for frame in frames if _is_current(frame, scene)]
        if stale := len(frames) - len(current):
            tally.stale(stale)
            self._metrics.passed_over(name, STALE, stale)
        loaded = self._loaded(scene)
        if loaded is None:
            for _ in current:
                tally.unready()
            self._metrics.passed_over(name, UNREADY, len(current))
            return
        answers = await self._worker.answer(loaded.session, [frame.features for frame in current])
        if self._tally is not tally:  # another epoch has begun meanwhile
            if self._scene is not None:
                self._tally.stale(len(current))
                self._metrics.passed_over(self._scene.shadow.version, STALE, len(current))
            return
        for frame, answer in zip(current, answers, strict=True):
            self._count(frame, answer, loaded=loaded, scene=scene)

    def _count(self, frame: Frame, answer: Answer, *, loaded: LoadedVersion, scene: _Scene) -> None:
        found = _answered(answer, loaded)
        if answer.lacking:
            self._tell_lacking(answer.lacking, version=loaded.name)
            verdict = NOT_COMPARABLE
        else:
            expected = Answered(
                prediction=frame.prediction,
                probabilities=frame.probabilities,
                classes=frame.classes,
                error=frame.error,
            )
            verdict = compare(expected, found, tolerance=self._tolerance)
        self._tally.count(frame, verdict, seconds=answer.seconds)
        self._metrics.count(loaded.name, verdict, seconds=answer.seconds, production_seconds=frame.seconds)
        if self._log is not None and verdict is not NOT_COMPARABLE:
            self._log.write(
                record_of(
                    frame,
                    verdict,
                    found,
                    version=loaded.name,
                    seconds=answer.seconds,
                    segments=scene.segments,
                )
            )

    def _tell_lacking(self, lacking: Sequence[str], *, version: str) -> None:
        if self._told_lacking != self._tally.epoch:
            log.warning("requests lack features that the shadow takes", version=version, features=lacking[:8])
        self._told_lacking = self._tally.epoch

    def _loaded(self, scene: _Scene) -> LoadedVersion | None:
        """Return the version of the scene, None while it is not ready."""
        loaded, flags = self._residents.production, self._residents.flags
        if loaded is None or flags is None or loaded.name != scene.shadow.version:
            return None
        return loaded if flags.digests.get(loaded.name, loaded.digest) == loaded.digest else None

    async def _beat(self) -> None:
        """Tell the supervisor for ever, but while a row takes too long."""
        while True:
            if self._worker.busy_seconds <= self._pace.row:
                now = time.monotonic()
                due = now >= self._next_metrics
                self._teller.tell(
                    self.report(),
                    metrics=self._metrics.exposition() if due else None,
                    patience=self._config.proof.trial_seconds if self._is_loading() else 0.0,
                )
                if due:
                    self._next_metrics = now + self._pace.metrics
            await asyncio.sleep(self._pace.tell)

    def _is_loading(self) -> bool:
        """Tell whether all may stand still soon: nothing else runs while onnxruntime loads a model."""
        return any(
            one.state in (VersionState.PROVING, VersionState.LOADING) for one in self._residents.reports()
        )

    def _unused_batcher(self, version: str, session: ModelSession, row_seconds: float) -> Batcher:  # noqa: ARG002
        """Satisfy the residents: here rows reach the session one by one, in a thread."""
        return Batcher(session=session, row_seconds=row_seconds, executor=self._loading, threads=1)

    def _flush(self) -> None:
        self._worker.close()
        if self._log is not None:
            self._log.close(_FLUSH_SECONDS)
            log.info("prediction log", **self._log.report().model_dump())
        self._store.close()


async def _wait(event: asyncio.Event) -> None:
    await event.wait()


def _own_flags(flags: FlagStore, shadow: Shadow) -> FlagStore:
    """Return a flag store under which the shadow's version is what serving processes call production."""
    name = shadow.version
    digests = {name: flags.digests[name]} if name in flags.digests else {}
    return FlagStore(production=name, resident=(name,), digests=digests, attempt=flags.attempt)


def _is_current(frame: Frame, scene: _Scene) -> bool:
    return frame.epoch == scene.shadow.epoch and frame.version == scene.production


def _answered(answer: Answer, loaded: LoadedVersion) -> Answered:
    if answer.prediction is None:
        return Answered(error=answer.error)
    prediction = answer.prediction
    classes = loaded.session.bundle.signature.outputs.classes
    return Answered(prediction=prediction.prediction, probabilities=prediction.probabilities, classes=classes)


def _memory(environment: Mapping[str, str]) -> int | None:
    """Return what a trial is told that the container's limit is; None where there is none."""
    told = environment.get(names.ENV_MEMORY_LIMIT, "")
    return int(int(told) * _MEMORY_SHARE) if told.isascii() and told.isdigit() and int(told) else None


def _open_log(config: RuntimeConfig, settings: Settings) -> PredictionLog | None:
    if config.prediction_log is None or config.shadow is None:
        return None
    return open_log(
        config.prediction_log.model_copy(update={"directory": config.shadow.predictions_dir}),
        model=config.name,
        namespace=config.namespace,
        pod=f"shadow-{settings.pod}",  # objects of the serving process beside it have its own name
        environment=settings.environment,
    )


def read_resume(descriptor: int) -> ProcessReport:
    """Return what the process before had told; nothing where it had told nothing that can be read."""
    with os.fdopen(descriptor, "rb") as file:
        content = file.read(child.MOST_LINE)
    if not content:
        return ProcessReport()
    try:
        return ProcessReport.model_validate_json(content)
    except ValidationError as error:
        log.warning(
            "what the process before told cannot be read, so counts begin anew", error=str(error)[:512]
        )
        return ProcessReport()


def main(pace: Pace = Pace()) -> int:
    """Compare until told to end; return 0 then, and 2 where the configuration cannot work."""
    parser = argparse.ArgumentParser(prog="python -m greenroom_runtime.shadow.process", description=__doc__)
    parser.add_argument("--config", type=Path, required=True)
    parser.add_argument("--frames-port", type=int, default=names.SHADOW_FRAMES_PORT)
    arguments = parser.parse_args()
    try:
        settings = read_settings(os.environ)
        configure_logs(settings.log_level)
        config = parse_config(arguments.config.read_text())
        process = ShadowProcess(
            config,
            settings,
            teller=Teller(child.TELL_DESCRIPTOR),
            resume=read_resume(child.RESUME_DESCRIPTOR),
            frames_port=arguments.frames_port,
            pace=pace,
        )
    except (OSError, ValueError, StoreError) as error:
        sys.stderr.write(f"{' '.join(str(error).split())}\n")  # one line, which the supervisor tells
        return UNUSABLE_CODE
    return _compare_until_told(process)


def _compare_until_told(process: ShadowProcess) -> int:
    """Return the exit code, with which the process ends soon, whatever hangs."""
    code = 1
    try:
        asyncio.run(_watched(process))
        code = 0
    except MemoryError:
        code = OUT_OF_MEMORY_CODE
    except SupervisorGoneError as error:
        sys.stderr.write(f"the supervisor is gone: {error}\n")
    except Exception as error:
        leave_when_starved(error)
        log.exception("a defect: the process ends")
        sys.stderr.write(f"{type(error).__name__}: {error}\n")
    # Python waits for its threads, and one whose model computes for ever never ends.
    last = threading.Timer(_LEAVE_SECONDS, os._exit, (code,))
    last.daemon = True
    last.start()
    return code


async def _watched(process: ShadowProcess) -> None:
    asyncio.get_running_loop().set_exception_handler(_complain)
    await process.run()


def _complain(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    error = context.get("exception")
    if error is not None:
        leave_when_starved(error)
    loop.default_exception_handler(context)


if __name__ == "__main__":
    sys.exit(main())
