"""Promotions and rollouts at once, while pods come and go and operators die between two writes."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any, Final

from hypothesis import given, settings
from hypothesis import strategies as st

from greenroom_operator.api.modeldeployment import PromotionState
from greenroom_operator.api.rollout import Rollout, RolloutState, RolloutStep
from greenroom_operator.controller.actions import Action, Verb
from greenroom_operator.controller.gate import dump_evidence, parse_evidence
from greenroom_operator.controller.preparation import PodView
from greenroom_operator.controller.promotion import Promotion, PromotionInput
from greenroom_operator.controller.release import ReleasePlan, plan_release
from greenroom_operator.controller.rollout import Progress, RolloutInput
from greenroom_runtime.contract.evidence import ArmEvidence, Bitmap, RolloutEvidence
from greenroom_runtime.contract.flags import WHOLE, FlagStore
from greenroom_runtime.contract.report import FailureReason, PodReport, VersionReport, VersionState
from tests.support.builders import NOW, failed, pod_report, version_report

DEADLINE: Final = timedelta(minutes=10)
GOOD: Final = ("v1", "v2", "v3")
BROKEN: Final = "broken"
"""Fails its proof wherever it is tried."""
FUSSY: Final = "fussy"
"""Fails on every other pod: one has too little memory, say."""
HARMFUL: Final = "harmful"
"""Passes its proof, and fails on users' requests."""
VERSIONS: Final = (*GOOD, BROKEN, FUSSY)
STEPS: Final = (RolloutStep(percent=1, hold="5s"), RolloutStep(percent=50, hold="5s"))
MOST_PODS: Final = 4


@dataclass
class Pod:
    """A serving process and its kubelet, as far as promotions concern them."""

    ordinal: int
    obeyed: FlagStore | None = None
    ready: bool = False
    serves: str = ""
    versions: dict[str, VersionReport] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """Pods' names have no order in time."""
        return f"churn-{self.ordinal * 7 % 10}{self.ordinal}"

    def obey(self, flags: FlagStore) -> None:
        """Take a new flag document: let go of what is not resident, switch where that is possible."""
        self.obeyed = flags
        self.versions = {name: seen for name, seen in self.versions.items() if name in flags.resident}
        self._switch()

    def work(self, editions: Mapping[str, int]) -> None:
        """Prove the next version that the document asks for, production first."""
        if self.obeyed is None:
            return
        for version in sorted(self.obeyed.resident, key=lambda name: name != self.obeyed_production):
            if version not in self.versions and self.obeyed.prepares(version, pod=self.name):
                self.versions[version] = self._prove(version, edition=editions.get(version, 0))
                break
        self._switch()

    def restart(self) -> None:
        """Die and come back with nothing loaded."""
        self.versions, self.serves, self.ready = {}, "", False

    def report(self) -> PodReport:
        """Say how things are now."""
        told = pod_report(
            *self.versions.values(),
            pod=self.name,
            flags=self.obeyed,
            production=self.serves,
            ready=self.ready,
        )
        return told.model_copy(update={"evidence": self._count()})

    def _count(self) -> RolloutEvidence | None:
        """Say what users met: much traffic, and many errors where the rollout's version does harm."""
        rollout = self.obeyed.rollout if self.obeyed else None
        if rollout is None or not rollout.epoch or rollout.version not in self.versions:
            return None
        seen, slow = Bitmap.of(range(3000)), Bitmap.of(range(750))
        fine = ArmEvidence(seen=seen, timed=seen, slow=slow, requests=5000)
        harmed = fine.model_copy(update={"failed": Bitmap.of(range(1000)), "errors": 2000})
        return RolloutEvidence(
            epoch=rollout.epoch,
            version=rollout.version,
            rollout=harmed if rollout.version == HARMFUL else fine.model_copy(update={"slow": Bitmap()}),
            production=fine,
        )

    @property
    def obeyed_production(self) -> str:
        """What the document that it obeys calls production."""
        return self.obeyed.production if self.obeyed else ""

    def _prove(self, version: str, *, edition: int) -> VersionReport:
        if version == BROKEN or (version == FUSSY and self.ordinal % 2):
            return failed(version)
        found = version_report(version, edition=str(edition or ""))
        pinned = self.obeyed.digests.get(version, "") if self.obeyed else ""
        if pinned and found.digest != pinned:
            return failed(version, FailureReason.DIGEST_CHANGED)
        return found

    def _switch(self) -> None:
        seen = self.versions.get(self.obeyed_production)
        if seen is not None and seen.state is VersionState.READY:
            self.serves, self.ready = self.obeyed_production, True


