"""``greenroom run``: a ModelDeployment with no cluster, planned by the operator's own decisions."""

import hashlib
import re
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from greenroom.local.errors import LocalError
from greenroom.local.manifest import ManifestError, parse_manifest, read_manifest
from greenroom.local.process import POD, LocalRuntime, LocalShadow
from greenroom.local.screen import Screen
from greenroom.local.serve import greet
from greenroom.local.shadow import ShadowRun
from greenroom.local.stop import StopSignal
from greenroom_operator.api.modeldeployment import ModelDeployment, ModelDeploymentStatus, PromotionState
from greenroom_operator.api.predictions import PredictionSink
from greenroom_operator.api.rollout import RolloutState, RolloutStatus
from greenroom_operator.api.shadow import ShadowPlacement
from greenroom_operator.api.source import CLAIM_SCHEME, SOURCE_SCHEMES
from greenroom_operator.api.times import parse_duration
from greenroom_operator.controller.actions import Action, Verb, find_action, find_objection
from greenroom_operator.controller.preparation import PodView, Refusal
from greenroom_operator.controller.promotion import Promotion, PromotionInput
from greenroom_operator.controller.release import plan_release
from greenroom_operator.controller.rollout import Progress, RolloutInput
from greenroom_operator.controller.rollout_status import spell_percent
from greenroom_operator.resources.config import build_runtime_config
from greenroom_runtime.contract import names
from greenroom_runtime.contract.config import RuntimeConfig
from greenroom_runtime.contract.flags import FlagStore
from greenroom_runtime.contract.report import Failure, PodReport, VersionState

_TICK_SECONDS = 0.1
_BACKOFF_SECONDS = (0.5, 1.0, 2.0, 5.0, 10.0)
_SETTLED_SECONDS = 30.0
"""A process that lived this long starts its backoff anew."""
_HANDS_OFF = (
    f"{names.ANNOTATION_RECONCILE}: disabled is for an operator; here the file is obeyed all the same"
)


def run_deployment(manifest: Path, *, source: str | None, port: int, admin_port: int) -> int:
    """Run until Ctrl-C or SIGTERM; return the exit code. What is wrong at the start ends it with 1."""
    screen = Screen()
    stop = StopSignal()
    try:
        content = read_manifest(manifest)
        deployment = parse_manifest(content, path=manifest)
        uri = source_uri(deployment, source=source)
        with (
            LocalRuntime(port=port, admin_port=admin_port) as runtime,
            LocalShadow(runtime.state) as shadow,
        ):
            local = LocalDeployment(
                manifest=manifest,
                deployment=deployment,
                source=source,
                runtime=runtime,
                shadow=ShadowRun(process=shadow, screen=screen),
                screen=screen,
            )
            local.seen = _fingerprint(content)
            local.handled = deployment.status.last_handled_action  # of an object as a cluster printed it
            screen.event(
                "busy", f"{deployment.metadata.name}: proving {deployment.spec.version} from {uri} …"
            )
            local.notes()
            local.pass_over()
            while not stop.wait(_TICK_SECONDS):
                local.watch_manifest()
                local.watch_process()
                local.pass_over()
            screen.event("quiet", "stopping")
    except (LocalError, OSError) as error:
        screen.error(str(error))
        return 1
    return stop.exit_code


def source_uri(deployment: ModelDeployment, *, source: str | None) -> str:
    """Return where the versions are taken from; LocalError for a place that the runtime cannot read."""
    uri = deployment.spec.source.uri if source is None else source
    if "://" not in uri:
        place = Path(uri).resolve()
        if not place.is_dir():
            raise LocalError(f"--source {uri} is no directory: name one that holds a bundle a version")
        return place.as_uri()
    if uri.startswith(CLAIM_SCHEME):
        raise LocalError(
            f"the source {uri!r} is a volume of a cluster: name a directory that holds its versions with "
            "--source"
        )
    if not any(re.fullmatch(scheme.pattern, uri) for scheme in SOURCE_SCHEMES.values()):
        known = ", ".join(scheme.form for scheme in SOURCE_SCHEMES.values())
        raise LocalError(f"the source {uri!r} cannot be read: this release knows {known} and directories")
    return uri


