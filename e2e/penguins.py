"""The penguins' ModelDeployment in a cluster, as a user handles it with kubectl."""

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeVar

import httpx2
import yaml

from e2e.reader import Reader
from e2e.terminal import ROOT, Terminal
from greenroom_runtime.contract import names
from greenroom_runtime.contract.flags import FlagStore, dump_flags, parse_flags
from greenroom_runtime.contract.report import PodReport
from greenroom_runtime.contract.shadow import ShadowReport
from tests.support.kubectl import Kubectl
from tests.support.manifests import patched

EXAMPLE = ROOT / "examples" / "penguins" / "modeldeployment.yaml"
NAME = "penguins"
_Seen = TypeVar("_Seen")
PATIENCE = 180.0
"""Seconds after which something that should happen is taken for never happening."""


@dataclass(frozen=True)
class Penguins:
    """One ModelDeployment of one namespace."""

    kubectl: Kubectl
    namespace: str

    def __call__(self, *arguments: str, document: Any = None) -> str:
        """Run kubectl in the namespace."""
        return self.kubectl("--namespace", self.namespace, *arguments, document=document)

    def apply(self, *, wait: bool = True, **spec: Any) -> None:
        """Apply the example with these members of its spec changed, and wait until it is Ready."""
        self("apply", "--filename=-", document=_example(spec))
        if wait:
            self.until(lambda found: _observed(found) and find_condition(found, "Ready")["status"] == "True")

    def differences(self, **spec: Any) -> str:
        """Return what `kubectl diff` shows between the example, changed likewise, and what is there."""
        arguments = ("--namespace", self.namespace, "diff", "--filename=-")
        shown = self.kubectl.run(*arguments, document=_example(spec))
        assert shown.returncode in {0, 1}, shown.stderr
        return shown.stdout

    @cached_property
    def _reader(self) -> Reader:
        return Reader(self.kubectl.kubeconfig)

    @property
    def found(self) -> dict[str, Any]:
        """The ModelDeployment as the API server has it."""
        found: dict[str, Any] = self._reader.get(
            f"/apis/greenroom.dev/v1alpha1/namespaces/{self.namespace}/modeldeployments/{NAME}"
        )
        return found

    def condition(self, name: str) -> dict[str, Any]:
        """Return one condition; an empty one where it is not there."""
        return find_condition(self.found, name)

    def until(self, holds: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        """Wait for something to be true of the ModelDeployment; return it as it then was."""
        return _until(lambda: self.found, holds, told=lambda found: json.dumps(found.get("status"), indent=1))

    def until_promoted(self, version: str) -> dict[str, Any]:
        """Wait until every pod answers with a version, and the operator says so."""
        return self.until(
            lambda found: (
                _observed(found)
                and found["status"].get("version") == version
                and found["status"].get("promotion", {"state": "Complete"})["state"] == "Complete"
            )
        )

    def until_told(self, *reasons: str) -> None:
        """Wait until there are events for these reasons: the operator writes them after status."""
        path = f"/api/v1/namespaces/{self.namespace}/events"

        def told() -> set[str]:
            return {event["reason"] for event in self._reader.get(path)["items"]}

        _until(told, lambda seen: seen.issuperset(reasons))

    def until_refused(self, version: str) -> dict[str, Any]:
        """Wait until a version has been refused."""
        return self.until(
            lambda found: (
                found.get("status", {}).get("promotion", {}).get("version") == version
                and found["status"]["promotion"]["state"] == "Refused"
            )
        )

    def leave_alone(self) -> None:
        """Have the operator keep its hands off, and wait until it says that it does."""
        self("annotate", "md", NAME, f"{names.ANNOTATION_RECONCILE}=disabled")
        self.until(lambda found: find_condition(found, "Progressing").get("reason") == "ReconcileDisabled")

    def act(self, action: str) -> None:
        """Ask for an action: VERB/VERSION/ANY-TEXT."""
        self("annotate", "md", NAME, f"{names.ANNOTATION_ACTION}={action}", "--overwrite")

    @property
    def flags(self) -> FlagStore:
        """The flag store as the API server has it; how far it has travelled the pods say."""
        found = self._reader.get(f"/api/v1/namespaces/{self.namespace}/configmaps/{NAME}-flags")
        return parse_flags(found["data"][names.FLAGS_FILE])

    def write_flags(self, flags: FlagStore) -> str:
        """Write a flag store as the operator does, which must leave it alone; return the write's name."""
        patch = json.dumps({"data": {names.FLAGS_FILE: dump_flags(flags)}})
        arguments = ("--type=merge", f"--patch={patch}", "--output=jsonpath={.metadata.resourceVersion}")
        return f"{flags.revision}.{self('patch', 'configmap', f'{NAME}-flags', *arguments)}"

    def touch(self, *pods: str, written: str) -> None:
        """Have kubelet refresh these pods' flag store at once, as the operator does after a write."""
        self("annotate", "pods", *pods, f"{names.ANNOTATION_FLAGS_REVISION}={written}", "--overwrite")

    def reports(self) -> dict[str, PodReport]:
        """Return what each pod says of itself, by its name; pods that cannot answer yet are left out."""
        reports = {}
        for pod in self.pods():
            name = pod["metadata"]["name"]
            if (asked := self._ask_pod(name, names.ADMIN_PORT)) is not None:
                reports[name] = PodReport.model_validate_json(asked)
        return reports

    def until_reported(self, holds: Callable[[dict[str, PodReport]], bool]) -> dict[str, PodReport]:
        """Wait for something to be true of the pods' reports; return them as they then were."""
        return _until(self.reports, holds)

    def shadow_reports(self) -> dict[str, ShadowReport]:
        """Return what each serving pod's shadow says of itself; those that cannot answer are left out."""
        reports = {}
        for pod in self.pods():
            name = pod["metadata"]["name"]
            if (asked := self._ask_pod(name, names.SHADOW_PORT)) is not None:
                reports[name] = ShadowReport.model_validate_json(asked)
        return reports

    def until_shadows(self, holds: Callable[[dict[str, ShadowReport]], bool]) -> dict[str, ShadowReport]:
        """Wait for something to be true of the shadows' reports; return them as they then were."""
        return _until(self.shadow_reports, holds)

    def _ask_pod(self, name: str, port: int) -> bytes | None:
        path = f"/api/v1/namespaces/{self.namespace}/pods/{name}:{port}/proxy{names.REPORT_PATH}"
        try:
            return self._reader.read(path)
        except LookupError:
            return None

    def until_rollout(self, state: str, *, percent: str | None = None) -> dict[str, Any]:
        """Wait until the rollout is in a state, at a share, and pods obey it; return its status."""

        def holds(found: dict[str, Any]) -> bool:
            rollout = found["status"].get("rollout", {})
            conditions = found["status"].get("conditions", ())
            reconciling = any(condition["type"] == "Reconciling" for condition in conditions)
            there = rollout.get("state") == state and percent in (None, rollout["percent"])
            return _observed(found) and there and not reconciling

        rollout: dict[str, Any] = self.until(holds)["status"]["rollout"]
        if state == "Aborted":  # remembered in status before anything is done about it
            self.until_reported(self._routes_nobody)
        return rollout

    def _routes_nobody(self, reports: dict[str, PodReport]) -> bool:
        flags = self.flags
        obeyed = all(report.revision == flags.revision for report in reports.values())
        return flags.rollout is None and reports.keys() == self.pod_names() and obeyed

    def pods(self) -> list[dict[str, Any]]:
        """Return the serving pods that are not on their way out."""
        selector = f"greenroom.dev/deployment={NAME},{names.LABEL_COMPONENT}!={names.COMPONENT_SHADOW}"
        found = self._reader.get(f"/api/v1/namespaces/{self.namespace}/pods", labelSelector=selector)
        return [pod for pod in found["items"] if "deletionTimestamp" not in pod["metadata"]]

    def pod_names(self) -> set[str]:
        """Return the names of these pods."""
        return {pod["metadata"]["name"] for pod in self.pods()}

    def lives(self) -> dict[str, tuple[str, int]]:
        """Return each pod's uid and count of restarts by its name: equal before and after means untouched."""
        return {
            pod["metadata"]["name"]: (
                pod["metadata"]["uid"],
                sum(container["restartCount"] for container in pod["status"]["containerStatuses"]),
            )
            for pod in self.pods()
        }


def ask(url: str, features: dict[str, Any], **members: Any) -> httpx2.Response:
    """Send one prediction request; a Service that kube-proxy does not know yet is tried again."""
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            with httpx2.Client(trust_env=False, timeout=10) as client:
                return client.post(f"{url}/predict", json={"features": features, **members})
        except httpx2.TransportError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.1)


