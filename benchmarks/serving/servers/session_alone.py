"""Ceiling: the session run alone, in a loop: no HTTP, no body, the inputs made before.

``python -m benchmarks.serving.servers.session_alone SECONDS`` prints what ``replay.lua`` prints, as JSON.
"""

import json
import os
import sys
import time

from benchmarks.serving.servers.scoring import OUTPUTS, feed, open_session


def main() -> None:
    """Run and report."""
    seconds = float(sys.argv[1])
    session = open_session(os.environ["BENCH_MODEL"])
    row = feed(json.loads(os.environ["BENCH_ROW"]))
    took: list[float] = []
    ends = time.perf_counter() + seconds
    cpu = time.process_time()
    started = time.perf_counter()
    while started < ends:
        session.run(OUTPUTS, row)
        finished = time.perf_counter()
        took.append(finished - started)
        started = finished
    cpu = time.process_time() - cpu
    took.sort()
    result = {
        "requests": len(took),
        "seconds": seconds,
        "p50_us": took[len(took) // 2] * 1e6,
        "p99_us": took[len(took) * 99 // 100] * 1e6,
        "cpu_seconds": cpu,
    }
    sys.stdout.write(json.dumps(result) + "\n")


if __name__ == "__main__":
    main()
