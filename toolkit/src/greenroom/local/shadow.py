"""The shadow of a ModelDeployment with no cluster: planned and told by the operator's own decisions."""

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final

from greenroom.local.process import POD, LocalShadow
from greenroom.local.screen import Screen
from greenroom.local.shadow_news import ShadowNews
from greenroom_operator.api.modeldeployment import ModelDeployment, ModelDeploymentStatus
from greenroom_operator.api.quantities import parse_quantity
from greenroom_operator.api.shadow import DEFAULT_RESOURCES, Shadow, ShadowStatus
from greenroom_operator.controller.actions import Action
from greenroom_operator.controller.context import Observed
from greenroom_operator.controller.preparation import PodView
from greenroom_operator.controller.release import ReleasePlan
from greenroom_operator.controller.shadow import ShadowInput, ShadowProgress, list_segments
from greenroom_operator.controller.shadow_counts import ShadowView
from greenroom_operator.controller.shadow_status import build_shadow
from greenroom_runtime.contract import names
from greenroom_runtime.contract.config import RuntimeConfig
from greenroom_runtime.contract.flags import FlagStore
from greenroom_runtime.contract.shadow import ShadowReport

_LOOK_SECONDS: Final = 0.25
"""Between two looks at what it reports: it tells anything new as often."""
_AGAIN_SECONDS: Final = 1.0
"""A supervisor does not end by itself: somebody has ended it."""


def memory_limit(spec: Shadow) -> int:
    """Return the bytes that the shadow's container may have in a cluster."""
    resources: Mapping[str, Any] = spec.resources or DEFAULT_RESOURCES
    return math.ceil(parse_quantity(str(resources["limits"]["memory"])))


@dataclass(kw_only=True)
class ShadowRun:
    """The shadow's process, what a cluster keeps in ``status.shadow``, and what was said of it."""

    process: LocalShadow
    screen: Screen
    progress: ShadowProgress | None = None
    status: ShadowStatus | None = None
    """As the operator would write it now."""
    report: ShadowReport | None = None
    former: ShadowReport | None = None
    """What the life before this one of the supervisor told last."""
    started: tuple[RuntimeConfig, int] | None = None
    """What it runs with, its memory limit included; None while there is no shadow."""
    life: int = 0
    """Which of the shadows this is that were started on purpose: in a cluster it would be another pod."""
    restart_at: float | None = None
    looked: float = -math.inf
    news: ShadowNews = field(default_factory=ShadowNews)

    def look(self) -> None:
        """Take its newest report."""
        now = time.monotonic()
        if self.started is None or self.restart_at is not None or now - self.looked < _LOOK_SECONDS:
            return
        self.looked = now
        found = self.process.report()
        if found is None:
            return
        if self.report is not None and found.instance != self.report.instance:
            self.former = self.report
        self.report = found

    def ask(self, deployment: ModelDeployment, *, rolling: bool, action: Action | None) -> ShadowInput | None:
        """Return what the operator's decision is to be about, None where no shadow is asked for."""
        spec, metadata = deployment.spec, deployment.metadata
        if spec.shadow is None:
            return None
        return ShadowInput(
            spec=spec.shadow,
            progress=self.progress,
            salt=f"{metadata.namespace}/{metadata.name}",
            views=self._views(),
            segments=list_segments(spec.rollout),
            rolling=rolling,
            action=action,
        )

    def _views(self) -> list[ShadowView]:
        """Return the one shadow, once it has spoken; later on it is silent where its supervisor has ended."""
        if self.report is None:
            return []
        report = self.report if self.process.exit_code() is None else None
        return [ShadowView(pod=POD, uid=f"{POD}-{self.life}", report=report, former=self.former)]

    def _keeps_records(self) -> bool:
        log = self.started and self.started[0].prediction_log
        return log is not None and log.sink == "Files"

    def take(self, deployment: ModelDeployment, pod: PodView, plan: ReleasePlan) -> None:
        """Remember what was decided, as status does."""
        self.progress = plan.shadow
        # Without a time of the last count counts are told as they are, not each 30 seconds.
        before = self.status and self.status.model_copy(update={"observed_time": None})
        observed = Observed(
            deployment=deployment.model_copy(update={"status": ModelDeploymentStatus(shadow=before)}),
            children=(),
            pods=(),
            views=(pod,),
            shadows=self._views(),
        )
        self.status = build_shadow(observed, plan, now=datetime.now(UTC))

    def run_process(
        self, deployment: ModelDeployment, config: RuntimeConfig, *, environment: Mapping[str, str]
    ) -> None:
        """Start, replace or stop the supervisor, as the specification asks; start one that has ended."""
        spec = deployment.spec.shadow
        wanted = None if spec is None else (config, memory_limit(spec))
        if wanted != self.started:
            if wanted is not None and self.started is not None and wanted[0] == self.started[0]:
                self.screen.event("busy", "the shadow's memory limit changed: its process restarts")
            self.process.stop()
            self.report = self.former = self.restart_at = None
            self.life += 1
            self.started = wanted
            if wanted is not None:
                self.process.start(config, memory_bytes=wanted[1], environment=environment)
            return
        code = self.process.exit_code()
        if wanted is None or code is None:
            return
        now = time.monotonic()
        if self.restart_at is None:
            self.screen.event(
                "bad", f"the shadow's supervisor ended with exit code {code}; starting it again"
            )
            for line in self.process.last_lines():
                self.screen.line(f"          {line}", kind="quiet")
            self.restart_at = now + _AGAIN_SECONDS
        elif now >= self.restart_at:
            self.restart_at = None
            self.process.start(config, memory_bytes=wanted[1], environment=environment)

    def say(self, flags: FlagStore, *, served: str) -> None:
        """Say what has changed; ``served`` is the revision that the serving process obeys."""
        process = self.report.process if self.report else None
        obeyed = flags.revision == served and process is not None and process.revision == flags.revision
        for kind, text in self.news.find(self.status, flags, obeyed=obeyed, now=time.monotonic()):
            self.screen.event(kind, text)
        if self.news.greets:
            self.screen.line(f"          report  {self.process.url}{names.REPORT_PATH}")
            if self._keeps_records():
                self.screen.line(f"          records {self.process.predictions}")
