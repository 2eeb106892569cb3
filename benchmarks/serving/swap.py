"""What clients feel of a swap: latency in windows around swaps and in windows without; memory over many."""

import os
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.serving import greenroom_server
from benchmarks.serving.compare import ROOT
from benchmarks.serving.load import LOAD_CORE
from benchmarks.serving.model import Zoo
from benchmarks.serving.process import Tree, free_ports, started, wait_ready
from benchmarks.serving.protocols import NAMED
from benchmarks.serving.results import Machine, this_machine
from benchmarks.serving.traffic import Sent, Traffic, Window, percentile, within
from greenroom_runtime.contract.flags import FlagStore

CONNECTIONS = 8
_VERSIONS = ("w1", "w2")
_AFTER_SECONDS = 0.3
"""How long after the first answer by the new version its window lasts: the old one is freed in it."""
_SWITCH_SECONDS = 0.1
_SWAP_SECONDS = 60.0
_FEW_SWAPS = 3
P99_BOUND, RSS_BOUND = 1.2, 1.05


@dataclass(frozen=True, kw_only=True)
class Latency:
    """Of all requests that were due in windows of one kind."""

    requests: int
    p50_ms: float
    p99_ms: float
    worst_ms: float


@dataclass(frozen=True, kw_only=True)
class Swaps:
    """Many swaps of one kind."""

    kind: str
    count: int
    seconds: float
    """The median from the flag store's change to the first answer by the new version."""
    quiet: Latency
    """In windows just before the swaps."""
    during: Latency
    """From the flag store's change until the new version has answered and the old one is gone."""
    switch: Latency
    """In the tenth of a second before and after the first answer by the new version."""
    failed: int
    profile_ms: list[float]
    """p99 in each tenth of a second since the flag store's change, of all swaps together: when it hurts."""

    @property
    def ratio(self) -> float:
        """How much worse the slowest hundredth of requests fares during a swap."""
        return self.during.p99_ms / self.quiet.p99_ms


@dataclass(frozen=True, kw_only=True)
class SwapResults:
    """What ``swap`` has measured."""

    date: str
    machine: Machine
    rate: float
    """Requests per second."""
    swaps: list[Swaps]
    rss_mib: list[float]
    """Of the serving process after each swap to a version that had to be prepared."""


def measure_swaps(zoo: Zoo, *, date: str, count: int, rate: float, quiet_seconds: float) -> SwapResults:
    """Swap to and fro under load: first versions that must be prepared, then versions that are resident."""
    machine = this_machine()
    rss: list[float] = []
    with _serving(zoo) as (tree, port, state):
        os.sched_setaffinity(0, {LOAD_CORE})
        requests = [NAMED.raw(row, f"user-{index}") for index, row in enumerate(zoo.rows)]
        with Traffic(port, requests, connections=CONNECTIONS, rate=rate) as traffic:
            run = _Run(traffic=traffic, state=state, tree=tree, quiet_seconds=quiet_seconds)
            swaps = [run.swaps(count, resident=False, rss=rss), run.swaps(count, resident=True, rss=[])]
    return SwapResults(date=date, machine=machine, rate=rate, swaps=swaps, rss_mib=rss)


@contextmanager
def _serving(zoo: Zoo) -> Iterator[tuple[Tree, int, Path]]:
    with tempfile.TemporaryDirectory(prefix="bench-swap-") as directory:
        state = Path(directory)
        port, admin_port = free_ports(2)
        config = greenroom_server.write_state(
            state,
            source=zoo.directory,
            port=port,
            admin_port=admin_port,
            flags=FlagStore(production=_VERSIONS[0], resident=_VERSIONS[:1]),
            log=greenroom_server.prediction_log(state),
        )
        command = [sys.executable, "-m", "greenroom_runtime", "--config", str(config)]
        since = time.monotonic()
        environment = greenroom_server.ENVIRONMENT
        with started(command, environment=environment, cwd=ROOT, log=state / "server.log") as tree:
            wait_ready(tree, port, NAMED.raw(zoo.rows[0], "user-0"), since=since)
            yield tree, port, state


