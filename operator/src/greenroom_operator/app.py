"""Wiring: settings in, a running operator out, and an exit code."""

import asyncio
import contextlib
import os
import random
import signal
import sys
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime
from typing import Final

import kopf
import structlog
from aiohttp import web

from greenroom_operator.controller.elector import Elector
from greenroom_operator.controller.reconcile import Reconciler
from greenroom_operator.controller.store import Store
from greenroom_operator.controller.workqueue import WorkQueue
from greenroom_operator.controller.writer import Writer
from greenroom_operator.errors import (
    Conflict,
    Forbidden,
    KubeError,
    NotConfigured,
    NotFound,
    NotLeading,
    Unavailable,
)
from greenroom_operator.handlers import build_registry, build_settings
from greenroom_operator.kinds import LEASE, MODEL_DEPLOYMENT, WATCHED, Key, Kind
from greenroom_operator.kube import Kube
from greenroom_operator.logs import configure_logs
from greenroom_operator.metrics import Metrics
from greenroom_operator.pods import PodReports, ShadowReports
from greenroom_operator.settings import Settings

RELIST_PERIOD: Final = 600.0
RELIST_DEBOUNCE: Final = 5.0
EXIT_DEADLINE: Final = 25.0
"""Seconds from SIGTERM until the process ends whatever happens; below the pod's 30 s of grace."""
_STOP_DEADLINE: Final = 15.0
_RETRY: Final = 2.0

log = structlog.get_logger(__name__)


async def run(settings: Settings) -> int:
    """Run until SIGTERM or SIGINT; return the exit code."""
    metrics = Metrics()
    stop = asyncio.Event()
    _stop_on_signals(stop)
    try:
        kube = await Kube.connect(metrics=metrics)
        operator = Operator(settings, kube=kube, metrics=metrics, stop=stop)
        async with kube, serve_health(operator, settings=settings):
            return await _run_until_stopped(operator, stop=stop)
    except NotConfigured as error:
        log.error("cannot start", error=str(error))  # noqa: TRY400 - the text says what to do; a trace says nothing
        return 1


async def _run_until_stopped(operator: "Operator", *, stop: asyncio.Event) -> int:
    work = asyncio.create_task(operator.work(), name="work")
    stopping = asyncio.create_task(stop.wait(), name="stop")
    await asyncio.wait({work, stopping}, return_when=asyncio.FIRST_COMPLETED)
    stopping.cancel()
    if stop.is_set():
        log.info("stopping")
        _exit_at_the_latest(EXIT_DEADLINE)
        work.cancel()
        await asyncio.wait({work}, timeout=_STOP_DEADLINE)
    await operator.elector.release()
    if stop.is_set():
        return 0
    error = work.exception()  # by itself it ends only by failing
    if isinstance(error, NotConfigured):
        raise error
    log.critical("the operator ended", exc_info=error)
    return 1


