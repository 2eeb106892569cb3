"""Which cluster one gets."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

from e2e.cluster.embedded import Embedded
from e2e.cluster.existing import Existing
from e2e.cluster.kind import Kind
from e2e.cluster.model import Cluster, ClusterError

CHOICE = "CLUSTER"
"""The environment variable that chooses: `kubeconfig`, `kind` or `embedded`."""


@contextmanager
def provide(name: str) -> Iterator[Cluster]:
    """Give a cluster that ends with the block; an existing one, given by CLUSTER=kubeconfig, stays."""
    cluster = up(name, keep=False)
    try:
        yield cluster
    finally:
        cluster.down()


def up(name: str, *, keep: bool) -> "Existing | Kind | Embedded":
    """Start a cluster, by the provider that is asked for or else the first that works here."""
    match provider():
        case "kubeconfig":
            return Existing.named_by_environment()
        case "kind":
            return Kind.up(name, keep=keep)
        case _:
            return Embedded.up(name, keep=keep)


def find(name: str) -> "Existing | Kind | Embedded | None":
    """Return the running cluster of that name, if there is one."""
    match provider():
        case "kubeconfig":
            return Existing.named_by_environment()
        case "kind":
            return Kind.find(name)
        case _:
            return Embedded.find(name)


def provider() -> str:
    """Return the provider: KUBECONFIG alone never chooses, for it may point to somebody's production."""
    chosen = os.environ.get(CHOICE, "")
    if chosen not in {"", "kubeconfig", "kind", "embedded"}:
        raise ClusterError(f"{CHOICE}={chosen}: choose kubeconfig, kind or embedded")
    return chosen or ("kind" if Kind.usable() else "embedded")
