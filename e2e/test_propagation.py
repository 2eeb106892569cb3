"""The flag store on its way: while some pods obey a new one and others an old one, nobody is harmed."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import httpx2
import pytest

from e2e.conftest import TrainedModels
from e2e.penguins import Penguins, reached
from e2e.terminal import Terminal
from e2e.traffic import Traffic
from greenroom_runtime.contract.flags import FlagStore, Rollout
from greenroom_runtime.contract.report import PodReport, VersionState
from greenroom_runtime.routing.router import compile_router

pytestmark = pytest.mark.usefixtures("operator")
USERS = [f"user-{number}" for number in range(20)]


@pytest.fixture
def penguins(penguins: Penguins) -> Penguins:
    """Give two pods that serve v2 and hold v1, and an operator that keeps its hands off them."""
    penguins.apply()
    penguins.apply(version="v2", wait=False)
    penguins.until_promoted("v2")
    penguins.leave_alone()
    return penguins


def test_pods_that_disagree_are_safe(penguins: Penguins, terminal: Terminal, models: TrainedModels) -> None:
    """One pod obeys the new store, one is not told of it: no request fails, each answer is proven.

    A pod that starts meanwhile comes up on the new store. Once all obey, a user has one version everywhere.
    """
    with reached(terminal, penguins.namespace) as url, Traffic(url, models.rows, kept=8) as traffic:
        new = _disagree(penguins, traffic)
        penguins("scale", "deployment", "penguins", "--replicas=3")
        reports = penguins.until_reported(lambda found: len(found) == 3 and all(_serve(found)))
        assert sum(_obey(reports, new)) >= 2
        # kubelet would come to it by itself, in up to 90 s: `make bench-propagation` measures that.
        penguins.touch(*penguins.lives(), written="told-at-last")
        _wait_for_all(penguins, new)
        traffic.wait_for_every_client(new.production)
        seen = _versions_by_user(url, models.rows[0])
    assert traffic.failed == []
    assert {answer.version for answer in traffic.answers} == {"v1", "v2"}
    router = compile_router(new)
    assert seen == {user: {router.choose(user, {}).version} for user in USERS}


def _disagree(penguins: Penguins, traffic: Traffic) -> FlagStore:
    """Write another store and touch one of two pods; again, where kubelet was about to refresh the other."""
    for _ in range(5):
        new = _flipped(penguins.flags)
        if _answer_differently(penguins, traffic, new):
            return new
        _wait_for_all(penguins, new)
    message = "kubelet refreshed the untouched pod at once, five times: nothing disagrees"
    raise AssertionError(message)


def _answer_differently(penguins: Penguins, traffic: Traffic, new: FlagStore) -> bool:
    """Tell whether clients got both versions after one pod obeyed and before the other did."""
    touched, untouched = sorted(penguins.lives())
    penguins.touch(touched, written=penguins.write_flags(new))
    penguins.until_reported(lambda found: touched in found and _obeys(found[touched], new))
    since = len(traffic.answers)

    def both() -> bool:
        return {answer.version for answer in traffic.answers[since:]} == {"v1", "v2"}

    penguins.until_reported(lambda found: both() or (untouched in found and _obeys(found[untouched], new)))
    return both()


def _wait_for_all(penguins: Penguins, flags: FlagStore) -> None:
    """Wait until every pod obeys, the silent ones included, and holds all versions that it may answer by."""
    pods = penguins.pod_names()
    penguins.until_reported(
        lambda found: (
            found.keys() == pods
            and all(_obeys(report, flags) and _holds(report, flags) for report in found.values())
        )
    )


def _flipped(flags: FlagStore) -> FlagStore:
    """Return the way back to the version before, which half of the users do not go."""
    rollout = Rollout(version=flags.production, hundredths=5000, salt="e2e/penguins")
    return replace(flags, production=flags.previous, previous=flags.production, rollout=rollout)


def _obeys(report: PodReport, flags: FlagStore) -> bool:
    return (report.revision, report.production) == (flags.revision, flags.production)


def _obey(reports: Mapping[str, PodReport], flags: FlagStore) -> list[bool]:
    return [_obeys(report, flags) for report in reports.values()]


def _holds(report: PodReport, flags: FlagStore) -> bool:
    found = [report.version(version) for version in flags.routable]
    return all(seen is not None and seen.state is VersionState.READY for seen in found)


def _serve(reports: Mapping[str, PodReport]) -> list[bool]:
    return [report.ready and report.production in {"v1", "v2"} for report in reports.values()]


def _versions_by_user(url: str, row: dict[str, Any]) -> dict[str, set[str]]:
    """Ask for each user some times, over a new connection each time: so that all pods are asked."""
    seen: dict[str, set[str]] = {user: set() for user in USERS}
    limits = httpx2.Limits(max_keepalive_connections=0)
    with httpx2.Client(trust_env=False, timeout=60, limits=limits) as client:
        for user in USERS * 8:
            answer = client.post(f"{url}/predict", json={"features": row, "user_id": user})
            seen[user].add(answer.json()["version"])
    return seen