class Operator:
    """One process: candidate for the lease, then the one that works."""

    def __init__(self, settings: Settings, *, kube: Kube, metrics: Metrics, stop: asyncio.Event) -> None:
        self._settings = settings
        self._kube = kube
        self._stop = stop
        self.metrics = metrics
        self.elector = Elector(
            kube,
            namespace=settings.lease_namespace,
            name=settings.lease_name,
            identity=settings.identity,
            on_lost=_exit_at_once,
        )
        self._store = Store()
        self._queue: WorkQueue[Key] = WorkQueue(random=random.random)
        self._reports = PodReports()
        self._shadow_reports = ShadowReports()
        self._writer = Writer(
            kube,
            store=self._store,
            metrics=metrics,
            may_write=self.elector.valid,
        )
        self._reconciler = Reconciler(
            store=self._store,
            writer=self._writer,
            reports=self._reports,
            shadow_reports=self._shadow_reports,
            default_image=settings.runtime_image,
            instance=settings.identity,
            now=_now,
            monotonic=time.monotonic,
        )
        self._relist_wanted = asyncio.Event()
        self.ready = False
        """Whether it waits for the lease, or holds it and knows the world."""
        metrics.leader.set_function(self.elector.valid)
        metrics.workqueue_depth.set_function(lambda: self._queue.depth)
        metrics.workqueue_oldest_age.set_function(lambda: self._queue.oldest_age)

    async def work(self) -> None:
        """Wait for the lease, then look after every ModelDeployment. Returns only by raising."""
        await self._insist(self._check_access)
        self.ready = True
        await self.elector.acquire()
        self.ready = False
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self.elector.hold(), name="lease")
            await self.look_after()

    async def look_after(self) -> None:
        """Observe and reconcile for as long as the lease is held. Returns only by raising."""
        await self._insist(self._relist)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._reports.run(self._queue.add), name="reports")
            tasks.create_task(self._shadow_reports.run(self._queue.add), name="shadow-reports")
            tasks.create_task(self._relist_again(), name="relist")
            for number in range(self._settings.workers):
                tasks.create_task(self._take_keys(), name=f"worker-{number}")
            # The last one: kopf takes every task that is younger than itself for its own, and ends it.
            tasks.create_task(self._inform(), name="informers")
            self.ready = True
            log.info("working", workers=self._settings.workers, deployments=len(self._store.keys()))

    async def _insist(self, action: Callable[[], Awaitable[None]]) -> None:
        """Try until the API server is there."""
        while True:
            try:
                return await action()
            except Unavailable as error:
                log.warning("the API server does not answer; trying again", error=str(error))
                await asyncio.sleep(_RETRY)

    async def _check_access(self) -> None:
        for kind in WATCHED:
            for namespace in self._namespaces:
                try:
                    await self._kube.check(kind.name, namespace=namespace, label_selector=kind.label_selector)
                except (Forbidden, NotFound) as error:
                    raise NotConfigured(_remedy(kind, namespace, error)) from error
        try:
            await self._kube.get(LEASE.name, self._settings.lease_namespace, self._settings.lease_name)
        except Forbidden as error:
            raise NotConfigured(
                f"not allowed to read the lease in namespace {self._settings.lease_namespace}: grant get, "
                f"create and update on {LEASE.resource} there to the operator's service account: "
                f"{error.summary}"
            ) from error

    async def _relist(self) -> None:
        """Observe everything there is; queue what is news."""
        for kind in WATCHED:
            for namespace in self._namespaces:
                items, version = await self._kube.list(
                    kind.name, namespace=namespace, label_selector=kind.label_selector
                )
                for key in self._store.relist(kind.name, items, version, namespace=namespace):
                    self._queue.add(key)

    async def _relist_again(self) -> None:
        """Observe everything soon after a watch was cut, and every ten minutes; then look at every key."""
        while True:
            period = RELIST_PERIOD * random.uniform(0.9, 1.1)  # noqa: S311 - spreads load, keeps no secret
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(period):
                    await self._relist_wanted.wait()
            if wanted := self._relist_wanted.is_set():
                await asyncio.sleep(RELIST_DEBOUNCE)
                self._relist_wanted.clear()
            try:
                await self._relist()
            except KubeError as error:
                log.warning("relist failed; trying again", error=str(error))
                self._relist_wanted.set()
                continue
            if not wanted:
                for key in sorted(self._store.keys()):
                    self._queue.add(key)

    async def _inform(self) -> None:
        started = asyncio.Event()
        registry = build_registry(
            store=self._store,
            queue=self._queue,
            metrics=self.metrics,
            on_relist=self._relist_wanted.set,
            credentials=self._kube.credentials,
        )
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._take_signals_back(started))
            await kopf.operator(
                registry=registry,
                settings=build_settings(),
                clusterwide=not self._settings.namespaces,
                namespaces=self._settings.namespaces,
                standalone=True,
                # Kopf would look up the name of the process's user, which a container's uid has not.
                identity=self._settings.identity,  # type: ignore[arg-type]
                ready_flag=started,
            )
        self._stop.set()  # kopf returns only when it was it that got the signal

    async def _take_signals_back(self, started: asyncio.Event) -> None:
        """Kopf takes the process's signals; but workers must end first, and the lease be released."""
        await started.wait()
        _stop_on_signals(self._stop)

    async def _take_keys(self) -> None:
        while True:
            key = await self._queue.get()
            try:
                await self._pass(key)
            finally:
                self._queue.done(key)

    async def _pass(self, key: Key) -> None:
        """Reconcile one key, and put it off or back as it turned out."""
        begun = time.perf_counter()
        try:
            result = await self._reconciler.reconcile(key)
        except Exception as error:  # noqa: BLE001 - one key's failure, whatever it is, must not end the worker
            await self._failed(key, error)
            self.metrics.reconciles.labels(result="error").inc()
        else:
            self._queue.succeeded(key)
            if result.requeue_after is not None:
                self._queue.add_after(key, result.requeue_after)
            self.metrics.reconciles.labels(result="success").inc()
        self.metrics.reconcile_duration.observe(time.perf_counter() - begun)

    async def _failed(self, key: Key, error: Exception) -> None:
        self.metrics.reconcile_errors.labels(reason=type(error).__name__).inc()
        delay = self._queue.retry(key)
        told = {"namespace": key.namespace, "name": key.name, "retry_in": round(delay, 2)}
        match error:
            case Conflict() | NotFound():
                log.info("observing again", error=str(error), **told)
                with contextlib.suppress(KubeError):
                    await self._writer.get(error.kind, error.namespace, error.name)
            case NotLeading():
                log.info("not reconciled", error=str(error), **told)
            case KubeError():
                log.warning("not reconciled", error=str(error), **told)
            case _:
                log.error("reconcile failed", exc_info=error, **told)

    @property
    def _namespaces(self) -> tuple[str | None, ...]:
        return self._settings.namespaces or (None,)


