"""Shadows, rollouts that wait for them and promotions at once, while operators die between two writes."""

from dataclasses import replace
from datetime import timedelta
from typing import Any, Final

from hypothesis import given, settings
from hypothesis import strategies as st

from greenroom_operator.api.modeldeployment import ModelDeploymentStatus
from greenroom_operator.api.rollout import RolloutState
from greenroom_operator.controller.actions import Verb
from greenroom_operator.controller.conditions import ConditionType
from tests.support.stage import ShadowLife, Stage, agreeing, differing

LATCHED: Final = ("Pass", "Fail")
WAITING: Final = RolloutState.WAITING_FOR_SHADOW
LIVES: Final = {
    "quiet": ShadowLife(),
    "agrees": agreeing(),
    "differs": differing(),
    "fails": ShadowLife(fails=True),
    "silent": ShadowLife(silent=True),
    "other bytes": ShadowLife(edition="2"),
    "dead": ShadowLife(running=False),
    "restarted": replace(agreeing(users=5), instance="2"),
}


class Play:
    """A stage on which things happen, and what must hold after each pass."""

    def __init__(self) -> None:
        self.stage = Stage().settle()
        self.specs = {"v2"}
        self.skipped: set[str] = set()
        """Versions that a person let begin without a verdict."""
        self.quiet: bool = False

    # What people do

    def promote(self, version: str) -> None:
        """Edit spec.version."""
        self.specs.add(version)
        self._edit(version=version)

    def shadow(self, version: str, success: str, ratio: str) -> None:
        """Edit spec.shadow."""
        gate = {"maxLatencyRatio": ratio, "minDuration": "0s"}
        self._edit(shadow={"version": version, "onSuccess": success, "gate": gate})

    def unshadow(self) -> None:
        """Take spec.shadow out."""
        self._edit(shadow=None)

    def roll_out(self, version: str, percent: float) -> None:
        """Edit spec.rollout."""
        self._edit(rollout={"version": version, "percent": percent})

    def withdraw(self) -> None:
        """Take spec.rollout out."""
        self._edit(rollout=None)

    def act(self, verb: Verb, version: str) -> None:
        """Annotate with an action."""
        self.stage.now += timedelta(seconds=1)
        self.stage.annotations["greenroom.dev/action"] = f"{verb}/{version}/{self.stage.now.isoformat()}"

    def _edit(self, **spec: Any) -> None:
        stage = self.stage
        stage.version = spec.pop("version", stage.version)
        stage.spec = {name: value for name, value in {**stage.spec, **spec}.items() if value is not None}
        stage.generation += 1

    # What happens

    def live(self, pod: str, life: str) -> None:
        """Let a shadow fare so."""
        self.stage.shadows[pod] = LIVES[life]

    def roll(self, *, rolling: bool) -> None:
        """Begin or end to replace pods."""
        self.stage.rolling = rolling

    def lag(self, *, lagging: bool) -> None:
        """Keep the newest flag store from pods, or let them read it."""
        self.stage.lagging = lagging

    def lose_status(self) -> None:
        """Restore the object from a backup without its status."""
        self.stage.status = ModelDeploymentStatus()

    def make_pass(self, dies_before: str) -> None:
        """Make a pass, which may die, and hold it to what is promised."""
        stage, before = self.stage, self.stage.status
        self.stage.now += timedelta(seconds=1)
        stage.make_pass(dies_before=dies_before)
        self._judge(before, stage.status)

    # What must hold

    def _judge(self, before: ModelDeploymentStatus, after: ModelDeploymentStatus) -> None:
        stage = self.stage
        if stage.flags is not None:
            assert stage.flags.production in self.specs
            assert stage.flags.shadow is None or stage.flags.shadow.version != stage.flags.production
        old, new = before.shadow, after.shadow
        if old is not None and new is not None and old.epoch == new.epoch and old.verdict in LATCHED:
            assert new.verdict == old.verdict
        if before.rollout is None or after.rollout is None:
            return
        if (before.rollout.version, before.rollout.state) == (after.rollout.version, WAITING):
            self._judge_wait(before, after)

    def _judge_wait(self, before: ModelDeploymentStatus, after: ModelDeploymentStatus) -> None:
        """Hold that what waited was let begin by a verdict in status, by a person, or by spec."""
        assert after.rollout is not None
        version, shadow = after.rollout.version, self.stage.spec.get("shadow")
        if after.rollout.state in (WAITING, RolloutState.ABORTED, RolloutState.PROMOTED):
            return
        held = shadow is not None and (shadow["version"], shadow["onSuccess"]) == (version, "Rollout")
        asked = self.stage.annotations.get("greenroom.dev/action", "").startswith(f"promote-step/{version}/")
        passed = before.shadow is not None and before.shadow.verdict == "Pass"
        assert not held or asked or passed

    def leave_in_peace(self) -> None:
        """Leave the world in peace: it comes to rest, and says of the shadow what is true."""
        stage = self.stage
        stage.lagging = stage.rolling = False
        stage.shadows = dict.fromkeys(stage.pods, LIVES["quiet"])
        stage.settle()
        shadow, promotion = stage.status.shadow, stage.status.promotion
        broken = shadow is not None and shadow.state == "Broken"
        if broken or (promotion is not None and promotion.state == "Refused"):
            for version in {stage.version, stage.spec.get("shadow", {}).get("version", stage.version)}:
                stage.act(Verb.RETRY, version)
        assert stage.flags is not None
        assert stage.flags.production == stage.version
        self._judge_shadow_at_rest()
        written = len(stage.written)
        stage.settle()
        assert len(stage.written) == written

    def _judge_shadow_at_rest(self) -> None:
        stage, wanted = self.stage, self.stage.spec.get("shadow")
        assert stage.flags is not None
        if wanted is None:
            assert (stage.flags.shadow, stage.status.shadow) == (None, None)
            assert stage.condition(ConditionType.SHADOW_HEALTHY) == ("", "")
            return
        over = wanted["version"] == stage.version
        assert (stage.flags.shadow is None) == over
        assert stage.status.shadow is not None
        assert (stage.status.shadow.state == "Over") == over
        if stage.flags.shadow is not None:
            assert stage.flags.shadow.version == wanted["version"]
            assert stage.flags.shadow.epoch == stage.status.shadow.epoch
            assert stage.status.shadow.digest
            assert stage.flags.digests[wanted["version"]] == stage.status.shadow.digest


