"""The kinds of object that the operator reads or writes: one table, so that nothing needs discovery."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from greenroom_runtime.contract.names import GROUP, LABEL_DEPLOYMENT


class Key(NamedTuple):
    """Which ModelDeployment: the unit that is queued and reconciled."""

    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}"


@dataclass(frozen=True)
class Kind:
    """One kind: how it is spelled in a manifest, and where the API server keeps it."""

    name: str
    group: str
    """Empty for the core group."""
    version: str
    plural: str
    selected: bool = True
    """Whether only objects that carry the deployment label are of interest."""

    @property
    def api_version(self) -> str:
        """As in a manifest: ``apps/v1``, or ``v1`` for the core group."""
        return f"{self.group}/{self.version}" if self.group else self.version

    @property
    def resource(self) -> str:
        """``deployments.apps``: the spelling of kubectl, of RBAC messages and of kopf's selectors."""
        return f"{self.plural}.{self.group}" if self.group else self.plural

    @property
    def label_selector(self) -> str | None:
        """The label selector that a list or a watch of it carries, None for every object."""
        return LABEL_DEPLOYMENT if self.selected else None

    def path(self, namespace: str | None, name: str = "", subresource: str = "") -> str:
        """Return the URL path of a collection, an object or a part of it; no namespace means all of them."""
        root = f"/apis/{self.group}/{self.version}" if self.group else f"/api/{self.version}"
        place = f"/namespaces/{namespace}" if namespace is not None else ""
        return "/".join(part for part in (f"{root}{place}/{self.plural}", name, subresource) if part)


MODEL_DEPLOYMENT: Final = Kind("ModelDeployment", GROUP, "v1alpha1", "modeldeployments", selected=False)
POD: Final = Kind("Pod", "", "v1", "pods")
LEASE: Final = Kind("Lease", "coordination.k8s.io", "v1", "leases", selected=False)
EVENT: Final = Kind("Event", "", "v1", "events", selected=False)

CHILDREN: Final = (
    Kind("ConfigMap", "", "v1", "configmaps"),
    Kind("Deployment", "apps", "v1", "deployments"),
    Kind("PodDisruptionBudget", "policy", "v1", "poddisruptionbudgets"),
    Kind("Service", "", "v1", "services"),
    Kind("ServiceAccount", "", "v1", "serviceaccounts"),
)
"""What a ModelDeployment may own directly."""

WATCHED: Final = (MODEL_DEPLOYMENT, *CHILDREN, POD)
KINDS: Final[Mapping[str, Kind]] = {kind.name: kind for kind in (*WATCHED, LEASE, EVENT)}


def key_of(body: Mapping[str, Any]) -> Key | None:
    """Return the ModelDeployment that an object is, or is labelled to belong to; None for strangers."""
    metadata = body["metadata"]
    if body["kind"] == MODEL_DEPLOYMENT.name:
        return Key(metadata["namespace"], metadata["name"])
    name = (metadata.get("labels") or {}).get(LABEL_DEPLOYMENT)
    return Key(metadata["namespace"], name) if name else None