def _fingerprint(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


@dataclass(kw_only=True)
class LocalDeployment:
    """The last good manifest, the flag store and the promotion: what a cluster keeps in its API server."""

    manifest: Path
    deployment: ModelDeployment
    source: str | None
    runtime: LocalRuntime
    shadow: ShadowRun
    screen: Screen
    seen: str = ""
    """Fingerprint of the manifest's content that was last taken or complained of."""
    glimpsed: str = ""
    """Fingerprint of what was there at the last look."""
    flags: FlagStore | None = None
    promotion: Promotion | None = None
    rollout: Progress | None = None
    handled: str | None = None
    """The newest action that was carried out: what a cluster keeps in ``status.lastHandledAction``."""
    unsaid: tuple[str, str] | None = None
    """What is to be said of the rollout, and in which colour, once the process obeys."""
    config: RuntimeConfig | None = None
    """What the process runs with; None while it should be started."""
    edited: float = field(default_factory=time.monotonic)
    """When the version that is being promoted was asked for."""
    started: float = 0.0
    restart_at: float | None = None
    crashes: int = 0
    refused: Failure | None = None
    """What was last said of a production that does not serve."""
    waiting: str = ""
    """What production was last said to wait for."""
    greeted: str = ""

    def notes(self) -> None:
        """Say what differs from a cluster."""
        spec = self.deployment.spec
        if spec.replicas != 1:
            self.screen.line(
                f"          replicas: {spec.replicas} in a cluster, one process here", kind="quiet"
            )
        secrets = [entry.name for entry in spec.env if entry.value_from is not None]
        if spec.source.secret_ref is not None and self.source is None:
            secrets.append(f"the keys of the Secret {spec.source.secret_ref.name}")
        if spec.prediction_log.secret_ref is not None:
            secrets.append(f"the keys of the Secret {spec.prediction_log.secret_ref.name}")
        secrets += self._secrets_of_features()
        if secrets:
            self.screen.line(f"          from this shell's environment: {', '.join(secrets)}", kind="quiet")
        if place := self._place_of_predictions():
            self.screen.line(f"          predictions are recorded {place}", kind="quiet")
        if spec.shadow is not None and spec.shadow.placement is ShadowPlacement.DEPLOYMENT:
            self.screen.line(
                "          the shadow has pods of its own in a cluster, one process here", kind="quiet"
            )
        if self._keeps_hands_off(self.deployment):
            self.screen.line(f"          {_HANDS_OFF}", kind="quiet")

    @staticmethod
    def _keeps_hands_off(deployment: ModelDeployment) -> bool:
        return deployment.metadata.annotations.get(names.ANNOTATION_RECONCILE) == "disabled"

    def _secrets_of_features(self) -> list[str]:
        features = self.deployment.spec.features
        if features is None:
            return []
        layers = {
            names.ENV_FEATURES_REDIS_PREFIX: features.redis,
            names.ENV_FEATURES_COMPUTE_PREFIX: features.compute,
        }
        return [
            f"the keys of the Secret {layer.secret_ref.name} as {prefix}…"
            for prefix, layer in layers.items()
            if layer is not None and layer.secret_ref is not None
        ]

    def _place_of_predictions(self) -> str:
        log = self.deployment.spec.prediction_log
        if log.sink is PredictionSink.NONE:
            return ""
        if log.sink is PredictionSink.FILES:
            return f"in {self.runtime.predictions} until this ends"
        if log.sink is PredictionSink.STDOUT:
            return f"in {self.runtime.output} until this ends"
        return f"and sent to {log.uri}, as in a cluster"

    def watch_manifest(self) -> None:
        """Take a changed file; what is wrong with it is said once, and the last good one stays."""
        try:
            content = read_manifest(self.manifest)
        except ManifestError as error:
            if self._settled(str(error)):
                self._complain(error)
            return
        if not self._settled(_fingerprint(content)):
            return
        try:
            changed = parse_manifest(content, path=self.manifest)
            source_uri(changed, source=self.source)
        except LocalError as error:
            self._complain(error)
            return
        if changed.spec.version != self.deployment.spec.version:
            self.edited = time.monotonic()
        if self._keeps_hands_off(changed) and not self._keeps_hands_off(self.deployment):
            self.screen.event("note", _HANDS_OFF)
        self.deployment = changed

    def _settled(self, content: str) -> bool:
        """Tell whether this is new, and no longer half written: the same at two looks."""
        new, self.glimpsed = content == self.glimpsed and content != self.seen, content
        if new:
            self.seen = content
        return new

    def _complain(self, error: LocalError) -> None:
        self.screen.event("bad", f"{error}; {self.deployment.spec.version} stays asked for")

    def watch_process(self) -> None:
        """Notice the runtime's death, and start it again after a while."""
        code = self.runtime.exit_code()
        if code is None or self.restart_at is not None:
            return
        if time.monotonic() - self.started > _SETTLED_SECONDS:
            self.crashes = 0
        delay = _BACKOFF_SECONDS[min(self.crashes, len(_BACKOFF_SECONDS) - 1)]
        self.crashes += 1
        self.screen.event("bad", f"the runtime ended with exit code {code}; starting it again in {delay:g} s")
        for line in self.runtime.last_lines():
            self.screen.line(f"          {line}", kind="quiet")
        self.restart_at = time.monotonic() + delay

    def pass_over(self) -> None:
        """Observe, decide, act and say: one pass of what the operator does."""
        report = self.runtime.report() if self.config is not None and self.restart_at is None else None
        before, production = self.promotion, self.flags.production if self.flags else ""
        routed = self.rollout
        action, config = self._take_action(), self._wanted_config()
        world = self._world(report, action)
        self.shadow.look()
        shadow = self.shadow.ask(self.deployment, rolling=config != self.config, action=action)
        plan = plan_release(world, self._wanted_rollout(action), now=datetime.now(UTC), shadow=shadow)
        if plan.flags != self.flags:
            self.runtime.write_flags(plan.flags)
        self.flags, self.promotion, self.rollout = plan.flags, plan.promotion, plan.rollout
        self._say_rollout(routed)
        self._say_share(report)
        self.shadow.take(self.deployment, world.pods[0], plan)
        started = self._run_process(config)
        self.shadow.run_process(self.deployment, config, environment=self._environment())
        self._say_promotion(before, production=production)
        self.shadow.say(plan.flags, served=report.revision if report and report.ready else "")
        if report is not None and not started:  # else it is the report of the process before
            self._say_production(report)

    def _take_action(self) -> Action | None:
        """Return what the annotation asks for the first time, and say so; None where it has no effect."""
        rollout = self.rollout and RolloutStatus(
            version=self.rollout.version,
            state=self.rollout.state,
            paused_by_action=self.rollout.paused or None,
        )
        status = ModelDeploymentStatus(last_handled_action=self.handled, rollout=rollout)
        observed = self.deployment.model_copy(update={"status": status})
        action = find_action(observed)
        if action is None:
            return None
        self.handled = action.text
        if objection := find_objection(action, observed):
            self.screen.event("bad", objection)
            return None
        self.screen.event("note", f"{action.verb} of {action.version}, by the annotation")
        if action.asks(Verb.RETRY, self.deployment.spec.version):
            self.edited, self.refused = time.monotonic(), None
        return action

    def _world(self, report: PodReport | None, action: Action | None) -> PromotionInput:
        pods = (PodView(name=POD, ready=report is not None and report.ready, report=report),)
        spec = self.deployment.spec
        return PromotionInput(
            target=spec.version,
            flags=self.flags,
            promotion=self.promotion,
            pods=pods,
            deadline=parse_duration(spec.progress_deadline),
            retry=action is not None and action.asks(Verb.RETRY, spec.version),
        )

    def _wanted_rollout(self, action: Action | None) -> RolloutInput:
        metadata = self.deployment.metadata
        salt = f"{metadata.namespace}/{metadata.name}"
        spec = self.deployment.spec.rollout
        return RolloutInput(spec=spec, progress=self.rollout, salt=salt, action=action)

    def _wanted_config(self) -> RuntimeConfig:
        uri = source_uri(self.deployment, source=self.source)
        wanted = build_runtime_config(self.deployment).model_copy(update={"source_uri": uri})
        return self.shadow.process.localize(self.runtime.localize(wanted))

    def _environment(self) -> dict[str, str]:
        return {entry.name: entry.value for entry in self.deployment.spec.env if entry.value is not None}

    def _run_process(self, wanted: RuntimeConfig) -> bool:
        """Start the process where it should run and does not, or should run with another configuration."""
        due = self.restart_at is not None and time.monotonic() >= self.restart_at
        if wanted == self.config and not due:
            return False
        if self.config is not None and not due:
            self.screen.event(
                "busy", "the configuration changed: a cluster would roll its pods, here the process restarts"
            )
            self.runtime.stop()
        self.runtime.start(wanted, environment=self._environment())
        self.config, self.started, self.restart_at, self.greeted = wanted, time.monotonic(), None, ""
        return True

    def _say_promotion(self, before: Promotion | None, *, production: str) -> None:
        after = self.promotion
        if before is not None and before.state is PromotionState.PREPARING and after is None:
            self.screen.event(
                "note", f"{before.version} is no longer asked for; {production} stays production"
            )
        if after is None or (
            before is not None and (before.version, before.state) == (after.version, after.state)
        ):
            return
        if after.state is PromotionState.PREPARING:
            self.screen.event("busy", f"preparing {after.version} beside {production} …")
        elif after.state is PromotionState.COMPLETE:
            took = (time.monotonic() - self.edited) * 1000
            self.greeted = after.version if self.greeted else ""
            self.screen.event("good", f"promoted to {after.version} in {took:.0f} ms, without a restart")
        elif after.refusal is not None:
            self._say_refusal(after.refusal, production=production)

    def _say_rollout(self, before: Progress | None) -> None:
        after, production = self.rollout, self.flags.production if self.flags else ""
        if after is None and before is not None and not before.is_over and before.version != production:
            self.unsaid = ("note", f"{before.version} is no longer rolled out; all users get {production}")
        if after is None or (before is not None and before.decision == after.decision):
            return
        share = f"{after.version} serves {spell_percent(after.hundredths)} % of users"
        self.unsaid = None
        match after.state:
            case RolloutState.WAITING_FOR_SHADOW:
                self.screen.event("note", f"the rollout of {after.version} waits: {after.message}")
            case RolloutState.PREPARING:
                self.screen.event("busy", f"preparing {after.version} for its rollout …")
            case RolloutState.REFUSED | RolloutState.ABORTED:
                self._say_end(after, production=production)
            case RolloutState.RUNNING | RolloutState.HOLDING | RolloutState.PAUSED:
                self.unsaid = ("note", f"{share}; {after.message or 'the others get production'}")
            case RolloutState.COMPLETE:
                self.unsaid = ("good", f"{share}: {after.message}")

    def _say_end(self, ended: Progress, *, production: str) -> None:
        told = f"rollout of {ended.version} {ended.state.lower()}: {ended.reason}: {ended.message}"
        self.screen.event("bad", told)
        if ended.refusal is not None and ended.refusal.failure is not None:
            self._say_values(ended.refusal.failure)
        self.screen.line(f"          {production} stays production", kind="good")

    def _say_share(self, report: PodReport | None) -> None:
        """Say who gets which version, once the process obeys."""
        if self.unsaid is None or report is None or self.flags is None:
            return
        if report.revision == self.flags.revision:
            self.screen.event(*self.unsaid)
            self.unsaid = None

    def _say_refusal(self, refusal: Refusal, *, production: str) -> None:
        self.screen.event("bad", f"refused {refusal.version}: {refusal.reason}: {refusal.message}")
        if refusal.failure is not None:
            self._say_values(refusal.failure)
        self.screen.line(f"          {production} stays production", kind="good")

    def _say_values(self, failure: Failure) -> None:
        for label, value in (("expected", failure.expected), ("found", failure.found)):
            if value:
                self.screen.line(f"          {label:8}  {value}")

    def _say_production(self, report: PodReport) -> None:
        """Greet when production first answers; tell why it does not where it is refused."""
        production = report.production
        if report.ready and production and self.greeted != production:
            if not self.greeted:
                greet(self.runtime, production, screen=self.screen)
            self.greeted, self.refused = production, None
        if self.flags is None or report.revision != self.flags.revision:
            return
        seen = report.version(self.flags.production)
        failure = seen.failure if seen is not None and seen.state is VersionState.FAILED else None
        waiting = seen.message if seen is not None and failure is None else ""
        if waiting and waiting != self.waiting:
            self.screen.event("busy", f"{self.flags.production}: {waiting}")
        self.waiting = waiting
        if failure is not None and failure != self.refused and not report.ready:
            self.screen.event(
                "bad", f"refused {self.flags.production}: {failure.reason}: {failure.message}; nothing serves"
            )
            self._say_values(failure)
            self.screen.line(f"          name another version in {self.manifest}", kind="note")
        self.refused = failure
