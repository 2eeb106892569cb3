"""Whether a model's pods were there for users all the while, as pods and EndpointSlices tell it."""

import threading
from contextlib import ExitStack
from typing import Any, Self

from e2e.penguins import PATIENCE
from e2e.watch import Watch
from tests.support.kubectl import Kubectl


class Availability:
    """Watches the serving pods of a ModelDeployment and its Service's endpoints until the context is left.

    It begins once all replicas are ready. A pod that comes later may start unready; one that goes may turn
    unready once it is told to go.
    """

    def __init__(self, kubectl: Kubectl, *, namespace: str, name: str, replicas: int) -> None:
        component = "app.kubernetes.io/component!=shadow"
        self._replicas = replicas
        self._seen: set[str] = set()
        self._endpoints: dict[str, int] = {}
        self._complete = threading.Event()
        self._watches = [
            Watch(
                kubectl,
                *("pods", "--selector", f"greenroom.dev/deployment={name},{component}"),
                namespace=namespace,
                on_event=self._take_pod,
            ),
            Watch(
                kubectl,
                *("endpointslices", "--selector", f"kubernetes.io/service-name={name}"),
                namespace=namespace,
                on_event=self._take_slice,
            ),
        ]
        self.outages: list[str] = []
        """In words, each time that a pod was not ready, or that fewer endpoints than replicas were."""

    def __enter__(self) -> Self:
        """Return once all replicas are ready."""
        with ExitStack() as stack:
            for watch in self._watches:
                stack.enter_context(watch)
            if not self._complete.wait(PATIENCE):
                message = f"{self._replicas} ready endpoints were not seen in {PATIENCE:g} s"
                raise TimeoutError(message)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        """End the watches."""
        self._stack.close()

    def _take_pod(self, event: dict[str, Any]) -> None:
        pod = event["object"]
        name = pod["metadata"]["name"]
        if event["type"] == "DELETED" or "deletionTimestamp" in pod["metadata"]:
            return
        ready = {
            condition["type"]: condition for condition in pod.get("status", {}).get("conditions", ())
        }.get("Ready", {})
        if ready.get("status") == "True":
            self._seen.add(name)
        elif name in self._seen:
            self.outages.append(f"pod {name} is not ready: {ready.get('reason')}: {ready.get('message')}")

    def _take_slice(self, event: dict[str, Any]) -> None:
        found = event["object"]
        gone = event["type"] == "DELETED"
        endpoints = [] if gone else found.get("endpoints") or []
        ready = sum(len(one["addresses"]) for one in endpoints if one["conditions"].get("ready"))
        self._endpoints[found["metadata"]["name"]] = ready
        total = sum(self._endpoints.values())
        if total >= self._replicas:
            self._complete.set()
        elif self._complete.is_set():
            self.outages.append(f"{total} of {self._replicas} endpoints are ready")