@contextmanager
def reached(terminal: Terminal, namespace: str) -> Iterator[str]:
    """Give the URL of the model's Service, once kube-proxy leads there: up to seconds after Ready."""
    with terminal.reach(namespace, NAME, port=80) as url:
        ask(url, {})
        yield url


def _example(spec: dict[str, Any]) -> Any:
    return patched(yaml.safe_load(EXAMPLE.read_text(encoding="utf-8")), {"spec": spec})


def _until(
    look: Callable[[], _Seen], holds: Callable[[_Seen], bool], *, told: Callable[[_Seen], object] = repr
) -> _Seen:
    deadline = time.monotonic() + PATIENCE
    while not holds(seen := look()):
        if time.monotonic() > deadline:
            message = f"not in {PATIENCE:g} s; seen last: {told(seen)}"
            raise TimeoutError(message)
        time.sleep(0.1)
    return seen


def find_condition(found: dict[str, Any], name: str) -> dict[str, Any]:
    """Return one condition of a ModelDeployment; one without a status where it is not there."""
    conditions = found.get("status", {}).get("conditions", [])
    return next((condition for condition in conditions if condition["type"] == name), {"status": ""})


def _observed(found: dict[str, Any]) -> bool:
    return bool(found.get("status", {}).get("observedGeneration") == found["metadata"]["generation"])
