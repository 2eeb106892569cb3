"""Measure what mirroring costs the serving process: ``python -m benchmarks.shadow --help``."""

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import httpx2

from benchmarks.serving.compare import ROOT
from benchmarks.serving.greenroom_server import (
    CANDIDATE,
    ENVIRONMENT,
    flag_store,
    prediction_log,
    write_flags,
    write_state,
)
from benchmarks.serving.load import Load, require_wrk, run_wrk
from benchmarks.serving.model import NAME, prepare
from benchmarks.serving.process import ServerError, Tree, free_ports, started, wait_ready
from benchmarks.serving.protocols import NAMED, write_requests
from benchmarks.shadow.cells import CELLS, FAULTS, VERSIONS, Cell, Reader, pin, reading, require_symptom
from benchmarks.shadow.cost import costs
from benchmarks.shadow.faults import again_and_again, write_versions
from benchmarks.shadow.report import Pair, cost_table, fault_table, is_met, table
from greenroom_runtime.contract import names
from greenroom_runtime.contract.config import RuntimeConfig, ShadowConfig, parse_config
from greenroom_runtime.contract.flags import FlagStore, Shadow
from greenroom_runtime.contract.report import MirrorReport, PodReport

CACHE = ROOT / ".tools" / "bench"
_WARMUP_SECONDS = 3
_OBEY_SECONDS = 10.0
_SHADOW = Shadow(
    version=CANDIDATE,
    hundredths=10_000,
    salt=f"default/{NAME}",
    epoch="bench#1",
    latency_ratio=2.0,
    segments=(),
)


@dataclass(frozen=True, kw_only=True)
class Stage:
    """A started server, and what loads it."""

    tree: Tree
    port: int
    admin_port: int
    requests: Path
    state: Path
    config: RuntimeConfig

    def obey(self, flags: FlagStore) -> None:
        """Publish a flag store, and wait until it is obeyed."""
        write_flags(self.state, flags)
        ends = time.monotonic() + _OBEY_SECONDS
        while self.report().revision != flags.revision:
            if time.monotonic() > ends:
                raise ServerError("the flag store is not obeyed")
            time.sleep(0.02)

    def report(self) -> PodReport:
        """Return what the server tells the operator."""
        answer = httpx2.get(f"http://127.0.0.1:{self.admin_port}{names.REPORT_PATH}", timeout=10)
        return PodReport.model_validate_json(answer.content)

    def load(self, connections: int, seconds: int) -> "Loaded":
        """Load the server for so many seconds."""
        before = self.tree.cpu_seconds()
        load = run_wrk(self.port, self.requests, connections=connections, seconds=seconds)
        cpu_us = (self.tree.cpu_seconds() - before) / max(1, load.requests) * 1e6
        return Loaded(load=load, cpu_us=cpu_us)


@dataclass(frozen=True, kw_only=True)
class Loaded:
    """One run of load, and what it cost the server."""

    load: Load
    cpu_us: float
    """CPU time a request."""


def main() -> int:
    """Measure, and print what was measured; 1 where a goal was missed or a request has failed."""
    arguments = _arguments()
    os.environ.setdefault("UV", str(ROOT / ".tools" / "uv" / "bin" / "uv"))
    require_wrk()
    cells = [cell for cell in (*CELLS, *FAULTS) if cell.name in arguments.only]
    pairs: list[Pair] = []
    with _serving(log=arguments.log) as stage:
        stage.load(arguments.connections, _WARMUP_SECONDS)
        for number in range(arguments.rounds):
            for cell in cells if number % 2 == 0 else cells[::-1]:
                pairs.append(_measure(cell, stage, arguments, number=number))
                sys.stderr.write(f"{number + 1}: {cell.name}: {pairs[-1].throughput:.3f}\n")
    tables = [made for made in (table(pairs), fault_table(pairs)) if made]
    if any(cell in CELLS for cell in cells):
        tables.append(cost_table(costs()))
    sys.stdout.write("\n".join([f"{datetime.now(UTC):%Y-%m-%d}\n", *tables]))
    return int(not all(is_met(cell, pairs) for cell in cells))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.shadow", description=__doc__)
    parser.add_argument("--rounds", type=int, default=8, help="how often each is measured; default: 8")
    parser.add_argument("--seconds", type=int, default=4, help="of load, without and with; default: 4")
    parser.add_argument("--connections", type=int, default=8, help="kept alive; default: 8")
    parser.add_argument("--log", action="store_true", help="with the prediction log, as pods have it")
    chosen = parser.add_mutually_exclusive_group()
    chosen.add_argument(
        "--only",
        nargs="+",
        metavar="CELL",
        choices=[cell.name for cell in (*CELLS, *FAULTS)],
        default=[cell.name for cell in CELLS],
        help="these alone: %(choices)s",
    )
    chosen.add_argument(
        "--faults",
        dest="only",
        action="store_const",
        const=[cell.name for cell in FAULTS],
        help="what may be wrong with a shadow, instead of what mirroring costs",
    )
    return parser.parse_args()


