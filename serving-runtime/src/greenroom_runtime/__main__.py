"""``python -m greenroom_runtime --config PATH``: one serving process."""

import argparse
import os
import sys
from pathlib import Path

import structlog
import uvloop

from greenroom_runtime.app import Runtime
from greenroom_runtime.contract import names
from greenroom_runtime.contract.config import parse_config
from greenroom_runtime.models.store import StoreError
from greenroom_runtime.settings import configure_logs, read_settings

log = structlog.get_logger(__name__)


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
    try:
        uvloop.run(runtime.run())
    except OSError as error:
        log.error("cannot serve", error=str(error))  # noqa: TRY400 told, not traced
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
