"""What the environment says: the pod's name, and how to log."""

import logging
import os
import socket
import sys
from collections.abc import Mapping
from dataclasses import dataclass

import orjson
import structlog

from greenroom_runtime.contract import names

ENV_LOG_LEVEL = "GREENROOM_LOG_LEVEL"
_LEVELS = {"debug": 10, "info": 20, "warning": 30, "error": 40}


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Facts about this process that are not part of its immutable configuration."""

    pod: str
    log_level: int = _LEVELS["info"]
    environment: Mapping[str, str]
    """For the source's credentials and endpoint."""


def read_settings(environment: Mapping[str, str]) -> Settings:
    """Return the settings; ValueError for a log level that does not exist."""
    level = environment.get(ENV_LOG_LEVEL, "info").lower()
    if level not in _LEVELS:
        message = f"{ENV_LOG_LEVEL} is {level!r}, not one of {', '.join(_LEVELS)}"
        raise ValueError(message)
    return Settings(
        pod=environment.get(names.ENV_POD_NAME) or socket.gethostname(),
        log_level=_LEVELS[level],
        environment=environment,
    )


def configure_logs(level: int) -> None:
    """Log one JSON object a line to stdout, or coloured lines where a person is watching."""
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    if sys.stdout.isatty() and "NO_COLOR" not in os.environ:
        renderer: structlog.typing.Processor = structlog.dev.ConsoleRenderer()
        factory: object = structlog.WriteLoggerFactory(sys.stdout)
        processors = [*shared, renderer]
    else:
        renderer = structlog.processors.JSONRenderer(serializer=_dumps)
        factory = structlog.BytesLoggerFactory(sys.stdout.buffer)
        processors = [*shared, structlog.processors.format_exc_info, renderer]
    structlog.configure(
        processors=processors,
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=factory,  # type: ignore[arg-type]
        cache_logger_on_first_use=True,
    )
    logging.getLogger().handlers = [_Libraries(logging.WARNING)]


class _Libraries(logging.Handler):
    """Tells what libraries warn of, asyncio and uvicorn among them, in the process's own words."""

    def emit(self, record: logging.LogRecord) -> None:
        told = structlog.get_logger(record.name)
        told.log(record.levelno, record.getMessage().strip(), logger=record.name, exc_info=record.exc_info)


def _dumps(event: object, **_: object) -> bytes:
    return orjson.dumps(event, default=str)
