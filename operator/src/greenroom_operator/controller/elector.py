"""Which of several operators works: a Lease, taken and renewed by compare-and-swap.

A Lease is no fence. A process that was stopped for a while may still send what it had decided before;
what must not be overwritten then carries the resource version that it was decided from.
"""

import asyncio
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any, Protocol

import structlog

from greenroom_operator.errors import KubeError
from greenroom_operator.kinds import LEASE

Body = dict[str, Any]

log = structlog.get_logger(__name__)


class Leases(Protocol):
    """What the elector needs of the API server."""

    async def get(self, kind: str, namespace: str, name: str) -> Body | None:
        """Read one object; None when there is none."""

    async def create(self, body: Mapping[str, Any]) -> Body:
        """Create an object; Conflict when its name is taken."""

    async def replace(self, body: Mapping[str, Any]) -> Body:
        """Replace an object that still has the body's resource version, otherwise Conflict."""


class Elector:
    """One candidate. ``identity`` must be unique to this process, not to its pod or host.

    Whether another's lease has run out is judged by our own monotonic clock, from when *we* last saw it
    change: no two machines' clocks are compared. Our own counts from before the request that renewed it was
    sent. All times are seconds; the lease lasts longer than its holder trusts it, so that two never overlap.
    """

    def __init__(
        self,
        leases: Leases,
        *,
        namespace: str,
        name: str,
        identity: str,
        on_lost: Callable[[str], None],
        monotonic: Callable[[], float] = time.monotonic,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        duration: float = 15,
        renew_deadline: float = 10,
        retry_period: float = 2,
        request_timeout: float = 3,
    ) -> None:
        self._leases = leases
        self._namespace = namespace
        self._name = name
        self._identity = identity
        self._on_lost = on_lost
        self._monotonic = monotonic
        self._now = now
        self._duration = duration
        self._renew_deadline = renew_deadline
        self._retry_period = retry_period
        self._request_timeout = request_timeout
        self._renewed: float | None = None
        self._seen_version = ""
        self._seen_at = 0.0

    def valid(self) -> bool:
        """Whether this process may write now; one that was stopped finds out here, by the clock alone."""
        return self._renewed is not None and self._monotonic() - self._renewed < self._renew_deadline

    async def acquire(self) -> None:
        """Wait until this process holds the lease."""
        log.info("waiting for the lease", lease=f"{self._namespace}/{self._name}", identity=self._identity)
        while not await self._attempt():  # noqa: ASYNC110 - what it waits for happens elsewhere
            await asyncio.sleep(self._retry_period)
        log.info("holding the lease", lease=f"{self._namespace}/{self._name}", identity=self._identity)

    async def hold(self) -> None:
        """Renew the lease until it is lost: then ``on_lost`` is told why, and must not let anything go on."""
        while self.valid():
            await asyncio.sleep(self._retry_period)
            if not self.valid():
                break
            if not await self._attempt() and self._renewed is None:
                self._on_lost("another process holds the lease")
                return
        self._renewed = None
        self._on_lost(f"the lease could not be renewed within {self._renew_deadline:g} s")

    async def release(self) -> None:
        """Give the lease up, so that a successor need not wait for it to run out. Never raises KubeError."""
        if not self.valid():
            return
        self._renewed = None
        try:
            async with asyncio.timeout(self._request_timeout):
                lease = await self._leases.get(LEASE.name, self._namespace, self._name)
                if lease is not None and _holder(lease) == self._identity:
                    await self._leases.replace(self._written(lease, holder=""))
                    log.info("released the lease")
        except (KubeError, TimeoutError) as error:
            log.warning("lease not released; a successor waits until it has run out", error=str(error))

    async def _attempt(self) -> bool:
        """Take or renew the lease; False when that did not succeed, for whatever reason."""
        sent = self._monotonic()
        try:
            async with asyncio.timeout(self._request_timeout):
                taken = await self._take()
        except (KubeError, TimeoutError) as error:
            log.warning("lease not written", error=str(error) or "no answer in time")
            return False
        self._renewed = sent if taken else None
        return taken

    async def _take(self) -> bool:
        lease = await self._leases.get(LEASE.name, self._namespace, self._name)
        if lease is None:
            await self._leases.create(self._written(self._new(), holder=self._identity))
            return True
        if _holder(lease) not in ("", self._identity) and not self._has_run_out(lease):
            return False
        await self._leases.replace(self._written(lease, holder=self._identity))
        return True

    def _has_run_out(self, lease: Body) -> bool:
        now, version = self._monotonic(), lease["metadata"]["resourceVersion"]
        if version != self._seen_version:
            self._seen_version, self._seen_at = version, now
        return now - self._seen_at > (lease["spec"].get("leaseDurationSeconds") or self._duration)

    def _new(self) -> Body:
        return {
            "apiVersion": LEASE.api_version,
            "kind": LEASE.name,
            "metadata": {"namespace": self._namespace, "name": self._name},
        }

    def _written(self, lease: Body, *, holder: str) -> Body:
        before = lease.get("spec") or {}
        at = self._now().astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        spec = {
            **before,
            "holderIdentity": holder,
            "leaseDurationSeconds": round(self._duration),
            "renewTime": at,
        }
        if holder not in ("", before.get("holderIdentity")):
            spec |= {"acquireTime": at, "leaseTransitions": (before.get("leaseTransitions") or 0) + 1}
        return {**lease, "spec": spec}


def _holder(lease: Body) -> str:
    return (lease.get("spec") or {}).get("holderIdentity") or ""