@dataclass(frozen=True, kw_only=True)
class _Run:
    traffic: Traffic
    state: Path
    tree: Tree
    quiet_seconds: float

    def swaps(self, count: int, *, resident: bool, rss: list[float]) -> Swaps:
        """Swap so many times; append the process's memory after each to ``rss``."""
        if resident:  # there and back once, so that both are loaded
            for version in reversed(_VERSIONS):
                self._publish(version, resident=True)
                self._await(version)
        quiet: list[Window] = []
        during: list[Window] = []
        switched: list[float] = []
        for number in range(count):
            version = _VERSIONS[(number + 1) % 2]
            start = time.monotonic()
            time.sleep(self.quiet_seconds)
            quiet.append(Window(start=start, end=time.monotonic()))
            start = time.monotonic()
            self._publish(version, resident=resident)
            switched.append(self._await(version))
            time.sleep(_AFTER_SECONDS)
            during.append(Window(start=start, end=time.monotonic()))
            rss.append(self.tree.memory().rss)
        sent = self.traffic.everything()
        switch = [Window(start=at - _SWITCH_SECONDS, end=at + _SWITCH_SECONDS) for at in switched]
        took = [at - window.start for at, window in zip(switched, during, strict=True)]
        return Swaps(
            kind="to a version that is resident" if resident else "to a version that must be prepared",
            count=count,
            seconds=percentile(took, 50),
            quiet=_latency(sent, quiet),
            during=_latency(sent, during),
            switch=_latency(sent, switch),
            profile_ms=profile(sent, during),
            failed=sum(not one.version and one.due >= quiet[0].start for one in sent),
        )

    def _publish(self, production: str, *, resident: bool) -> None:
        versions = _VERSIONS if resident else (production,)
        greenroom_server.write_flags(self.state, FlagStore(production=production, resident=versions))

    def _await(self, version: str) -> float:
        return self.traffic.wait_for(
            lambda latest: any(one.version == version for one in latest), seconds=_SWAP_SECONDS
        )


def profile(sent: Sequence[Sent], windows: Sequence[Window]) -> list[float]:
    """Return the p99 of each tenth of a second that all windows have, in ms."""
    tenths = min(int((window.end - window.start) * 10) for window in windows)
    return [
        percentile(
            within(
                sent,
                [Window(start=one.start + n / 10, end=one.start + (n + 1) / 10) for one in windows],
            ),
            99,
        )
        for n in range(tenths)
    ]


def _latency(sent: Sequence[Sent], windows: Sequence[Window]) -> Latency:
    found = within(sent, windows)
    return Latency(
        requests=len(found),
        p50_ms=percentile(found, 50),
        p99_ms=percentile(found, 99),
        worst_ms=max(found, default=float("nan")),
    )


def swap_markdown(results: SwapResults) -> str:
    """Return what was measured as a table, the goals beside it."""
    machine = results.machine
    circumstances = (
        f"{machine.cpu}, {machine.cores} cores (load {machine.load_before:.1f} before), Python "
        f"{machine.python}. 200 trees; {results.rate:,.0f} requests/s over {CONNECTIONS} connections; "
        "the server on one core, on which its trial process runs too; prediction log on. A latency counts "
        "from when the request was due."
    )
    columns = (
        *("swap", "count", "takes s", "p50 / p99 ms before", "p50 / p99 ms during"),
        *("around the switch itself", "p99 during / before", "failed", "goal: at most 1.2x, none failed"),
    )
    lines = [
        f"# What clients feel of a swap, {results.date}",
        "",
        circumstances,
        "",
        f"| {' | '.join(columns)} |",
        "|" + "---|" * len(columns),
        *(_swap_row(swaps) for swaps in results.swaps),
        "",
        *(_profile_line(swaps) for swaps in results.swaps),
        "",
        _rss_line(results.rss_mib),
    ]
    return "\n".join(lines) + "\n"


def _swap_row(swaps: Swaps) -> str:
    met = swaps.ratio <= P99_BOUND and not swaps.failed
    told = [f"{each.p50_ms:.2f} / {each.p99_ms:.2f}" for each in (swaps.quiet, swaps.during, swaps.switch)]
    return (
        f"| {swaps.kind} | {swaps.count} | {swaps.seconds:.2f} | {' | '.join(told)} | {swaps.ratio:.2f} | "
        f"{swaps.failed} | {'met' if met else '**not met**'} |"
    )


def _profile_line(swaps: Swaps) -> str:
    told = " ".join(f"{value:.1f}" for value in swaps.profile_ms)
    return f"- p99 ms by tenths of a second since the change, {swaps.kind}: {told}"


def _rss_line(rss: Sequence[float]) -> str:
    if len(rss) <= _FEW_SWAPS:
        return "RSS: too few swaps to tell."
    few, many = rss[_FEW_SWAPS - 1], rss[-1]
    verdict = "met" if many <= RSS_BOUND * few else "**not met**"
    return (
        f"RSS after {_FEW_SWAPS} swaps {few:.1f} MiB, after {len(rss)} {many:.1f} MiB: {many / few:.3f}x "
        f"(goal: at most {RSS_BOUND}x, {verdict}); the largest after any {max(rss):.1f} MiB."
    )
