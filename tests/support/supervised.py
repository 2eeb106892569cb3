"""A shadow's supervisor with the intervals, the limit and the command that a test chooses."""

import json
import os
import sys
from pathlib import Path
from typing import Any

from greenroom_runtime.shadow.memory import Bounds, Cgroup
from greenroom_runtime.shadow.supervisor import Pace, Supervisor, child_environment
from greenroom_runtime.shadow.window import open_window, pages


def main() -> int:
    """Supervise what the first argument, a JSON object, says."""
    told: dict[str, Any] = json.loads(sys.argv[1])
    directory, limit = told.get("cgroup"), told.get("limit")
    supervisor = Supervisor(
        told["command"],
        pod="pod-0",
        model="churn",
        instance="life-1",
        environment=child_environment(os.environ, limit_bytes=limit),
        bounds=Bounds(limit),
        cgroup=Cgroup(directory=Path(directory), unified=(Path(directory) / "memory.current").exists())
        if directory
        else None,
        pace=Pace(**told["pace"]),
    )
    open_window("127.0.0.1", 0, pages(report=supervisor.report, metrics=supervisor.metrics))
    return supervisor.run()


if __name__ == "__main__":
    sys.exit(main())
