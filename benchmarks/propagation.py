"""How long a flag store travels: from the write to the first and to the last pod that obeys it.

``python -m benchmarks.propagation`` starts a cluster of its own, installs the chart, and prints a table;
``--json`` prints the measurements. Two versions are resident on all pods throughout, so that nothing is
proven and the way alone is measured: where `spec.version` is changed, or a rollout to half of the users is
aborted, and the operator does the rest; and, with the operator's hands off, where the ConfigMap is written
and the pods are touched, or are not.
"""

import argparse
import json
import random
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace

import httpx2

from benchmarks.installed import installed
from e2e.cluster import provide
from e2e.penguins import NAME, Penguins
from greenroom_runtime.contract import names
from greenroom_runtime.contract.report import PodReport

PATIENCE = 300.0
"""Seconds after which a store that has not arrived is taken for lost; kubelet takes up to some 90."""
PAUSE, LONGER_PAUSE = 0.01, 0.2
"""Seconds between two looks at the pods: at first, and after some seconds, not to load them for minutes."""
REST = 4.0
"""Seconds before each write at least: kubelet refreshes a pod once a second at most."""
PERIOD = 60.0
"""Seconds over which untouched writes are spread: kubelet looks at each pod about that often by itself."""
LABELS = {
    "operator": "`spec.version`, the operator does the rest",
    "abort": "the action `abort`, the operator does the rest",
    "touched": "the ConfigMap by hand, pods touched",
    "untouched": "the ConfigMap by hand, pods left alone",
}


@dataclass(frozen=True)
class Trip:
    """One flag store's way to all pods."""

    pods: int
    how: str
    first: float
    """Seconds from the start of the writing `kubectl` to the first pod that reported that it obeys."""
    last: float
    """To the last one."""


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.propagation", description=__doc__)
    parser.add_argument("--pods", type=int, nargs="+", default=[1, 3, 10], help="default: 1 3 10")
    parser.add_argument("--rounds", type=int, default=5, help="of each way, for each number of pods")
    parser.add_argument("--ways", nargs="+", choices=LABELS, default=list(LABELS), help="default: all")
    parser.add_argument("--seed", type=int, default=0, help="of the moments at which stores are written")
    parser.add_argument("--json", action="store_true", help="print the measurements instead of a table")
    arguments = parser.parse_args()
    moments = random.Random(arguments.seed)  # noqa: S311 when to write is no secret
    with provide("bench") as cluster, installed(cluster) as (penguins, _, _):
        if not cluster.routed:
            parser.error("pods are asked directly: this needs a cluster whose pods answer from here")
        trips = [
            trip
            for pods in arguments.pods
            for trip in _measure(penguins, moments, arguments.ways, pods=pods, rounds=arguments.rounds)
        ]
    if arguments.json:
        sys.stdout.write(json.dumps([asdict(trip) for trip in trips]) + "\n")
    else:
        sys.stdout.write(_table(trips))
    return 0


def _measure(
    penguins: Penguins, moments: random.Random, ways: Sequence[str], *, pods: int, rounds: int
) -> Iterator[Trip]:
    """Send the store there and back on so many pods, some rounds each way."""
    penguins.apply(replicas=pods, version="v1")
    penguins.until(lambda found: found["status"].get("readyReplicas") == pods)
    penguins.apply(version="v2", replicas=pods, wait=False)
    penguins.until_promoted("v2")
    addresses = {pod["metadata"]["name"]: pod["status"]["podIP"] for pod in penguins.pods()}
    if "operator" in ways:
        for _ in range(rounds):
            yield _trip(penguins, addresses, "operator")
            penguins.until_promoted(penguins.flags.production)
    if "abort" in ways:
        yield from _abort(penguins, addresses, rounds=rounds)
    penguins.leave_alone()
    for _ in range(rounds):
        if "touched" in ways:
            yield _trip(penguins, addresses, "touched")
        if "untouched" in ways:
            time.sleep(moments.uniform(0, PERIOD))
            yield _trip(penguins, addresses, "untouched")
    penguins("delete", "md", NAME)
    penguins("wait", "--for=delete", "pods", "-l", f"greenroom.dev/deployment={NAME}", "--timeout=180s")


