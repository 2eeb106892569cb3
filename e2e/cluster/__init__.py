"""A real Kubernetes for development, tests and demos: `provide` a cluster, or start an `ApiServer` alone."""

from e2e.cluster.apiserver import ApiServer
from e2e.cluster.model import Cluster, ClusterError, environment
from e2e.cluster.providers import provide

__all__ = ["ApiServer", "Cluster", "ClusterError", "environment", "provide"]
