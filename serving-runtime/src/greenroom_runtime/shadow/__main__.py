"""``python -m greenroom_runtime.shadow --config PATH``: the shadow's supervisor."""

import argparse
import json
import os
import socket
import sys
from contextlib import suppress
from pathlib import Path

from greenroom_runtime.contract import names
from greenroom_runtime.shadow.memory import Bounds, find_cgroup, find_limit
from greenroom_runtime.shadow.supervisor import Supervisor, child_environment
from greenroom_runtime.shadow.window import open_window, pages

_PROCESS = "greenroom_runtime.shadow.process"


def main() -> int:
    """Supervise until told to end; return 0 then."""
    parser = argparse.ArgumentParser(prog="python -m greenroom_runtime.shadow", description=__doc__)
    parser.add_argument("--config", type=Path, default=Path(names.CONFIG_DIR) / names.CONFIG_FILE)
    parser.add_argument(
        "--port", type=int, default=names.SHADOW_PORT, help="of the report; 0 takes a free one"
    )
    parser.add_argument(
        "--frames-port", type=int, default=names.SHADOW_FRAMES_PORT, help="where the address is tcp:"
    )
    arguments = parser.parse_args()
    model, host = _identity(arguments.config)
    cgroup = find_cgroup()
    limit = find_limit(os.environ, cgroup)
    frames = ("--frames-port", str(arguments.frames_port))
    supervisor = Supervisor(
        [sys.executable, "-m", _PROCESS, "--config", str(arguments.config), *frames],
        pod=os.environ.get(names.ENV_POD_NAME) or socket.gethostname(),
        model=model,
        instance=os.urandom(8).hex(),
        environment=child_environment(os.environ, limit_bytes=limit),
        bounds=Bounds(limit),
        cgroup=cgroup,
    )
    open_window(host, arguments.port, pages(report=supervisor.report, metrics=supervisor.metrics))
    return supervisor.run()


def _identity(config: Path) -> tuple[str, str]:
    """Return the model's name and the address to listen on, as far as the configuration can be read.

    What is wrong with it the shadow process says, which reads it with all its rules.
    """
    document = {}
    with suppress(OSError, ValueError, RecursionError):
        document = json.loads(config.read_text())
    told = document if isinstance(document, dict) else {}
    name, host = told.get("name"), told.get("host")
    every = "0.0.0.0"  # noqa: S104 a pod serves its cluster
    return (
        name[: names.MODEL_MAX_LENGTH] if isinstance(name, str) else "",
        host if isinstance(host, str) and host else every,
    )


if __name__ == "__main__":
    sys.exit(main())