@dataclass(frozen=True, kw_only=True)
class Pass:
    """A pass that has decided and not yet written everything: what it saw, and what it wants."""

    plan: ReleasePlan
    flags_version: int
    body_version: int
    action: str
    remembers: bool
    """Whether it only writes down what it has decided."""
    flags_written: bool = False


class Cluster:
    """One ModelDeployment, and two operators that may both believe to lead."""

    def __init__(self, *, pods: int) -> None:
        self.seconds = 0
        self.body_version = 1
        """Raised by each change of the ModelDeployment, of its spec or its status."""
        self.spec = "v1"
        self.past_specs = {"v1"}
        self.action = self.handled = ""
        self.promotion: Promotion | None = None
        self.rollout: Rollout | None = None
        self.progress: Progress | None = None
        self.buried: set[str] = set()
        """Versions whose rollout has ended, as status says; routed again only when asked for anew."""
        self.served = ""
        self.pins: Mapping[str, str] = {}
        self.flags: FlagStore | None = None
        self.flags_version = 1
        self.pods: list[Pod] = []
        self.wanted = 1
        """Zero or not is all that matters of it."""
        self.started = 0
        self.reports: dict[str, PodReport] = {}
        self.passes: list[Pass | None] = [None, None]
        self.editions: dict[str, int] = {}
        self.unproven: set[str] = set()
        """Versions that became production while nobody could prove them: at first, or scaled to zero."""
        self.run_a_whole_pass()
        for _ in range(pods):
            self.start_pod()
        self.all_pods_advance()
        self.run_a_whole_pass()

    # What people do

    def change_spec(self, version: str) -> None:
        """Edit spec.version."""
        self.spec = version
        self.past_specs.add(version)
        self.body_version += 1

    def alter_source(self, version: str) -> None:
        """Overwrite a version's bytes, which nobody should."""
        self.editions[version] = self.editions.get(version, 0) + 1

    def lose_flags(self) -> None:
        """Delete the flag store."""
        self.flags = None
        self.flags_version += 1

    def ask(self, verb: Verb, version: str) -> None:
        """Annotate with a new action."""
        self.action = f"{verb}/{version}/{self.body_version}"
        self.body_version += 1

    def ask_retry(self) -> None:
        """Try what Git asks for as production again."""
        self.ask(Verb.RETRY, self.spec)

    def roll_out(self, version: str, percent: float | None) -> None:
        """Edit spec.rollout: a fixed share, or steps."""
        steps = None if percent is not None else STEPS
        self.rollout = Rollout(version=version, percent=percent, steps=steps)
        self.body_version += 1

    def withdraw(self) -> None:
        """Take spec.rollout out."""
        self.rollout = None
        self.body_version += 1

    # What the cluster does

    def wait(self, seconds: int) -> None:
        """Let time pass."""
        self.seconds += seconds

    def scale_to_zero(self) -> None:
        """Stop serving; the next pod that starts is one that somebody wants."""
        self.wanted = 0
        self.pods.clear()

    def start_pod(self) -> None:
        """Start one more pod."""
        self.wanted = 1
        if len(self.pods) < MOST_PODS:
            self.pods.append(Pod(self.started))
            self.started += 1

    def scale_up(self) -> None:
        """Let one more pod come up between two reports: it gets traffic, and nobody has heard it."""
        self.start_pod()
        self.refresh_pod(-1)
        self.let_pod_work(-1)

    def delete_pod(self, index: int) -> None:
        """Delete a pod; its successor takes a while."""
        for pod in self._pick(index):
            self.pods.remove(pod)

    def restart_pod(self, index: int) -> None:
        """Kill a pod's process; kubelet starts another."""
        for pod in self._pick(index):
            pod.restart()

    def refresh_pod(self, index: int) -> None:
        """Let kubelet bring a pod the newest flag store."""
        for pod in self._pick(index):
            if self.flags is not None:
                pod.obey(self.flags)

    def let_pod_work(self, index: int) -> None:
        """Let a pod prove one version, and kubelet find it ready."""
        for pod in self._pick(index):
            pod.work(self.editions)

    def hear_pod(self, index: int) -> None:
        """Let the operators ask a pod; until the next time they know it as it was now."""
        for pod in self._pick(index):
            self.reports[pod.name] = pod.report()

    def all_pods_advance(self) -> None:
        """Let every pod obey, prove and be heard, as happens most of the time."""
        for index in range(len(self.pods)):
            self.refresh_pod(index)
            self.let_pod_work(index)
            self.hear_pod(index)

    # What operators do

    def decide(self, which: int) -> None:
        """Begin a pass: see the world, decide, and write nothing yet."""
        action = self._find_action()
        target = self.spec
        world = PromotionInput(
            target=target,
            flags=self.flags,
            promotion=replace(self.promotion, refusal=None) if self.promotion else None,
            proven=self.served,
            pods=[
                PodView(name=pod.name, ready=pod.ready, report=self.reports.get(pod.name))
                for pod in self.pods
            ],
            wanted=self.wanted,
            deadline=DEADLINE,
            retry=action is not None and action.asks(Verb.RETRY, target),
            pins=self.pins,
        )
        rollout = RolloutInput(spec=self.rollout, progress=self.progress, salt="ml/churn", action=action)
        plan = plan_release(world, rollout, now=NOW + timedelta(seconds=self.seconds))
        remembers = _decision(plan.rollout) != _decision(self.progress)
        if not remembers:
            self._judge(plan)
        done = action is not None and not (remembers and world.retry)
        self.passes[which] = Pass(
            plan=plan,
            flags_version=self.flags_version,
            body_version=self.body_version,
            action=self.action if done else "",
            remembers=remembers,
        )

    def write_flags(self, which: int) -> None:
        """Write a pass's flag store, unless the one that it saw is no more."""
        seen = self.passes[which]
        if seen is None or seen.flags_written:
            return
        if seen.remembers:
            self.passes[which] = replace(seen, flags_written=True)
            return
        if seen.flags_version != self.flags_version:
            self.passes[which] = None
            return
        if seen.plan.flags != self.flags:
            self.flags = seen.plan.flags
            self.flags_version += 1
        self.passes[which] = replace(seen, flags_written=True)

    def write_status(self, which: int) -> None:
        """Write a pass's status, unless the object that it saw has changed."""
        seen, self.passes[which] = self.passes[which], None
        if seen is None or not seen.flags_written or seen.body_version != self.body_version:
            return
        before = (self.promotion, self.served, self.pins, self.handled, self.progress)
        heard = [self.reports.get(pod.name) for pod in self.pods if pod.ready]
        told = {report.production for report in heard if report}
        self.served = told.pop() or self.served if len(told) == 1 else self.served
        self.promotion, self.pins = seen.plan.promotion, seen.plan.flags.digests
        self.progress = _remembered(seen.plan.rollout)
        self._bury()
        self.handled = seen.action or self.handled
        after = (self.promotion, self.served, self.pins, self.handled, self.progress)
        self.body_version += before != after

    def _find_action(self) -> Action | None:
        if self.action in ("", self.handled):
            return None
        verb, version, _ = self.action.split("/")
        return Action(text=self.action, verb=Verb(verb), version=version)

    def _bury(self) -> None:
        progress = self.progress
        if progress is not None and progress.is_over:
            self.buried.add(progress.version)
        elif progress is not None:
            self.buried.discard(progress.version)

    def crash(self, which: int) -> None:
        """Kill an operator in the middle of its pass."""
        self.passes[which] = None

    def run_a_whole_pass(self) -> None:
        """Let one operator go through undisturbed, as happens most of the time."""
        for _ in range(3):
            self.decide(0)
            remembers = self.passes[0] is not None and self.passes[0].remembers
            self.write_flags(0)
            self.write_status(0)
            if not remembers:
                return
        message = f"it never stops to decide: {self.progress}"
        raise AssertionError(message)

    # What must hold

    def check(self) -> None:
        """Production is always some spec.version, and a version that fails everywhere only unproven."""
        if self.flags is not None:
            assert self.flags.production in self.past_specs
            assert self.flags.production != BROKEN or BROKEN in self.unproven
            assert len(self.flags.resident) <= 3
            assert self.flags.rollout is None or self.flags.rollout.version != BROKEN

    def _judge(self, plan: ReleasePlan) -> None:
        """Hold a decision to the promise, by what was reported and not by the decision's own reasons."""
        before, after = self.flags, plan.flags.production
        if plan.flags.rollout is not None:
            assert plan.flags.rollout.version not in self.buried
            assert self.rollout is not None
            assert plan.flags.rollout.version == self.rollout.version
        if before is not None and before.production == after:
            return
        assert after == (self.spec if before is not None else self.served or self.spec)
        if not self.served or (not self.pods and not self.wanted):
            self.unproven.add(after)
            return
        if before is None:
            return
        heard = [self.reports.get(pod.name) for pod in self.pods]
        serving = [self.reports.get(pod.name) for pod in self.pods if pod.ready]
        witnesses = serving or [report for report in heard if report]
        proofs = [
            report and report.revision == before.revision and report.version(after) for report in witnesses
        ]
        assert proofs
        assert all(proof and proof.state is VersionState.READY for proof in proofs)
        assert len({proof.digest for proof in proofs if proof}) == 1

    def leave_in_peace(self) -> None:
        """Leave the world in peace: it comes to rest, and the outcome is that of the last spec."""
        self._settle()
        if self._refused() and self.spec in GOOD:
            self.ask_retry()  # it had taken too long, or its bytes had changed
            self._settle()
        assert self.flags is not None
        if not self.editions and self.spec in GOOD:
            assert self.flags.production == self.spec
            assert all(pod.ready and pod.serves == self.spec for pod in self.pods)
            assert self.promotion is None or self.promotion.state is PromotionState.COMPLETE
        elif self.flags.production != self.spec:
            assert self._refused()
            routed = self.flags.rollout is not None and self.flags.rollout.version == self.spec
            assert routed or self.spec not in self.flags.resident
        self._judge_rollout_at_rest()

    def _judge_rollout_at_rest(self) -> None:
        """In the end users have the share that Git asks for, or status says why not."""
        assert self.flags is not None
        routed = self.flags.rollout
        if self.rollout is None:
            assert routed is None
            assert self.progress is None
            return
        version, progress = self.rollout.version, self.progress
        if progress is None or progress.is_over:
            assert routed is None
            assert progress is not None or version == self.spec
            return
        served = self.flags.production in GOOD
        if progress.begun is None:  # paused before it began, or about to be promoted
            assert routed is None
            assert progress.paused or version == self.spec or not served
            return
        share = routed.hundredths if routed is not None else 0
        assert share == progress.hundredths
        if served and version in (BROKEN, HARMFUL) and self.rollout.steps is not None:
            # What a person gave everybody before Git said steps is theirs to take back.
            assert progress.state is RolloutState.COMPLETE
        if served and not progress.paused and version != self.spec and version in GOOD:
            assert share == (WHOLE if self.rollout.steps else round((self.rollout.percent or 0) * 100))
            assert all(version in pod.versions for pod in self.pods)

    def _refused(self) -> bool:
        known = self.promotion
        return known is not None and known.version == self.spec and known.state is PromotionState.REFUSED

    def _settle(self) -> None:
        self.passes = [None, None]
        while len(self.pods) < 2:
            self.start_pod()
        before = None
        for _ in range(80):
            self.run_a_whole_pass()
            self.all_pods_advance()
            self.check()
            self.wait(1)
            now = (
                self.flags_version,
                self.promotion,
                _decision(self.progress),
                self.handled,
                [pod.report() for pod in self.pods],
            )
            holding = self.progress is not None and self.progress.state is RolloutState.HOLDING
            if now == before and not holding:
                return
            before = now
        message = f"the world does not come to rest: {vars(self)}"
        raise AssertionError(message)

    def _pick(self, index: int) -> list[Pod]:
        return [self.pods[index % len(self.pods)]] if self.pods else []


