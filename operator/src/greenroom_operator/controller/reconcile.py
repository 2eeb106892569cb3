"""One pass over one ModelDeployment: observe, decide, build, apply, report.

Level-triggered: a pass looks at the world as it is, not at what has changed, so that a pass that was
missed, cut short or repeated makes no difference. A second pass over the same world writes nothing.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, Protocol, TypeVar

import structlog
from pydantic import ValidationError

from greenroom_operator.api.modeldeployment import (
    API_VERSION,
    KIND,
    ModelDeployment,
    ModelDeploymentStatus,
)
from greenroom_operator.api.times import parse_duration
from greenroom_operator.controller.actions import Verb, find_action, find_objection
from greenroom_operator.controller.conditions import ConditionType, Reason, Situation, Verdict
from greenroom_operator.controller.context import (
    Child,
    Observed,
    find_crash,
    has_shadow,
    is_leaving,
    is_ready,
    is_shadow,
)
from greenroom_operator.controller.events import build_event
from greenroom_operator.controller.preparation import PodView
from greenroom_operator.controller.promotion import PromotionInput
from greenroom_operator.controller.release import ReleasePlan, plan_release
from greenroom_operator.controller.rollout import RolloutInput
from greenroom_operator.controller.rollout_status import read_progress
from greenroom_operator.controller.shadow import ShadowInput, list_segments
from greenroom_operator.controller.shadow_counts import ShadowView
from greenroom_operator.controller.shadow_status import read_shadow
from greenroom_operator.controller.status import (
    build_blocked_status,
    build_status,
    find_transitions,
    judge,
    next_look,
    read_promotion,
)
from greenroom_operator.controller.store import Store
from greenroom_operator.controller.texts import Transition
from greenroom_operator.controller.writer import Writer
from greenroom_operator.errors import Forbidden, NotFound, Rejected
from greenroom_operator.kinds import POD, Key
from greenroom_operator.resources import build_children
from greenroom_operator.resources.flags import flags_name
from greenroom_operator.resources.ownership import controller_uid
from greenroom_operator.resources.service import shadow_name
from greenroom_runtime.contract import names
from greenroom_runtime.contract.flags import FlagDocumentError, FlagStore
from greenroom_runtime.contract.report import PodReport, VersionState
from greenroom_runtime.contract.shadow import ShadowReport

log = structlog.get_logger(__name__)

REPORT_MAX_AGE: Final = 75.0
"""Seconds; two polls at rest and a bit. An older report says nothing of today."""
POLL_CONVERGING: Final = 1.0
POLL_WATCHED: Final = 5.0
"""While a gate watches: harm is to be seen soon."""
POLL_AT_REST: Final = 30.0
_OUR_CONDITIONS: Final = frozenset(condition.value for condition in ConditionType)
LOOK_AGAIN: Final = 5.0
"""Seconds until a pass that is blocked by somebody else's object looks again: no event tells of those."""


Report_co = TypeVar("Report_co", covariant=True)


class Observation(Protocol[Report_co]):
    """A pod's newest answer."""

    @property
    def report(self) -> Report_co | None:
        """What it said; None where it did not, or said garbage."""

    @property
    def at(self) -> float:
        """When, on the monotonic clock."""

    @property
    def former(self) -> Report_co | None:
        """What another life told last that ended in this pod."""


class Reports(Protocol[Report_co]):
    """Where pods' reports come from."""

    def watch(self, key: Key, pods: Mapping[str, str], *, every: float) -> None:
        """Ask these pods (uid -> IP) every so many seconds, and no others of this key."""

    def observation(self, uid: str) -> Observation[Report_co] | None:
        """Return a pod's newest answer."""

    def forget(self, key: Key) -> None:
        """Ask no pod of this key any more."""


@dataclass(frozen=True, kw_only=True)
class Result:
    """What the queue should know after a pass."""

    requeue_after: float | None = None
    """Seconds; None waits for news or for the next relist."""


class BlockedError(Exception):
    """The pass cannot go on before somebody else does something; the verdict says who and what."""

    def __init__(self, verdict: Verdict, *, again: float | None) -> None:
        super().__init__(verdict.message)
        self.verdict = verdict
        self.again = again


