"""An Application of Argo CD that has one ModelDeployment, and what Argo CD shows of it."""

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from e2e.gitops.argocd import NAMESPACE, ArgoCD
from e2e.gitops.repository import Repository
from e2e.penguins import NAME, PATIENCE, Penguins
from tests.support.kubectl import Kubectl

REFRESH = "argocd.argoproj.io/refresh"
KIND = {"group": "greenroom.dev", "version": "v1alpha1", "kind": "ModelDeployment"}


@dataclass(frozen=True)
class Application:
    """An Application by the name of the namespace into which it syncs."""

    argocd: ArgoCD
    kubectl: Kubectl
    repository: Repository
    name: str

    @property
    def penguins(self) -> Penguins:
        """The ModelDeployment that it has."""
        return Penguins(self.kubectl, self.name)

    def create(self, **spec: Any) -> None:
        """Let Argo CD sync the repository by itself, with these members of its spec added."""
        manifest = {
            "apiVersion": "argoproj.io/v1alpha1",
            "kind": "Application",
            "metadata": {"name": self.name, "namespace": NAMESPACE},
            "spec": {
                "project": "default",
                "source": {"repoURL": self.repository.url, "path": ".", "targetRevision": "main"},
                "destination": {"server": "https://kubernetes.default.svc", "namespace": self.name},
                "syncPolicy": {"automated": {"prune": True, "selfHeal": True}},
            }
            | spec,
        }
        self.kubectl("apply", "--filename=-", document=manifest)

    def delete(self) -> None:
        """Delete it as a lost cluster does: what it has synced is not told."""
        self.kubectl("delete", "application", self.name, "--namespace", NAMESPACE, "--ignore-not-found")

    @property
    def found(self) -> dict[str, Any]:
        """The Application as the API server has it."""
        found: dict[str, Any] = self.kubectl.get("application", self.name, "--namespace", NAMESPACE)
        return found

    def refresh(self, *, hard: bool = False) -> dict[str, Any]:
        """Let Argo CD compare Git and cluster now, and return the Application once it has.

        Its API server can do so as well, and now and then misses that it is done.
        """
        kind = "hard" if hard else "normal"
        command = ("annotate", "application", self.name, f"{REFRESH}={kind}", "--overwrite")
        self.kubectl("--namespace", NAMESPACE, *command)
        return self._wait(lambda found: REFRESH not in found["metadata"].get("annotations", {}))

    def sync(self, *options: str) -> None:
        """Sync by hand what is there already, with these options of `argocd app sync`, to the end."""
        before = self._last_sync
        self.argocd.run("app", "sync", self.name, "--async", *options)
        self._wait(lambda found: "operation" not in found and self._last_sync > before)

    def until(self, commit: str, health: str) -> dict[str, Any]:
        """Wait until a commit is synced and shown with a health; return the Application as it then is."""

        def holds(found: Mapping[str, Any]) -> bool:
            status = found.get("status", {})
            sync, shown = status.get("sync", {}), status.get("health", {})
            operation = status.get("operationState", {})
            return (
                (sync.get("status"), sync.get("revision")) == ("Synced", commit)
                and operation.get("phase") == "Succeeded"
                and shown.get("status") == health
            )

        return self._wait(holds, look=self.refresh)

    @property
    def _last_sync(self) -> int:
        """The number of the newest sync that was done."""
        return max(int(entry["id"]) for entry in self.found["status"]["history"])

    def _wait(
        self,
        holds: Callable[[Mapping[str, Any]], bool],
        *,
        look: Callable[[], dict[str, Any]] | None = None,
    ) -> dict[str, Any]:
        look = look or (lambda: self.found)
        deadline = time.monotonic() + PATIENCE
        while not holds(found := look()):
            if time.monotonic() > deadline:
                said = json.dumps(found.get("status"), indent=1)
                raise TimeoutError(f"not seen in {PATIENCE:g} s; status: {said}")
            time.sleep(0.2)
        return found

    def nodes(self) -> list[dict[str, Any]]:
        """Return what the user interface shows: each object, with its health and its parents."""
        nodes: list[dict[str, Any]] = self.argocd.get(f"{self.name}/resource-tree")["nodes"]
        return nodes

    def shown(self) -> tuple[str, str]:
        """Return health and message of the ModelDeployment, as the user interface shows them."""
        self.refresh()
        (node,) = (node for node in self.nodes() if node["kind"] == "ModelDeployment")
        return node["health"]["status"], node["health"].get("message", "")

    def transitions(self) -> list[str]:
        """Return the changes of the Application's health, oldest first, such as `Progressing -> Healthy`."""
        words = "Updated health status: "
        events = self.kubectl.get(
            *("events", "--namespace", NAMESPACE),
            *("--field-selector", f"involvedObject.name={self.name},involvedObject.kind=Application"),
        )["items"]
        told = [event for event in events if event["message"].startswith(words)]
        told.sort(key=lambda event: (event["firstTimestamp"], event["metadata"]["resourceVersion"]))
        return [event["message"].removeprefix(words) for event in told]

    def syncs(self) -> list[str]:
        """Return the commits of all syncs that were done, oldest first."""
        return [entry["revision"] for entry in self.found["status"].get("history", [])]

    def offered(self) -> dict[str, bool]:
        """Return whether each action on the ModelDeployment is disabled, by its name."""
        query = {"namespace": self.name, "resourceName": NAME, **KIND}
        actions = self.argocd.get(f"{self.name}/resource/actions", **query)["actions"]
        return {action["name"]: action.get("disabled", False) for action in actions}

    def act(self, action: str) -> None:
        """Run an action by the command of docs/gitops.md."""
        self.argocd.run(
            *("app", "actions", "run", self.name, action),
            *("--kind", "ModelDeployment", "--resource-name", NAME),
        )
