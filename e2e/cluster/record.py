"""The file by which a later run knows what an earlier one has started, and who was to end it."""

import json
import os
from dataclasses import dataclass, field, replace
from enum import StrEnum
from pathlib import Path
from typing import Any

from e2e.cluster.process import Identity, boot_id

FILE = "record.json"
HOLDER = "holder"
"""The process that holds a cluster's namespaces open."""


class Kind(StrEnum):
    """What is recorded."""

    API_SERVER = "API server"
    EMBEDDED = "cluster"


@dataclass(frozen=True)
class Record:
    """A cluster on this machine."""

    kind: Kind
    name: str
    directory: Path
    owner: Identity | None
    """The process with which the cluster ends; None if it stays until it is taken down."""
    boot: str = field(default_factory=boot_id)
    processes: dict[str, Identity] = field(default_factory=dict)
    network: int | None = None
    """The index of its network, once it has one."""
    ready: bool = False

    @property
    def abandoned(self) -> bool:
        """Whether the one who was to end the cluster cannot do it any more."""
        if self.boot != boot_id():
            return True
        if self.owner is not None:
            return not self.owner.alive
        # One that was to stay, and whose namespaces are gone nevertheless, is of no use to anybody.
        return HOLDER in self.processes and not self.processes[HOLDER].alive

    def with_process(self, name: str, identity: Identity) -> "Record":
        """Return the record with one more process, or another one of the same name."""
        return replace(self, processes=self.processes | {name: identity})

    def save(self) -> None:
        """Write the file in one step, so that no reader sees half of it."""
        document = {
            "kind": self.kind,
            "name": self.name,
            "owner": self.owner.document() if self.owner else None,
            "boot": self.boot,
            "processes": {name: identity.document() for name, identity in self.processes.items()},
            "network": self.network,
            "ready": self.ready,
        }
        self.directory.mkdir(parents=True, exist_ok=True)
        part = self.directory / f".{FILE}.{os.getpid()}"
        part.write_text(json.dumps(document, indent=2))
        part.rename(self.directory / FILE)

    @classmethod
    def load(cls, directory: Path) -> "Record | None":
        """Read the record of a cluster's directory, if there is one."""
        try:
            document: dict[str, Any] = json.loads((directory / FILE).read_text())
        except (FileNotFoundError, NotADirectoryError):
            return None
        owner = document["owner"]
        return cls(
            kind=Kind(document["kind"]),
            name=document["name"],
            directory=directory,
            owner=Identity.parse(owner) if owner else None,
            boot=document["boot"],
            processes={name: Identity.parse(one) for name, one in document["processes"].items()},
            network=document["network"],
            ready=document["ready"],
        )