class Reconciler:
    """The operator's one recipe."""

    def __init__(
        self,
        *,
        store: Store,
        writer: Writer,
        reports: Reports[PodReport],
        shadow_reports: Reports[ShadowReport],
        default_image: str,
        instance: str,
        now: Callable[[], datetime],
        monotonic: Callable[[], float],
    ) -> None:
        self._store = store
        self._writer = writer
        self._reports = reports
        self._shadow_reports = shadow_reports
        self._default_image = default_image
        self._instance = instance
        self._now = now
        self._monotonic = monotonic

    async def reconcile(self, key: Key) -> Result:
        """Bring the cluster one pass nearer to what a ModelDeployment asks for, and say how far it is."""
        body = self._store.deployment(key)
        if body is None or "deletionTimestamp" in body["metadata"]:
            self._reports.forget(key)  # owner references do the rest
            self._shadow_reports.forget(key)
            return Result()
        try:
            deployment = _parse(body)
            observed = self._observe(deployment)
            _refuse_to_act_when_told(observed)
            plan = await self._plan(observed)
            if _decides(observed, plan, now=self._now()):
                # Remembered before anything is done about it: an operator that dies now takes nothing back.
                await self._report(body, observed, plan, done=False)
                return Result(requeue_after=0.0)
            children = _build(deployment, plan, default_image=self._default_image)
            await self._apply(observed, children)
            observed = self._observe(deployment)
            await self._touch_pods(observed, plan.flags)
            await self._prune(observed, children)
            observed = self._observe(deployment)
            self._watch_pods(observed, plan)
            await self._report(body, observed, plan)
            # Last: what a shadow told that is gone now is to be in status before it is forgotten.
            self._watch_shadows(observed, plan)
            return Result(requeue_after=next_look(observed, plan))
        except BlockedError as blocked:
            await self._report_blocked(body, blocked.verdict)
            return Result(requeue_after=blocked.again)
        except Forbidden as error:
            await self._report_blocked(body, Verdict(situation=Situation.FORBIDDEN, message=str(error)))
            raise  # it is tried again, ever more rarely: nobody tells when a quota is raised

    def _observe(self, deployment: ModelDeployment) -> Observed:
        key = Key(deployment.metadata.namespace, deployment.metadata.name)
        present = [pod for pod in self._store.pods(key) if not is_leaving(pod) and controller_uid(pod)]
        pods = [pod for pod in present if not is_shadow(pod)]
        return Observed(
            deployment=deployment,
            children=self._store.children(key),
            pods=pods,
            views=[self._view(pod) for pod in pods],
            shadow_pods=[pod for pod in present if is_shadow(pod)],
            shadows=self._view_shadows(deployment, [pod for pod in present if has_shadow(pod)]),
        )

    def _view_shadows(self, deployment: ModelDeployment, pods: Sequence[Child]) -> list[ShadowView]:
        """Return what shadows say, those included that are gone and whose numbers are still to be added."""
        if deployment.spec.shadow is None:
            return []
        remembered = read_shadow(deployment.status)
        known = remembered.counted.shadows.keys() if remembered is not None else set()
        present = {
            pod["metadata"]["uid"]: pod["metadata"]["name"]
            for pod in pods
            if _find_address(pod) or pod["metadata"]["uid"] in known
        }
        left = known - present.keys()
        gone = [self._view_shadow(uid, "", gone=True) for uid in sorted(left)]
        return [*(self._view_shadow(uid, pod) for uid, pod in present.items()), *gone]

    def _view_shadow(self, uid: str, pod: str, *, gone: bool = False) -> ShadowView:
        seen = self._shadow_reports.observation(uid)
        if seen is None:
            return ShadowView(pod=pod, uid=uid, gone=gone)
        fresh = self._monotonic() - seen.at <= REPORT_MAX_AGE
        report = seen.report if fresh or gone else None
        return ShadowView(
            pod=pod,
            uid=uid,
            # An IP address is given to the next pod soon after its owner is gone.
            report=report if report is not None and (gone or report.pod == pod) else None,
            former=seen.former,
            silent=not fresh,
            gone=gone,
        )

    def _view(self, pod: Child) -> PodView:
        name = pod["metadata"]["name"]
        seen = self._reports.observation(pod["metadata"]["uid"])
        fresh = seen is not None and self._monotonic() - seen.at <= REPORT_MAX_AGE
        report = seen.report if seen is not None and fresh else None
        return PodView(
            name=name,
            ready=is_ready(pod),
            # An IP address is given to the next pod soon after its owner is gone.
            report=report if report is not None and report.pod == name else None,
            silent=seen is not None and not fresh,
            crashed=find_crash(pod),
        )

    async def _plan(self, observed: Observed) -> ReleasePlan:
        plan = self._decide(observed)
        before = observed.flags
        if before is not None and plan.flags.production != before.production:
            # The watch may lag: a pod that it has not told of yet must not be switched unproven.
            await self._writer.observe_all(POD.name, observed.deployment.metadata.namespace)
            plan = self._decide(self._observe(observed.deployment))
        return plan

    def _decide(self, observed: Observed) -> ReleasePlan:
        now, deployment = self._now(), observed.deployment
        metadata, spec = deployment.metadata, deployment.spec
        salt = f"{metadata.namespace}/{metadata.name}"
        action = find_action(deployment)
        world = PromotionInput(
            target=spec.version,
            flags=observed.flags,
            promotion=read_promotion(deployment.status, now=now),
            proven=deployment.status.version or "",
            pods=observed.views,
            wanted=spec.replicas,
            rolling=observed.rolling,
            deadline=parse_duration(spec.progress_deadline),
            retry=action is not None and action.asks(Verb.RETRY, spec.version),
            pins={version.name: version.digest for version in deployment.status.versions if version.digest},
        )
        rollout = RolloutInput(
            spec=spec.rollout,
            progress=read_progress(deployment.status, now=now),
            salt=salt,
            action=action if action is not None and not find_objection(action, deployment) else None,
        )
        shadow = (
            ShadowInput(
                spec=spec.shadow,
                progress=read_shadow(deployment.status),
                salt=salt,
                views=observed.shadows,
                segments=list_segments(spec.rollout),
                rolling=observed.shadow_rolling,
                action=action,
            )
            if spec.shadow is not None
            else None
        )
        try:
            return plan_release(world, rollout, now=now, shadow=shadow)
        except FlagDocumentError as error:  # what the schema's rules let through
            verdict = Verdict(situation=Situation.INVALID_SPEC, message=f"spec.rollout: {error}")
            raise BlockedError(verdict, again=None) from error

    async def _apply(self, observed: Observed, children: Sequence[Mapping[str, Any]]) -> None:
        for child in children:
            known = observed.child(child["kind"], child["metadata"]["name"])
            if known is None:
                known = await self._find_unwatched(observed, child)
            fenced = child["metadata"]["name"] == flags_name(observed.deployment)
            version = known["metadata"]["resourceVersion"] if fenced and known is not None else None
            try:
                await self._writer.apply(child, resource_version=version)
            except Rejected as error:
                verdict = Verdict(
                    situation=Situation.INVALID_SPEC,
                    message=f"the API server refuses our {error.kind} {error.name}: {error.summary}",
                )
                raise BlockedError(verdict, again=None) from error

    async def _find_unwatched(self, observed: Observed, child: Mapping[str, Any]) -> Child | None:
        """Look whether a name is free, ours all the same, or somebody else's."""
        metadata = child["metadata"]
        found = await self._writer.get(child["kind"], metadata["namespace"], metadata["name"])
        if found is None or controller_uid(found) == observed.deployment.metadata.uid:
            return found
        verdict = Verdict(
            situation=Situation.NAME_CONFLICT,
            message=(
                f"{child['kind']} {metadata['name']} exists and is not ours: it is left alone; "
                "remove it, or give the ModelDeployment another name"
            ),
        )
        raise BlockedError(verdict, again=LOOK_AGAIN)

    async def _touch_pods(self, observed: Observed, flags: FlagStore) -> None:
        """Make kubelet refresh the flag store at once, where a pod does not obey it yet.

        Once for each time that it was written: a store may come back, and kubelet does not look up at a
        value that the pod has already.
        """
        written = f"{flags.revision}.{observed.flags_written}"
        obeyed = _list_obeyed(observed)
        for pod in (*observed.pods, *observed.shadow_pods):
            metadata = pod["metadata"]
            told = (metadata.get("annotations") or {}).get(names.ANNOTATION_FLAGS_REVISION)
            obeys = obeyed.get(metadata["uid"], set()) == {flags.revision}
            if pod.get("status", {}).get("phase") != "Running" or obeys or told == written:
                continue
            annotations = {names.ANNOTATION_FLAGS_REVISION: written}
            try:
                await self._writer.annotate(POD.name, metadata["namespace"], metadata["name"], annotations)
            except NotFound:
                log.debug("pod gone before it was touched", pod=metadata["name"])

    async def _prune(self, observed: Observed, children: Sequence[Mapping[str, Any]]) -> None:
        """Delete what is ours and no longer asked for, once no pod of an older template may start with it."""
        if observed.workload.rolling:
            return
        wanted = {(child["kind"], child["metadata"]["name"]) for child in children}
        needed = (
            observed.shadow_workload.rolling and ("Deployment", shadow_name(observed.deployment)) in wanted
        )
        for child in observed.ours:
            kept = needed and child["kind"] == "ConfigMap"  # the shadow's own pods start with one, too
            if not kept and (child["kind"], child["metadata"]["name"]) not in wanted:
                await self._writer.delete(child)

    def _watch_pods(self, observed: Observed, plan: ReleasePlan) -> None:
        metadata = observed.deployment.metadata
        addresses = {
            pod["metadata"]["uid"]: pod["status"]["podIP"]
            for pod in observed.pods
            if pod.get("status", {}).get("podIP")
        }
        settled = not plan.active and all(
            view.ready and view.report is not None and view.report.revision == plan.flags.revision
            for view in observed.views
        )
        watched = plan.rollout is not None and plan.rollout.evidence is not None
        every = (POLL_WATCHED if watched else POLL_AT_REST) if settled else POLL_CONVERGING
        self._reports.watch(Key(metadata.namespace, metadata.name), addresses, every=every)

    def _watch_shadows(self, observed: Observed, plan: ReleasePlan) -> None:
        metadata = observed.deployment.metadata
        addresses = {
            pod["metadata"]["uid"]: address
            for pod in (*observed.pods, *observed.shadow_pods)
            if has_shadow(pod) and (address := _find_address(pod))
        }
        if plan.shadow is None:
            addresses = {}
        changing = any(_is_changing(view, plan.flags) for view in observed.shadows if not view.gone)
        watched = plan.shadow is not None and not plan.shadow.is_judged
        every = POLL_CONVERGING if changing else POLL_WATCHED if watched else POLL_AT_REST
        self._shadow_reports.watch(Key(metadata.namespace, metadata.name), addresses, every=every)

    async def _report(self, body: Child, observed: Observed, plan: ReleasePlan, *, done: bool = True) -> None:
        """Write status and tell what is new; ``done`` tells whether the flag store has been written, too."""
        now = self._now()
        deployment = observed.deployment
        verdict = judge(observed, plan, now=now)
        action = find_action(deployment)
        if action is not None and not done and action.asks(Verb.RETRY, deployment.spec.version):
            action = None  # a promotion is tried again through the flag store
        status = build_status(observed, plan, verdict, now=now, action=action.text if action else None)
        if not done:  # pods may have to be replaced first for a spec that has not been applied
            known = deployment.status.observed_generation
            status = status.model_copy(update={"observed_generation": known})
        await self._write_status(body, deployment.status, status)
        if action is not None and (objection := find_objection(action, deployment)):
            await self._tell(
                body, Transition(warning=True, reason=Reason.ACTION_IGNORED.value, message=objection)
            )

    async def _report_blocked(self, body: Child, verdict: Verdict) -> None:
        before = _read_status(body)
        generation = body["metadata"].get("generation", 0)
        status = build_blocked_status(before, verdict, generation=generation, now=self._now())
        await self._write_status(body, before, status)

    async def _write_status(
        self, body: Child, before: ModelDeploymentStatus, status: ModelDeploymentStatus
    ) -> None:
        metadata = body["metadata"]
        manifest = {
            "apiVersion": API_VERSION,
            "kind": KIND,
            "metadata": {"name": metadata["name"], "namespace": metadata["namespace"]},
            "status": status.model_dump(mode="json", by_alias=True, exclude_none=True),
        }
        await self._writer.apply_status(
            manifest, condition_types=_OUR_CONDITIONS, resource_version=metadata["resourceVersion"]
        )
        for transition in find_transitions(before, status):
            await self._tell(body, transition)

    async def _tell(self, body: Child, transition: Transition) -> None:
        metadata = body["metadata"]
        log.info(
            "transition",
            namespace=metadata["namespace"],
            name=metadata["name"],
            generation=metadata.get("generation"),
            reason=transition.reason,
            message=transition.message,
        )
        event = build_event(
            body,
            type="Warning" if transition.warning else "Normal",
            reason=transition.reason,
            message=transition.message,
            now=self._now(),
            instance=self._instance,
        )
        await self._writer.emit(event)


