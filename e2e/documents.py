"""Every flag document that was in force, as the API server showed it: what answers are explained by."""

import json
import subprocess
import threading
import time
from dataclasses import dataclass
from typing import Self

from e2e.traffic import Answer
from greenroom_runtime.contract.flags import FlagStore, parse_flags
from greenroom_runtime.routing.router import compile_router
from tests.support.kubectl import Kubectl

LAG = 30.0
"""Seconds for which a pod may go on by the document before: it is touched, so kubelet takes far less."""


@dataclass(frozen=True)
class Document:
    """One flag document, and since when it was there, on the monotonic clock."""

    since: float
    flags: FlagStore


class Documents:
    """Watches a flag store until the context is left."""

    def __init__(self, kubectl: Kubectl, *, namespace: str, name: str) -> None:
        self._command = [
            str(kubectl.program),
            f"--kubeconfig={kubectl.kubeconfig}",
            f"--cache-dir={kubectl.cache}",
            f"--namespace={namespace}",
            *("get", "configmap", f"{name}-flags", "--watch", "--output=json"),
        ]
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._first = threading.Event()
        self.seen: list[Document] = []

    def __enter__(self) -> Self:
        """Return once the document in force is known."""
        self._process = subprocess.Popen(self._command, stdout=subprocess.PIPE, text=True)
        self._thread.start()
        if not self._first.wait(30):
            raise TimeoutError("the flag store was not seen in 30 s")
        return self

    def __exit__(self, *_: object) -> None:
        """End the watch."""
        self._process.terminate()
        self._process.wait()
        self._thread.join()

    def _read(self) -> None:
        assert self._process.stdout is not None
        text, decoder = "", json.JSONDecoder()
        for line in self._process.stdout:
            text += line
            if line.rstrip() != "}":
                continue
            found, end = decoder.raw_decode(text)
            text = text[end:].lstrip()
            self.seen.append(Document(time.monotonic(), parse_flags(found["data"]["flags.json"])))
            self._first.set()

    def unexplained(self, answers: list[Answer]) -> list[Answer]:
        """Return the answers that no document which may have been in force gives to that user."""
        routers = [(document, compile_router(document.flags)) for document in self.seen]
        unexplained = []
        for answer in answers:
            chosen = {
                (decision.version, decision.reason)
                for place, (document, router) in enumerate(routers)
                if document.since <= answer.at
                and (
                    place + 1 == len(routers)
                    or answer.at - answer.seconds <= routers[place + 1][0].since + LAG
                )
                for decision in [router.choose(answer.user, {})]
            }
            fallbacks = {(document.flags.production, "fallback") for document, _ in routers}
            if (answer.version, answer.reason) not in chosen | fallbacks:
                unexplained.append(answer)
        return unexplained
