"""Of several operators at most one believes that it may write."""

import asyncio
import copy
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from greenroom_operator.controller.elector import Elector
from greenroom_operator.errors import Conflict, Unavailable
from tests.support.virtual_time import run

EPOCH = datetime(2026, 1, 1, tzinfo=UTC)


class FaultyLeases:
    """One Lease with the API server's compare-and-swap; it can be cut off, or made to hang or to be slow."""

    def __init__(self) -> None:
        self.lease: dict[str, Any] | None = None
        self.cut_off = False
        self.hangs = False
        self.latency = 0.0
        self.writes = 0
        self._version = 0

    async def get(self, *_: str) -> dict[str, Any] | None:
        """Read."""
        await self._travel()
        return copy.deepcopy(self.lease)

    async def create(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """Make the one that is not there yet."""
        await self._travel()
        if self.lease is not None:
            raise Conflict(verb="create", kind="Lease", summary="exists")
        return self._store(body)

    async def replace(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """Swap, if it is still the one that was read."""
        await self._travel()
        known = self.lease and self.lease["metadata"]["resourceVersion"]
        if known != body["metadata"].get("resourceVersion"):
            raise Conflict(verb="replace", kind="Lease", summary="modified")
        return self._store(body)

    def _store(self, body: Mapping[str, Any]) -> dict[str, Any]:
        self._version += 1
        self.writes += 1
        self.lease = copy.deepcopy(dict(body))
        self.lease["metadata"]["resourceVersion"] = str(self._version)
        return copy.deepcopy(self.lease)

    async def _travel(self) -> None:
        if self.hangs:
            await asyncio.Event().wait()
        await asyncio.sleep(self.latency)
        if self.cut_off:
            raise Unavailable(verb="get", kind="Lease", summary="no route to host")


class Link:
    """One candidate's way to the lease, which can be cut off by itself."""

    def __init__(self, leases: FaultyLeases) -> None:
        self._leases = leases
        self.cut_off = False

    async def get(self, *place: str) -> dict[str, Any] | None:
        """Read, if not cut off."""
        return await self._try().get(*place)

    async def create(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """Make, if not cut off."""
        return await self._try().create(body)

    async def replace(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """Swap, if not cut off."""
        return await self._try().replace(body)

    def _try(self) -> FaultyLeases:
        if self.cut_off:
            raise Unavailable(verb="get", kind="Lease", summary="no route to host")
        return self._leases


def now() -> float:
    """Return the virtual time."""
    return asyncio.get_running_loop().time()


def candidate(leases: FaultyLeases | Link, identity: str, lost: list[str] | None = None) -> Elector:
    """Return a candidate in virtual time; ``lost`` collects why it lost the lease."""
    reasons: list[str] = [] if lost is None else lost
    return Elector(
        leases,
        namespace="greenroom",
        name="operator",
        identity=identity,
        on_lost=reasons.append,
        monotonic=now,
        now=lambda: EPOCH + timedelta(seconds=now()),
    )


def holder(leases: FaultyLeases) -> str:
    """Return who holds the lease."""
    assert leases.lease is not None
    identity: str = leases.lease["spec"]["holderIdentity"]
    return identity


def test_the_first_candidate_holds_the_lease_at_once_and_keeps_it() -> None:
    """A lone operator works without delay, for hours."""

    async def scenario() -> None:
        leases, lost = FaultyLeases(), list[str]()
        first = candidate(leases, "a", lost)
        assert not first.valid()
        begun = now()
        await first.acquire()
        assert now() == begun
        hold = asyncio.create_task(first.hold())
        for _ in range(1000):
            await asyncio.sleep(7)
            assert first.valid()
        assert lost == []
        hold.cancel()

    run(scenario())


def test_a_second_candidate_waits_while_the_first_renews() -> None:
    """There is one leader, however long the other waits."""

    async def scenario() -> None:
        leases = FaultyLeases()
        first, second = candidate(leases, "a"), candidate(leases, "b")
        await first.acquire()
        hold = asyncio.create_task(first.hold())
        waiting = asyncio.create_task(second.acquire())
        await asyncio.sleep(3600)
        assert not waiting.done()
        assert not second.valid()
        waiting.cancel()
        hold.cancel()

    run(scenario())


def test_a_dead_leader_is_succeeded_after_its_lease_has_run_out() -> None:
    """A crash costs the lease's 15 seconds and one look."""

    async def scenario() -> None:
        leases = FaultyLeases()
        first, second = candidate(leases, "a"), candidate(leases, "b")
        await first.acquire()
        begun = now()
        await second.acquire()
        assert 15 < now() - begun <= 18
        assert holder(leases) == "b"
        assert not first.valid()
        assert leases.lease is not None
        assert leases.lease["spec"]["leaseTransitions"] == 2

    run(scenario())


def test_a_leader_that_ends_in_order_is_succeeded_at_once() -> None:
    """A rolling update of the operator costs seconds, not the lease's duration."""

    async def scenario() -> None:
        leases = FaultyLeases()
        first, second = candidate(leases, "a"), candidate(leases, "b")
        await first.acquire()
        waiting = asyncio.create_task(second.acquire())
        await asyncio.sleep(5)
        await first.release()
        assert not first.valid()
        begun = now()
        await waiting
        assert now() - begun <= 2

    run(scenario())


def test_a_leader_that_is_cut_off_stops_before_anyone_can_succeed_it() -> None:
    """At no time do two candidates believe that they may write."""

    async def scenario() -> None:
        leases, lost = FaultyLeases(), list[str]()
        link = Link(leases)
        first, second = candidate(link, "a", lost), candidate(leases, "b")
        await first.acquire()
        hold = asyncio.create_task(first.hold())
        waiting = asyncio.create_task(second.acquire())
        await asyncio.sleep(20)
        link.cut_off = True
        for _ in range(400):
            await asyncio.sleep(0.1)
            assert not (first.valid() and second.valid())
        await waiting
        assert second.valid() or holder(leases) == "b"
        assert len(lost) == 1
        assert "within 10 s" in lost[0]
        await hold

    run(scenario())


def test_a_server_that_never_answers_is_a_server_that_is_not_there() -> None:
    """A request that hangs does not keep a leader believing."""

    async def scenario() -> None:
        leases, lost = FaultyLeases(), list[str]()
        leader = candidate(leases, "a", lost)
        await leader.acquire()
        begun = now()
        leases.hangs = True
        await leader.hold()
        assert lost
        assert now() - begun <= 13
        assert not leader.valid()

    run(scenario())


def test_a_short_outage_is_survived() -> None:
    """An API server that restarts in a few seconds costs no leadership."""

    async def scenario() -> None:
        leases, lost = FaultyLeases(), list[str]()
        leader = candidate(leases, "a", lost)
        await leader.acquire()
        hold = asyncio.create_task(leader.hold())
        await asyncio.sleep(10)
        leases.cut_off = True
        await asyncio.sleep(6)
        leases.cut_off = False
        await asyncio.sleep(30)
        assert leader.valid()
        assert lost == []
        hold.cancel()

    run(scenario())


def test_time_counts_from_before_the_renewal_was_sent() -> None:
    """A slow answer does not lengthen what the lease promised."""

    async def scenario() -> None:
        leases = FaultyLeases()
        leader = candidate(leases, "a")
        leases.latency = 1.4
        begun = now()
        await leader.acquire()
        await asyncio.sleep(begun + 9.9 - now())
        assert leader.valid()
        await asyncio.sleep(0.2)
        assert not leader.valid()

    run(scenario())


def test_a_leader_whose_lease_was_taken_says_so() -> None:
    """A person who edits the Lease by hand ends this leader, and it does not fight back."""

    async def scenario() -> None:
        leases, lost = FaultyLeases(), list[str]()
        leader = candidate(leases, "a", lost)
        await leader.acquire()
        hold = asyncio.create_task(leader.hold())
        await asyncio.sleep(5)
        assert leases.lease is not None
        leases.lease["spec"]["holderIdentity"] = "intruder"
        await hold
        assert lost == ["another process holds the lease"]
        assert not leader.valid()
        await leader.release()
        assert holder(leases) == "intruder"

    run(scenario())


def test_a_deleted_lease_is_made_anew_by_its_holder() -> None:
    """Deleting the Lease by hand does no harm."""

    async def scenario() -> None:
        leases, lost = FaultyLeases(), list[str]()
        leader = candidate(leases, "a", lost)
        await leader.acquire()
        hold = asyncio.create_task(leader.hold())
        await asyncio.sleep(5)
        leases.lease = None
        await asyncio.sleep(5)
        assert holder(leases) == "a"
        assert lost == []
        hold.cancel()

    run(scenario())


@pytest.mark.parametrize(
    "spec", [{}, {"holderIdentity": ""}, {"holderIdentity": None, "leaseDurationSeconds": None}]
)
def test_a_lease_without_a_holder_is_free(spec: dict[str, Any]) -> None:
    """Whatever a person or another tool left there, an unheld Lease is taken at once."""

    async def scenario() -> None:
        leases = FaultyLeases()
        leases.lease = {"metadata": {"name": "operator", "resourceVersion": "7"}, "spec": spec}
        begun = now()
        await candidate(leases, "a").acquire()
        assert now() == begun

    run(scenario())


def test_of_two_that_reach_for_a_free_lease_one_gets_it() -> None:
    """Compare-and-swap decides, not who looked first."""

    async def scenario() -> None:
        leases = FaultyLeases()
        leases.latency = 0.5
        candidates = [candidate(leases, name) for name in "abcde"]
        tasks = [asyncio.create_task(each.acquire()) for each in candidates]
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        assert sum(each.valid() for each in candidates) == 1
        assert leases.writes == 1
        for task in tasks:
            task.cancel()

    run(scenario())


def test_a_release_that_fails_is_not_the_end_of_the_world() -> None:
    """The process ends all the same; the successor waits for the lease to run out."""

    async def scenario() -> None:
        leases = FaultyLeases()
        leader = candidate(leases, "a")
        await leader.acquire()
        leases.hangs = True
        begun = now()
        await leader.release()
        assert now() - begun <= 3
        assert not leader.valid()

    run(scenario())
