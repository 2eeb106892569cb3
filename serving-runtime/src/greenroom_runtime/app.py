"""One serving process: two HTTP servers, the flag file's watcher and the versions that it holds."""

import asyncio
import gc
import os
import random
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Collection
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from functools import partial
from importlib.metadata import version as distribution_version
from pathlib import Path

import structlog

from greenroom_runtime.api.admin import build_admin
from greenroom_runtime.api.exchange import Admission, Application, Endpoint, Reply, Request
from greenroom_runtime.api.open_inference.endpoint import OpenInference
from greenroom_runtime.api.predict import BATCH_PATH, PATH, Predict, PredictBatch
from greenroom_runtime.api.predictor import Predictor
from greenroom_runtime.api.public import build_public
from greenroom_runtime.contract.config import RuntimeConfig
from greenroom_runtime.contract.flags import FlagStore
from greenroom_runtime.contract.report import PodReport
from greenroom_runtime.features.chain import FeatureCache
from greenroom_runtime.features.metrics import FeatureCollector
from greenroom_runtime.features.opening import open_features
from greenroom_runtime.metrics import Metrics
from greenroom_runtime.models.batching import Batcher
from greenroom_runtime.models.residents import LoadedVersion, Residents
from greenroom_runtime.models.session import ModelSession
from greenroom_runtime.models.source import open_source
from greenroom_runtime.models.store import BundleStore
from greenroom_runtime.predictions.log import PredictionLog, open_log
from greenroom_runtime.routing.flag_file import FlagFile
from greenroom_runtime.server import Server, listen, serving
from greenroom_runtime.settings import Settings
from greenroom_runtime.shadow.mirror import open_mirror
from greenroom_runtime.shadow.mirror_metrics import MirrorCollector
from greenroom_runtime.tracing import open_tracing

log = structlog.get_logger(__name__)

_GIVE_UP_SECONDS = 2.0
"""How long the end waits for what it has cancelled: who waits for a mount that hangs may never end."""
_FLUSH_SECONDS = 5.0
"""How long the end may take to write and send what is left of records, and then of traces."""
_COLLECT_AFTER = 10_000
"""Objects made and not freed, before the youngest generation is looked at."""
_MAX_VERSIONS = 64
"""In a report."""


