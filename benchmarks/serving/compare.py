"""Each contender in turn, round by round: start, verify, warm up, load, stop."""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.serving.contenders import Contender, Launch, Place
from benchmarks.serving.environments import pinned
from benchmarks.serving.load import SERVER_CORE, Load, LoadError, run_wrk
from benchmarks.serving.model import Row, Zoo
from benchmarks.serving.process import ServerError, Tree, ask, free_ports, started, wait_ready
from benchmarks.serving.protocols import Protocol, write_requests
from benchmarks.serving.results import Cell, Results, Start

ROOT = Path(__file__).resolve().parents[2]
CONNECTIONS = (1, 8, 32)
_WARMUP_CONNECTIONS = 8
_VERIFIED_ROWS = 32
_TOLERANCE = 1e-5
_VERSIONS_SECONDS = 60.0


@dataclass(frozen=True, kw_only=True)
class Plan:
    """How long and how often."""

    rounds: int
    seconds: int
    warmup_seconds: int
    connections: tuple[int, ...] = CONNECTIONS


def compare(
    contenders: Sequence[Contender], zoo: Zoo, *, plan: Plan, results: Results, environments: Path
) -> None:
    """Fill the results; a contender that fails is told of there and does not stop the others."""
    for number in range(plan.rounds):
        order = contenders if number % 2 == 0 else contenders[::-1]  # nobody is always the first
        for contender in order:
            sys.stderr.write(f"== round {number + 1} of {plan.rounds}: {contender.name}\n")
            try:
                measure(contender, zoo, number=number, plan=plan, results=results, environments=environments)
            except (OSError, ServerError, LoadError, subprocess.SubprocessError) as error:
                results.failures[contender.name] = f"round {number + 1}: {error}"
                sys.stderr.write(f"   {error}\n")


def measure(
    contender: Contender, zoo: Zoo, *, number: int, plan: Plan, results: Results, environments: Path
) -> None:
    """Measure one contender once."""
    with tempfile.TemporaryDirectory(prefix=f"bench-{contender.name}-") as directory:
        state = Path(directory)
        port, *others = free_ports(4)
        launch = contender.launch(
            Place(zoo=zoo, port=port, other_ports=others, state=state, environments=environments)
        )
        if contender.requirements:
            results.versions[contender.name] = dict(pinned(contender.requirements))
        if not contender.served:
            results.cells.append(_loop(contender, launch, zoo.rows[0], number=number, plan=plan))
            return
        requests = state / "requests.bin"
        write_requests(requests, contender.protocol, zoo.rows)
        log = state / "server.log"
        since = time.monotonic()
        with started(launch.command, environment=launch.environment, cwd=ROOT, log=log) as tree:
            first = contender.protocol.raw(zoo.rows[0], "user-0")
            cold = wait_ready(tree, port, first, since=since)
            verify(contender, zoo, port)
            run_wrk(port, requests, connections=_WARMUP_CONNECTIONS, seconds=plan.warmup_seconds)
            for connections in plan.connections:
                cell = _load(
                    contender, tree, port, requests, connections=connections, number=number, plan=plan
                )
                results.cells.append(cell)
            memory = tree.memory()
            if contender.logs and not _log_bytes(state):
                raise ServerError("the prediction log is empty")
        results.starts.append(
            Start(
                contender=contender.name,
                round=number,
                cold_start_s=cold,
                rss_mib=memory.rss,
                pss_mib=memory.pss,
            )
        )


def verify(contender: Contender, zoo: Zoo, port: int) -> None:
    """Compare answers with the model's own; ServerError unless all agree and every version answers."""
    seen: set[str] = set()
    ends = time.monotonic() + _VERSIONS_SECONDS
    asked = 0
    while asked < _VERIFIED_ROWS or not seen >= contender.versions:
        index = asked % len(zoo.rows)
        seen.add(_verify_one(contender.protocol, zoo, zoo.rows[index], f"user-{index}", port))
        asked += 1
        if time.monotonic() > ends:
            raise ServerError(f"only {sorted(seen)} of {sorted(contender.versions)} have answered")


def _verify_one(protocol: Protocol, zoo: Zoo, row: Row, user: str, port: int) -> str:
    response = ask(port, protocol.raw(row, user))
    if response.status != 200:
        raise ServerError(f"it answered {response.status}: {response.body[:500]!r}")
    try:
        found = protocol.decode(response)
    except (KeyError, TypeError, ValueError) as error:
        raise ServerError(f"its answer cannot be read: {error!r} in {response.body[:500]!r}") from error
    version = found.version or "v1"
    expected = zoo.answer(version, row)
    if found.label != expected.label or abs(found.probability - expected.probability) > _TOLERANCE:
        raise ServerError(f"it answered {found}, the model says {expected}")
    return version


def _load(
    contender: Contender,
    tree: Tree,
    port: int,
    requests: Path,
    *,
    connections: int,
    number: int,
    plan: Plan,
) -> Cell:
    before = tree.cpu_seconds()
    load = run_wrk(port, requests, connections=connections, seconds=plan.seconds)
    cpu = tree.cpu_seconds() - before
    if not load.requests:
        raise ServerError(f"nothing was answered at {connections} connections: {tree.last_words()}")
    return _cell(contender, load, connections=connections, number=number, cpu_seconds=cpu)


def _cell(contender: Contender, load: Load, *, connections: int, number: int, cpu_seconds: float) -> Cell:
    return Cell(
        contender=contender.name,
        round=number,
        connections=connections,
        requests=load.requests,
        rps=load.requests / load.seconds,
        p50_us=load.p50_us,
        p99_us=load.p99_us,
        cpu_us=cpu_seconds / load.requests * 1e6,
        errors=load.errors,
    )


def _loop(contender: Contender, launch: Launch, row: Row, *, number: int, plan: Plan) -> Cell:
    """Measure what needs no HTTP: it counts for itself, one call after the other."""
    done = subprocess.run(
        ["taskset", "--cpu-list", str(SERVER_CORE), *launch.command, str(plan.seconds)],
        env={**os.environ, **launch.environment, "BENCH_ROW": json.dumps(row)},
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=plan.seconds + 60,
        check=False,
    )
    if done.returncode != 0:
        raise ServerError(f"it ended with {done.returncode}: {done.stderr[-500:]}")
    said = json.loads(done.stdout.splitlines()[-1])
    load = Load(
        requests=said["requests"],
        seconds=said["seconds"],
        p50_us=said["p50_us"],
        p99_us=said["p99_us"],
        errors=0,
    )
    return _cell(contender, load, connections=1, number=number, cpu_seconds=said["cpu_seconds"])


def _log_bytes(state: Path) -> int:
    return sum(file.stat().st_size for file in (state / "predictions").rglob("*") if file.is_file())
