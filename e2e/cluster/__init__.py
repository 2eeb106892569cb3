"""A real Kubernetes for development, tests and demos: `provide` a cluster, or start an `ApiServer` alone."""

from e2e.cluster.apiserver import ApiServer
from e2e.cluster.model import Cluster, ClusterError

__all__ = ["ApiServer", "Cluster", "ClusterError"]
