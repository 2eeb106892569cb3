"""``python -m greenroom_runtime --config PATH``: one serving process."""

import argparse
import os
import sys
import threading
from pathlib import Path

import structlog
import uvloop

from greenroom_runtime.app import Runtime
from greenroom_runtime.contract import names
from greenroom_runtime.contract.config import parse_config
from greenroom_runtime.models.store import StoreError
from greenroom_runtime.settings import configure_logs, read_settings

log = structlog.get_logger(__name__)

_LEAVE_SECONDS = 2.0
"""How long threads may take to end when all that matters is done."""


def main() -> int:
    """Serve until told to end; return 0 then, and 2 where the configuration cannot work."""
    parser = argparse.ArgumentParser(prog="python -m greenroom_runtime", description=__doc__)
    parser.add_argument("--config", type=Path, default=Path(names.CONFIG_DIR) / names.CONFIG_FILE)
    arguments = parser.parse_args()
    try:
        settings = read_settings(os.environ)
        configure_logs(settings.log_level)
        config = parse_config(arguments.config.read_text())
        runtime = Runtime(config, settings)
    except (OSError, ValueError, StoreError) as error:
        configure_logs(0)
        log.error("cannot start", config=str(arguments.config), error=str(error))  # noqa: TRY400 told, not traced
        return 2
    return uvloop.run(_serve(runtime))


async def _serve(runtime: Runtime) -> int:
    """Serve until told to end; return the exit code, with which the process ends soon, whatever hangs."""
    code = 1
    try:
        await runtime.run()
        code = 0
    except OSError as error:
        log.error("cannot serve", error=str(error))  # noqa: TRY400 told, not traced
    except Exception:
        log.exception("a defect: the process ends")
    # Python waits for its threads, and one that reads a mount that hangs never ends.
    last = threading.Timer(_LEAVE_SECONDS, os._exit, (code,))
    last.daemon = True
    last.start()
    return code


if __name__ == "__main__":
    sys.exit(main())
