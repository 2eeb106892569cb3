"""How long from apply to Ready, how long an alias flip takes on N pods, and how many requests fail.

``python -m benchmarks.flip`` starts a cluster of its own, installs the chart, and prints a table; ``--json``
prints the measurements. Times are of this machine: compare the rows with each other, not with other machines.
"""

import argparse
import json
import statistics
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from benchmarks.installed import NAMESPACE, installed
from e2e.cluster import provide
from e2e.penguins import NAME, Penguins, reached
from e2e.terminal import Terminal
from e2e.traffic import Traffic


@dataclass(frozen=True)
class Flip:
    """One change of spec.version under load."""

    pods: int
    to_version: str
    resident: bool
    """Whether the version was at hand already: a way back needs no proof."""
    first_new: float
    """Seconds from the write of spec.version to the first answer by the new version."""
    last_old: float
    """Seconds from the write to the last answer by the old one."""
    requests: int
    failed: int


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.flip", description=__doc__)
    parser.add_argument("--pods", type=int, nargs="+", default=[1, 3, 10], help="default: 1 3 10")
    parser.add_argument("--rounds", type=int, default=3, help="there and back, for each number of pods")
    parser.add_argument("--json", action="store_true", help="print the measurements instead of a table")
    arguments = parser.parse_args()
    with provide("bench") as cluster, installed(cluster) as (penguins, terminal, rows):
        ready = [_measure_ready(penguins) for _ in range(arguments.rounds)]
        flips = [
            flip
            for pods in arguments.pods
            for flip in _measure_flips(penguins, terminal, rows, pods=pods, rounds=arguments.rounds)
        ]
    if arguments.json:
        sys.stdout.write(json.dumps({"ready": ready, "flips": [asdict(flip) for flip in flips]}) + "\n")
    else:
        sys.stdout.write(_table(ready, flips))
    return 1 if any(flip.failed for flip in flips) else 0


def _measure_ready(penguins: Penguins) -> float:
    """Return the seconds from `kubectl apply` to Ready of one pod, and remove it again."""
    began = time.monotonic()
    penguins.apply(replicas=1)
    seconds = time.monotonic() - began
    penguins("delete", "md", NAME)
    penguins("wait", "--for=delete", "pods", "-l", f"greenroom.dev/deployment={NAME}", "--timeout=120s")
    return seconds


def _measure_flips(
    penguins: Penguins, terminal: Terminal, rows: Sequence[dict[str, Any]], *, pods: int, rounds: int
) -> Iterator[Flip]:
    """Flip to v2 and back under load, some rounds, on so many pods; each way there is a fresh proof."""
    for _ in range(rounds):
        penguins.apply(replicas=pods, version="v1")
        penguins.until(lambda found: found["status"].get("readyReplicas") == pods)
        with reached(terminal, NAMESPACE) as url:
            yield _flip(penguins, url, rows, pods=pods, version="v2", resident=False)
            yield _flip(penguins, url, rows, pods=pods, version="v1", resident=True)
        penguins("delete", "md", NAME)
        penguins("wait", "--for=delete", "pods", "-l", f"greenroom.dev/deployment={NAME}", "--timeout=180s")


def _flip(
    penguins: Penguins, url: str, rows: Sequence[dict[str, Any]], *, pods: int, version: str, resident: bool
) -> Flip:
    with Traffic(url, rows, kept=2 * pods, fresh=2, pause=0.05) as traffic:
        began = time.monotonic()
        penguins("patch", "md", NAME, "--type=merge", f'--patch={{"spec": {{"version": "{version}"}}}}')
        penguins.until_promoted(version)
        traffic.wait_for_every_client(version)
    after = [answer for answer in traffic.answers if answer.at >= began]
    return Flip(
        pods=pods,
        to_version=version,
        resident=resident,
        first_new=min(answer.at for answer in after if answer.version == version) - began,
        last_old=max(answer.at for answer in after if answer.version != version) - began,
        requests=len(traffic.answers),
        failed=len(traffic.failed),
    )


def _table(ready: Sequence[float], flips: Sequence[Flip]) -> str:
    lines = [
        f"apply to Ready, one pod: median {statistics.median(ready):.1f} s of {len(ready)} (all: "
        + ", ".join(f"{seconds:.1f}" for seconds in ready)
        + ")",
        "",
        "| pods | flip | first new answer s | last old answer s | requests | failed |",
        "|---|---|---|---|---|---|",
    ]
    for pods, resident in sorted({(flip.pods, flip.resident) for flip in flips}):
        group = [flip for flip in flips if (flip.pods, flip.resident) == (pods, resident)]
        first = statistics.median(flip.first_new for flip in group)
        last = statistics.median(flip.last_old for flip in group)
        requests, failed = sum(flip.requests for flip in group), sum(flip.failed for flip in group)
        kind = "back to the version before" if resident else "to a version to be proven"
        lines.append(f"| {pods} | {kind} | {first:.2f} | {last:.2f} | {requests} | {failed} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.exit(main())