class Runtime:
    """Everything of one process, wired."""

    def __init__(self, config: RuntimeConfig, settings: Settings) -> None:
        """Open the source and the store; ValueError or StoreError where that cannot work."""
        self.config = config
        self.settings = settings
        self.metrics = Metrics()
        self.draining = False
        threads = len(os.sched_getaffinity(0))
        self.inference = ThreadPoolExecutor(threads, thread_name_prefix="inference")
        self._threads = threads
        self.store = BundleStore(
            Path(config.models_dir), source=open_source(config.source_uri, environment=settings.environment)
        )
        self.residents = Residents(
            store=self.store,
            proof=config.proof,
            pod=settings.pod,
            clock=time.monotonic,
            chance=random.random,
            batcher=self._batcher,
            on_swap=self._count_swap,
            on_departure=self._forget,
        )
        self.tracing = open_tracing(settings.environment, model=config.name, pod=settings.pod)
        self.log = _open_log(config, settings)
        if self.log is not None:
            self.metrics.observe_log(self.log)
        self.features = _open_features(config, settings)
        if self.features is not None:
            self.metrics.registry.register(FeatureCollector(self.features))
        self.mirror = open_mirror(config.shadow) if config.shadow is not None else None
        if self.mirror is not None:
            self.metrics.registry.register(MirrorCollector(self.mirror))
        self.predictor = Predictor(
            model=config.name,
            residents=self.residents,
            metrics=self.metrics,
            log=self.log,
            features=self.features,
            mirror=self.mirror,
        )
        self.flag_file = FlagFile(path=Path(config.flags_path), on_document=self._obey)
        self.metrics.observe_state(self.report)

    def report(self) -> PodReport:
        """Return the process's state as it sees itself."""
        residents = self.residents
        return PodReport(
            pod=self.settings.pod,
            model=self.config.name,
            revision=residents.revision,
            production=residents.production.name if residents.production else "",
            ready=residents.production is not None,
            draining=self.draining,
            flags_error=self.flag_file.error[:2048],
            versions=residents.reports()[:_MAX_VERSIONS],
            requests=self.metrics.counts.requests,
            errors=self.metrics.counts.errors,
            fallbacks=self.metrics.counts.fallbacks,
            prediction_log=self.log.report() if self.log is not None else None,
            features=self.features.report() if self.features is not None else None,
            evidence=self.predictor.evidence.report() if self.predictor.evidence is not None else None,
            mirror=self.mirror.report() if self.mirror is not None else None,
        )

    async def run(self) -> None:
        """Serve until SIGTERM or SIGINT, then drain and return; raises when a part of it fails."""
        stop = _signalled()  # first of all: process 1 of a container ignores what it does not handle
        try:
            await self._serve(stop)
        finally:
            if self.mirror is not None:
                await self.mirror.close(_GIVE_UP_SECONDS)
                log.info("mirror", **self.mirror.accounts().model_dump())
            if self.features is not None:
                await self.features.close(_GIVE_UP_SECONDS)
            # In a thread of its own: those of the event loop may all hang.
            with ThreadPoolExecutor(1, thread_name_prefix="flush") as thread:
                await asyncio.get_running_loop().run_in_executor(thread, self._flush)
            self.inference.shutdown(wait=False, cancel_futures=True)
            self.store.close()
        log.info("ended")

    async def _serve(self, stop: asyncio.Future[None]) -> None:
        admission = Admission(limits=self.config.limits)
        version = distribution_version("greenroom")
        public = build_public(
            self._endpoints(admission),
            open_inference=OpenInference(
                predictor=self.predictor, admission=admission, version=version, tracing=self.tracing
            ),
            predictor=self.predictor,
            version=version,
        )
        admin = build_admin(
            residents=self.residents,
            metrics=self.metrics,
            started=lambda: self.flag_file.was_read,
            pod=self.report,
        )
        with (
            listen(self.config.host, self.config.http_port) as http_socket,
            listen(self.config.host, self.config.admin_port) as admin_socket,
        ):
            async with serving(public, http_socket) as http, serving(admin, admin_socket) as internal:
                _spare_garbage_collection()
                log.info(
                    "serving",
                    model=self.config.name,
                    http_port=http_socket.getsockname()[1],
                    admin_port=admin_socket.getsockname()[1],
                )
                await self._work_until_told(stop, [http, internal], admission)
                for server in (http, internal):  # both at once: the time that one may take is all there is
                    server.should_exit = True

    async def _work_until_told(
        self, stop: asyncio.Future[None], servers: list[Server], admission: Admission
    ) -> None:
        works = (self.flag_file.watch(), self.residents.run(), admission.sweep())
        async with _alongside(*works) as failed:
            await asyncio.wait({stop, failed}, return_when=asyncio.FIRST_COMPLETED)
            if failed.done():
                failed.result()
            await self._drain(servers)

    async def _drain(self, servers: list[Server]) -> None:
        """Stay ready and go on answering while the endpoints forget us, which takes up to seconds."""
        self.draining = True
        seconds = self.config.drain_seconds if self.residents.production else 0.0
        log.info("draining", seconds=seconds)
        for server in servers:
            server.close_connections()
        again = _signalled()
        await asyncio.wait({again}, timeout=seconds)
        again.cancel()

    def _endpoints(self, admission: Admission) -> dict[str, Application]:
        predict = Predict(predictor=self.predictor)
        batch = PredictBatch(predictor=self.predictor, limits=self.config.limits)
        answers: dict[str, Callable[[Request], Awaitable[Reply]]] = {PATH: predict, BATCH_PATH: batch}
        return {
            path: Endpoint(answer=answer, admission=admission, refusals=self.predictor, tracing=self.tracing)
            for path, answer in answers.items()
        }

    def _obey(self, flags: FlagStore) -> None:
        self.predictor.obey(flags)
        self.residents.obey(flags)

    def _batcher(self, version: str, session: ModelSession, row_seconds: float) -> Batcher:
        return Batcher(
            session=session,
            row_seconds=row_seconds,
            executor=self.inference,
            threads=self._threads,
            on_run=partial(self.metrics.ran, version),
        )

    def _flush(self) -> None:
        """Write and send what is left of records and traces, in bounded time."""
        if self.log is not None:
            self.log.close(_FLUSH_SECONDS)
            log.info("prediction log", **self.log.report().model_dump())
        if self.tracing is not None:
            self.tracing.close(_FLUSH_SECONDS)

    def _forget(self, version: str) -> None:
        self.predictor.forget(version)

    def _count_swap(self, _: LoadedVersion) -> None:
        self.metrics.swaps.inc()


def _open_log(config: RuntimeConfig, settings: Settings) -> PredictionLog | None:
    if config.prediction_log is None:
        return None
    return open_log(
        config.prediction_log,
        model=config.name,
        namespace=config.namespace,
        pod=settings.pod,
        environment=settings.environment,
    )


def _open_features(config: RuntimeConfig, settings: Settings) -> FeatureCache | None:
    if config.features is None:
        return None
    return open_features(
        config.features, model=config.name, namespace=config.namespace, environment=settings.environment
    )


def _spare_garbage_collection() -> None:
    """Leave what start-up has made out of every later collection, and collect less often.

    Requests make no cycles, so there is little to find; and a look at all that was imported takes longer than
    a hundred requests.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(_COLLECT_AFTER, 10, 100)


def _signalled() -> asyncio.Future[None]:
    """Return a future that the next SIGTERM or SIGINT resolves."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[None] = loop.create_future()

    def resolve() -> None:
        if not future.done():
            future.set_result(None)

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, resolve)
    return future


@asynccontextmanager
async def _alongside(*works: Awaitable[None]) -> AsyncIterator[asyncio.Future[None]]:
    """Run the endless works meanwhile; the future resolves with the first one's failure."""
    tasks = [asyncio.ensure_future(work) for work in works]
    failed = asyncio.ensure_future(_first(tasks))
    try:
        yield failed
    finally:
        for task in (failed, *tasks):
            task.cancel()
        await asyncio.wait({failed, *tasks}, timeout=_GIVE_UP_SECONDS)


async def _first(tasks: Collection[asyncio.Future[None]]) -> None:
    done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    for task in done:
        task.result()