@contextmanager
def _serving(*, log: bool) -> Iterator[Stage]:
    zoo = prepare(CACHE)
    with tempfile.TemporaryDirectory(prefix="bench-shadow-") as directory:
        state = Path(directory)
        port, admin_port = free_ports(2)
        path = write_state(
            state,
            source=zoo.directory,
            port=port,
            admin_port=admin_port,
            flags=flag_store(rollout=False),
            log=prediction_log(state) if log else None,
        )
        shadow = ShadowConfig(
            address=f"unix:{state / 'frames.sock'}", predictions_dir=str(state / "shadow-predictions")
        )
        config = parse_config(path.read_text()).model_copy(update={"shadow": shadow})
        path.write_text(config.to_json())
        requests = state / "requests.bin"
        write_requests(requests, NAMED, zoo.rows)
        write_versions(zoo.directory / CANDIDATE, state / VERSIONS)
        since = time.monotonic()
        command = [sys.executable, "-m", "greenroom_runtime", "--config", str(path)]
        with started(command, environment=ENVIRONMENT, cwd=ROOT, log=state / "server.log") as tree:
            wait_ready(tree, port, NAMED.raw(zoo.rows[0], "user-0"), since=since)
            yield Stage(
                tree=tree, port=port, admin_port=admin_port, requests=requests, state=state, config=config
            )


def _measure(cell: Cell, stage: Stage, arguments: argparse.Namespace, *, number: int) -> Pair:
    """Load the server without a shadow and with it, on the same cores; either is the first in turn."""
    pin(stage.tree.pid, cell.server_cores)
    plain = flag_store(rollout=False)
    stage.obey(plain)
    first = number % 2 == 0
    without = stage.load(arguments.connections, arguments.seconds) if first else None
    shadowed = replace(plain, shadow=replace(_SHADOW, version=cell.version))
    socket = stage.state / "frames.sock"
    write_flags(stage.state, shadowed)  # before the shadow itself is started, which holds what this names
    with reading(cell, socket, config=stage.config, state=stage.state) as reader:
        stage.obey(shadowed)
        before, spent = _accounts(stage), _cpu_seconds(reader)
        with again_and_again(cell.act, reader.tree.pid if reader else 0, socket):
            mirrored = stage.load(arguments.connections, arguments.seconds)
        after, spent = _accounts(stage), _cpu_seconds(reader) - spent
        if reader is not None and reader.port:
            require_symptom(cell, reader)
    stage.obey(plain)
    if without is None:
        without = stage.load(arguments.connections, arguments.seconds)
    return Pair(
        cell=cell.name,
        round=number,
        without=without.load,
        mirrored=mirrored.load,
        cpu_without_us=without.cpu_us,
        cpu_mirrored_us=mirrored.cpu_us,
        reader_cores=spent / mirrored.load.seconds,
        offered=after.offered - before.offered,
        sent=after.sent - before.sent,
    )


def _cpu_seconds(reader: Reader | None) -> float:
    return reader.tree.cpu_seconds() if reader else 0.0


def _accounts(stage: Stage) -> MirrorReport:
    mirror = stage.report().mirror
    if mirror is None:
        raise ServerError("nothing is mirrored")
    return mirror


if __name__ == "__main__":
    sys.exit(main())