@contextlib.asynccontextmanager
async def serve_health(operator: Operator, *, settings: Settings) -> AsyncIterator[None]:
    """Serve ``/livez`` (the event loop turns), ``/readyz`` and ``/metrics``."""

    async def live(_: web.Request) -> web.Response:
        return web.Response(text="ok")

    async def ready(_: web.Request) -> web.Response:
        return web.Response(text="ok") if operator.ready else web.Response(status=503, text="starting")

    async def metrics(_: web.Request) -> web.Response:
        return web.Response(body=operator.metrics.exposition(), content_type="text/plain", charset="utf-8")

    application = web.Application()
    application.add_routes([web.get("/livez", live), web.get("/readyz", ready), web.get("/metrics", metrics)])
    runner = web.AppRunner(application, access_log=None, shutdown_timeout=1)
    await runner.setup()
    try:
        await _listen(runner, settings)
        log.info("health and metrics", address="http://{}:{}".format(*runner.addresses[0]))
        yield
    finally:
        await runner.cleanup()


async def _listen(runner: web.AppRunner, settings: Settings) -> None:
    try:
        await web.TCPSite(runner, settings.listen, settings.port).start()
    except OSError as error:
        raise NotConfigured(
            f"cannot serve health and metrics: {error.strerror}; give another --listen or --port"
        ) from error


def main(settings: Settings) -> None:
    """Run the operator in this process and end it with its exit code."""
    configure_logs(settings.log_format, level=settings.log_level)
    sys.exit(asyncio.run(run(settings)))


def _remedy(kind: Kind, namespace: str | None, error: KubeError) -> str:
    place = f"in namespace {namespace}" if namespace is not None else "in all namespaces"
    if isinstance(error, NotFound):
        what = (
            "apply crds/, or install the chart with crds.enabled=true"
            if kind == MODEL_DEPLOYMENT
            else "this Kubernetes is too old"
        )
        return f"the API server does not serve {kind.resource} {kind.api_version}: {what}"
    return (
        f"not allowed to list {kind.resource} {place}: grant get, list and watch on it to the operator's "
        f"service account, as the chart does: {error.summary}"
    )


def _stop_on_signals(stop: asyncio.Event) -> None:
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)


def _exit_at_the_latest(seconds: float) -> None:
    """End the process from a thread of its own: the event loop may be what hangs."""
    timer = threading.Timer(seconds, os._exit, args=(1,))
    timer.daemon = True
    timer.start()


def _exit_at_once(reason: str) -> None:
    """End without any clean-up: another process may be writing already."""
    log.critical("lost the lease", reason=reason)
    sys.stdout.flush()
    os._exit(1)


def _now() -> datetime:
    return datetime.now(UTC)