VERSIONS: Final = ("v2", "v3", "v4")
HAPPENINGS: Final[list[tuple[Any, ...]]] = [
    *[(Play.make_pass, "")] * 40,
    *[(Play.make_pass, "flags"), (Play.make_pass, "status")] * 6,
    *[(Play.promote, version) for version in VERSIONS],
    *[
        (Play.shadow, version, success, ratio)
        for version in ("v3", "v4")
        for success in ("Report", "Rollout", "Rollout")
        for ratio in ("1.5", "3")
    ],
    (Play.unshadow,),
    *[(Play.roll_out, version, percent) for version in ("v3", "v4") for percent in (10, 100)],
    (Play.withdraw,),
    *[(Play.act, verb, version) for verb in Verb for version in ("v3", "v4")],
    *[(Play.live, pod, life) for pod in ("churn-a", "churn-b") for life in LIVES],
    *[(Play.live, "churn-a", "agrees")] * 6,
]
SWITCHES: Final[list[tuple[Any, ...]]] = [(Play.lose_status,)]


def _set(method: Any, **options: Any) -> tuple[Any, ...]:
    return (lambda play, _options=options: method(play, **_options),)


SWITCHES.extend(
    [
        _set(Play.roll, rolling=True),
        _set(Play.roll, rolling=False),
        _set(Play.lag, lagging=True),
        _set(Play.lag, lagging=False),
    ]
)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(happenings=st.lists(st.sampled_from([*HAPPENINGS, *SWITCHES]), min_size=20, max_size=60))
def test_every_order_ends_well(happenings: list[tuple[Any, ...]]) -> None:
    """Nothing waits that is not to, nothing begins without a verdict, and in the end all is quiet."""
    play = Play()
    for act, *arguments in happenings:
        act(play, *arguments)
    play.leave_in_peace()