def _decision(progress: Progress | None) -> tuple[object, ...] | None:
    return progress.decision if progress else None


def _remembered(progress: Progress | None) -> Progress | None:
    """Return a rollout as it comes out of status."""
    if progress is None:
        return None
    evidence = parse_evidence(dump_evidence(progress.evidence)) if progress.evidence else None
    return replace(progress, evidence=evidence, verdict=None, refusal=None)


Happening = tuple[Any, ...]
"""A method of Cluster and its arguments."""

HAPPENINGS: Final[list[Happening]] = [
    *[(Cluster.run_a_whole_pass,)] * 40,
    *[(Cluster.all_pods_advance,)] * 30,
    *[(Cluster.start_pod,)] * 2,
    *[(Cluster.scale_up,)] * 3,
    *[(Cluster.change_spec, version) for version in (*GOOD, *VERSIONS)],
    *[
        (act, index)
        for act in (Cluster.refresh_pod, Cluster.let_pod_work, Cluster.hear_pod)
        for index in range(MOST_PODS)
    ],
    *[
        (act, which)
        for act in (Cluster.decide, Cluster.write_flags, Cluster.write_status)
        for which in (0, 0, 1)
    ],
    *[(act, index) for act in (Cluster.restart_pod, Cluster.delete_pod) for index in range(2)],
    (Cluster.scale_to_zero,),
    (Cluster.crash, 0),
    (Cluster.wait, 30),
    (Cluster.wait, 601),
    (Cluster.ask_retry,),
    *[
        (Cluster.roll_out, version, percent)
        for version in ("v2", "v3", "v3", BROKEN, HARMFUL)
        for percent in (10, 100, None)
    ],
    *[(Cluster.ask, verb, version) for verb in Verb for version in ("v2", "v3")],
    (Cluster.withdraw,),
]
"""What happens, as often as it is listed."""


def play(happenings: list[Happening], *, pods: int) -> None:
    """Let things happen in this order, then leave the world in peace; AssertionError where it breaks."""
    cluster = Cluster(pods=pods)
    for act, *arguments in happenings:
        act(cluster, *arguments)
        cluster.check()
    cluster.leave_in_peace()


@settings(max_examples=200, deadline=None, derandomize=True)
@given(happenings=st.lists(st.sampled_from(HAPPENINGS), min_size=20, max_size=100), pods=st.integers(0, 3))
def test_every_order_ends_well(happenings: list[Happening], pods: int) -> None:
    """Production is proven by every pod that gets traffic, and in the end it is what Git says, or refused."""
    play(happenings, pods=pods)


@settings(max_examples=100, deadline=None, derandomize=True)
@given(
    happenings=st.lists(
        st.sampled_from(
            [*HAPPENINGS, (Cluster.lose_flags,), *[(Cluster.alter_source, version) for version in GOOD]]
        ),
        min_size=20,
        max_size=100,
    )
)
def test_nothing_unproven_serves_even_where_somebody_meddles(happenings: list[Happening]) -> None:
    """The same holds where flag stores are deleted and bytes are overwritten."""
    play(happenings, pods=3)