def _parse(body: Child) -> ModelDeployment:
    try:
        return ModelDeployment.model_validate({**body, "status": _read_status(body)})
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        verdict = Verdict(situation=Situation.INVALID_SPEC, message=f"{place}: {first['msg']}")
        raise BlockedError(verdict, again=None) from error


def _read_status(body: Child) -> ModelDeploymentStatus:
    """Return the status; an empty one where a newer operator has written what this one does not know."""
    try:
        return ModelDeploymentStatus.model_validate(body.get("status") or {})
    except ValidationError:
        return ModelDeploymentStatus()


def _refuse_to_act_when_told(observed: Observed) -> None:
    if observed.disabled:
        message = (
            f"annotation {names.ANNOTATION_RECONCILE}: disabled; remove it to let the operator work again"
        )
        raise BlockedError(Verdict(situation=Situation.DISABLED, message=message), again=None)
    if observed.orphans:
        left = ", ".join(sorted(f"{child['kind']} {child['metadata']['name']}" for child in observed.orphans))
        message = f"waiting for what a deleted ModelDeployment of this name left: {left}"
        raise BlockedError(Verdict(situation=Situation.JUST_CREATED, message=message), again=LOOK_AGAIN)


def _build(deployment: ModelDeployment, plan: ReleasePlan, *, default_image: str) -> list[dict[str, Any]]:
    try:
        return build_children(deployment, flags=plan.flags, default_image=default_image)
    except ValueError as error:  # a quantity or a duration that the schema's patterns let through
        verdict = Verdict(situation=Situation.INVALID_SPEC, message=str(error))
        raise BlockedError(verdict, again=None) from error


