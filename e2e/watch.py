"""What the API server tells of some objects as it happens: nothing between two looks is missed."""

import json
import subprocess
import threading
from collections.abc import Callable
from typing import Any, Self

from tests.support.kubectl import Kubectl

_SECONDS = 120.0


class Watch:
    """Runs ``kubectl get … --watch`` until the context is left, and hands each event over in a thread.

    An event is ``{"type": "ADDED" | "MODIFIED" | "DELETED", "object": {...}}``.
    """

    def __init__(
        self, kubectl: Kubectl, *what: str, namespace: str, on_event: Callable[[dict[str, Any]], None]
    ) -> None:
        """Watch what ``kubectl get`` is to be told, such as ``pods -l app=x``."""
        self._command = [
            str(kubectl.program),
            f"--kubeconfig={kubectl.kubeconfig}",
            f"--cache-dir={kubectl.cache}",
            f"--namespace={namespace}",
            *("get", *what, "--watch", "--output-watch-events", "--output=json"),
        ]
        self._on_event = on_event
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._first = threading.Event()

    def __enter__(self) -> Self:
        """Return once the first object is known."""
        self._process = subprocess.Popen(self._command, stdout=subprocess.PIPE, text=True)
        self._thread.start()
        if not self._first.wait(_SECONDS):
            message = f"nothing was seen in {_SECONDS:g} s by {' '.join(self._command)}"
            raise TimeoutError(message)
        return self

    def __exit__(self, *_: object) -> None:
        """End the watch."""
        self._process.terminate()
        self._process.wait()
        self._thread.join()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._on_event(json.loads(line))
            self._first.set()