def _abort(penguins: Penguins, addresses: Mapping[str, str], *, rounds: int) -> Iterator[Trip]:
    """Give half of the users the version before, and take it from them all by an action, some times."""
    production, version = penguins.flags.production, penguins.flags.previous
    rollout = {"version": version, "percent": 50}
    penguins.apply(replicas=len(addresses), version=production, rollout=rollout, wait=False)
    for number in range(rounds):
        if number:
            penguins.act(f"retry/{version}/{number}")
        penguins.until_rollout("Running", percent="50")
        time.sleep(REST)
        routing, began = penguins.flags.revision, time.monotonic()
        penguins.act(f"abort/{version}/{number}")
        yield _tell(addresses, "abort", _without(routing), began=began)
        penguins.until_rollout("Aborted")
    penguins.apply(replicas=len(addresses), version=production)


def _without(revision: str) -> Callable[[PodReport], bool]:
    return lambda report: report.revision != revision


def _trip(penguins: Penguins, addresses: Mapping[str, str], how: str) -> Trip:
    """Send all pods to the version before, which they still hold."""
    time.sleep(REST)
    flags = penguins.flags
    back = replace(flags, production=flags.previous, previous=flags.production)
    began = time.monotonic()
    if how == "operator":
        patch = json.dumps({"spec": {"version": back.production}})
        penguins("patch", "md", NAME, "--type=merge", f"--patch={patch}")
    else:
        written = penguins.write_flags(back)
        if how == "touched":
            penguins.touch(*addresses, written=written)
    return _tell(addresses, how, lambda report: report.production == back.production, began=began)


def _tell(
    addresses: Mapping[str, str], how: str, obeys: Callable[[PodReport], bool], *, began: float
) -> Trip:
    """Wait for all pods to obey, and say how long it took."""
    arrived = _arrivals(addresses, obeys, began=began)
    trip = Trip(len(addresses), how, min(arrived) - began, max(arrived) - began)
    sys.stderr.write(f"{trip}\n")  # half an hour's work is not lost with its last minute
    return trip


def _arrivals(
    addresses: Mapping[str, str], obeys: Callable[[PodReport], bool], *, began: float
) -> list[float]:
    """Return when each pod was first seen to obey, on the monotonic clock."""
    waiting, arrived = set(addresses), []
    with httpx2.Client(trust_env=False, timeout=5) as client:
        while waiting:
            for name in sorted(waiting):
                answer = client.get(f"http://{addresses[name]}:{names.ADMIN_PORT}{names.REPORT_PATH}")
                if obeys(PodReport.model_validate_json(answer.content)):
                    arrived.append(time.monotonic())
                    waiting.discard(name)
            waited = time.monotonic() - began
            if waited > PATIENCE:
                message = f"{sorted(waiting)} do not obey after {waited:.0f} s"
                raise TimeoutError(message)
            time.sleep(PAUSE if waited < REST else LONGER_PAUSE)
    return arrived


def _table(trips: Sequence[Trip]) -> str:
    lines = ["| pods | what is written | trips | first pod s | last pod s |", "|---|---|---|---|---|"]
    for pods in sorted({trip.pods for trip in trips}):
        for how, label in LABELS.items():
            group = [trip for trip in trips if (trip.pods, trip.how) == (pods, how)]
            if not group:
                continue
            first = _spread([trip.first for trip in group])
            last = _spread([trip.last for trip in group])
            lines.append(f"| {pods} | {label} | {len(group)} | {first} | {last} |")
    return "\n".join(lines) + "\n"


def _spread(seconds: Sequence[float]) -> str:
    return f"{statistics.median(seconds):.2f} ({min(seconds):.2f} to {max(seconds):.2f})"


if __name__ == "__main__":
    sys.exit(main())
