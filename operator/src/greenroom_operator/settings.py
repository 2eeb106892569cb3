"""What an operator process is told when it is started."""

from dataclasses import dataclass
from enum import StrEnum


class LogFormat(StrEnum):
    """How log lines look."""

    JSON = "json"
    TEXT = "text"


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The process's settings; seconds where a number is a time."""

    namespaces: tuple[str, ...]
    """Where ModelDeployments are looked after; empty for all namespaces."""
    runtime_image: str
    """The serving image of a ModelDeployment that names none."""
    lease_namespace: str
    lease_name: str
    identity: str
    """Of this process, among all candidates for the lease and in events."""
    workers: int
    """How many ModelDeployments are reconciled at the same time."""
    listen: str
    """The address of the health and metrics server."""
    port: int
    """Its port; 0 takes a free one."""
    log_format: LogFormat
    log_level: str
