"""Measure the feature cache beside others, through faults: ``python -m benchmarks.features --help``."""

import argparse
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

import orjson

from benchmarks.features.contenders import CONTENDERS, MODEL, NAMES, NAMESPACE, PLAIN_START
from benchmarks.features.hit import hit_costs
from benchmarks.features.report import (
    DEAD,
    LIMITED,
    SCENARIOS,
    SLOW,
    Cell,
    goals_table,
    percentile,
    table,
)
from benchmarks.features.worker import ENTITIES
from tests.support.redis import RedisServer, redis_server

_FILLED = 0.8
"""The share of entities that Redis knows before each run: other pods have asked for them."""
_LIMIT = 10
"""Calls a second that the service takes in the scenario where it limits them."""


@dataclass(frozen=True, kw_only=True)
class Surroundings:
    """The process with the service and the proxy."""

    process: "subprocess.Popen[str]"
    service_port: int
    proxy_port: int

    def tell(self, command: str) -> str:
        """Give a command; return what it says."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(f"{command}\n")
        self.process.stdin.flush()
        return self.process.stdout.readline().strip()


@contextmanager
def surroundings(redis_port: int) -> Iterator[Surroundings]:
    """Run the service and the proxy until the block ends."""
    process = _start("surroundings", str(redis_port))
    assert process.stdout is not None
    service, proxy = process.stdout.readline().split()
    try:
        yield Surroundings(process=process, service_port=int(service), proxy_port=int(proxy))
    finally:
        process.kill()
        process.wait()


def main() -> int:
    """Measure, and print what was measured; 1 where a goal was missed."""
    arguments = _arguments()
    hits = hit_costs()
    cells = []
    with redis_server() as redis, surroundings(redis.port) as around:
        for number in range(arguments.rounds):
            for scenario in SCENARIOS:
                for contender in arguments.only or CONTENDERS:
                    cell = _measure(contender, scenario, redis=redis, around=around, arguments=arguments)
                    cells.append(replace(cell, round=number))
                    sys.stderr.write(f"{cells[-1]}\n")
    told = f"{datetime.now(UTC):%Y-%m-%d}\n\n{goals_table(cells, hits)}\n{table(cells)}"
    sys.stdout.write(told)
    return int("not met" in told)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.features", description=__doc__)
    parser.add_argument("--rounds", type=int, default=3, help="how often each is measured; default: 3")
    parser.add_argument("--seconds", type=float, default=15, help="of load under the fault; default: 15")
    parser.add_argument("--warm-up", type=float, default=8, help="seconds of load before it; default: 8")
    parser.add_argument("--only", nargs="+", choices=list(CONTENDERS), help="just these, ours among them")
    parser.add_argument("--rate", type=float, default=300, help="requests/s; default: 300")
    return parser.parse_args()


def _measure(
    contender: str, scenario: str, *, redis: RedisServer, around: Surroundings, arguments: argparse.Namespace
) -> Cell:
    """Warm a contender, let the fault begin, and measure from that very moment."""
    _fill(redis)
    numbers = (arguments.rate, arguments.warm_up, arguments.seconds)
    ports = (str(around.proxy_port), str(around.service_port))
    worker = _start("worker", contender, *ports, *map(str, numbers))
    assert worker.stdin is not None
    assert worker.stdout is not None
    assert worker.stdout.readline() == "warm\n", f"{contender} did not come up"
    if scenario == SLOW:
        around.tell("slow 0.2")
    elif scenario == DEAD:
        redis.kill()
    elif scenario == LIMITED:
        # Whoever has lost what the others had computed needs the service most.
        redis.kill()
        redis.start()
        around.tell(f"limit {_LIMIT}")
    around.tell("count")
    worker.stdin.write("go\n")
    worker.stdin.flush()
    outcome: dict[str, Any] = orjson.loads(worker.stdout.readline())
    worker.wait()
    calls = int(around.tell("count"))
    _end(scenario, redis, around)
    times: Sequence[float] = outcome["times"]
    return Cell(
        contender=contender,
        scenario=scenario,
        round=0,
        requests=len(times),
        failures=outcome["failures"],
        p50_ms=percentile(times, 0.5) * 1000,
        p99_ms=percentile(times, 0.99) * 1000,
        upstream_calls_per_second=calls / arguments.seconds,
    )


def _end(scenario: str, redis: RedisServer, around: Surroundings) -> None:
    around.tell("slow 0")
    around.tell("limit inf")
    if scenario == DEAD:
        redis.start()


def _fill(redis: RedisServer) -> None:
    """Let Redis know most entities, in everybody's own format."""
    features = dict.fromkeys(sorted(NAMES), 1.0)
    ours = orjson.dumps({"at": datetime.now(UTC).timestamp(), "features": features})
    known = range(int(ENTITIES * (1 - _FILLED)), ENTITIES)
    with redis.client() as client:
        client.flushall()
        start = f"greenroom:features:1:{NAMESPACE}/{MODEL}:"
        client.mset({f"{start}u{number}": ours for number in known})
        client.mset({f"{PLAIN_START}u{number}": orjson.dumps(features) for number in known})


def _start(module: str, *arguments: str) -> "subprocess.Popen[str]":
    command = [sys.executable, "-m", f"benchmarks.features.{module}", *arguments]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


if __name__ == "__main__":
    sys.exit(main())
