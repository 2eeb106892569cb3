"""Every flag document that was in force, as the API server showed it: what answers are explained by."""

import time
from dataclasses import dataclass
from math import inf
from typing import Any

from e2e.traffic import Answer
from e2e.watch import Watch
from greenroom_runtime.contract.flags import FlagStore, parse_flags
from greenroom_runtime.routing.router import compile_router
from tests.support.kubectl import Kubectl

LAG = 30.0
"""Seconds for which a pod may go on by the document before: it is touched, so kubelet takes far less."""
UNTOUCHED = 150.0
"""The same where the operator may have died before it touched the pod: kubelet comes by when it pleases."""
LEAD = 5.0
"""Seconds by which a pod may obey a document before the watch shows it: on a busy machine the two race."""


@dataclass(frozen=True)
class Document:
    """One flag document, and since when it was there, on the monotonic clock."""

    since: float
    flags: FlagStore


class Documents(Watch):
    """Watches a flag store until the context is left."""

    def __init__(self, kubectl: Kubectl, *, namespace: str, name: str) -> None:
        super().__init__(
            kubectl, "configmap", f"{name}-flags", namespace=namespace, on_event=self._take_document
        )
        self.seen: list[Document] = []

    def _take_document(self, event: dict[str, Any]) -> None:
        text = event["object"]["data"]["flags.json"]
        self.seen.append(Document(time.monotonic(), parse_flags(text)))

    def unexplained(self, answers: list[Answer], *, lag: float = LAG) -> list[Answer]:
        """Return the answers that no document which may have been in force gives to that user."""
        routers = [(document.since, compile_router(document.flags)) for document in self.seen]
        ends = [since + lag for since, _ in routers[1:]] + [inf]
        fallbacks = {(document.flags.production, "fallback") for document in self.seen}
        unexplained = []
        for answer in answers:
            chosen = {
                (decision.version, decision.reason)
                for (since, router), end in zip(routers, ends, strict=True)
                if since - LEAD <= answer.at and answer.at - answer.seconds <= end
                for decision in [router.choose(answer.user, {})]
            }
            if (answer.version, answer.reason) not in chosen | fallbacks:
                unexplained.append(answer)
        return unexplained