def _decides(observed: Observed, plan: ReleasePlan, *, now: datetime) -> bool:
    """Whether the plan holds something about the rollout or the shadow that status does not know yet."""
    status = observed.deployment.status
    known = (read_progress(status, now=now), read_shadow(status))
    return tuple(part.decision if part is not None else None for part in known) != plan.decision


def _find_address(pod: Child) -> str:
    """Return where a pod that runs is reached, empty before and after."""
    status = pod.get("status", {})
    return str(status.get("podIP") or "") if status.get("phase") == "Running" else ""


def _list_obeyed(observed: Observed) -> dict[str, set[str]]:
    """Return the revisions that each pod's processes obey, by the pod's uid."""
    obeyed: dict[str, set[str]] = {}
    for pod, view in zip(observed.pods, observed.views, strict=True):
        obeyed[pod["metadata"]["uid"]] = {view.report.revision if view.report else ""}
    for shadow in observed.shadows:
        process = shadow.report.process if shadow.report else None
        if not shadow.gone and process is not None and process.revision:
            obeyed.setdefault(shadow.uid, set()).add(process.revision)
    return obeyed


def _is_changing(view: ShadowView, flags: FlagStore) -> bool:
    """Whether a shadow is on its way to what the flag store asks for; one that does not live is not."""
    process = view.report.process if view.report and view.report.running else None
    if process is None:
        return False
    seen = process.version
    on_its_way = seen is not None and seen.state not in (VersionState.READY, VersionState.FAILED)
    return on_its_way or process.revision != flags.revision
