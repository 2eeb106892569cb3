"""Which version is production, who is routed to another one, and which one is shadowed: one decision.

Pure. A promotion waits for nobody; a rollout is prepared once no promotion is under way, and may wait for its
shadow's verdict; a shadow is waited for by nobody else.
"""

from dataclasses import dataclass, replace
from datetime import datetime

from greenroom_operator.api.rollout import RolloutState
from greenroom_operator.controller.promotion import Promotion, PromotionInput, plan_promotion
from greenroom_operator.controller.rollout import Progress, RolloutInput, plan_rollout
from greenroom_operator.controller.shadow import (
    ShadowInput,
    ShadowProgress,
    mirror_requests,
    plan_shadow,
    tell_hold,
)
from greenroom_runtime.contract.flags import FlagStore


@dataclass(frozen=True, kw_only=True)
class ReleasePlan:
    """What the flag store should be, and what status should remember of how it came about."""

    flags: FlagStore
    promotion: Promotion | None
    rollout: Progress | None = None
    shadow: ShadowProgress | None = None

    @property
    def promoting(self) -> bool:
        """Whether pods are expected to change what production is."""
        return self.promotion is not None and self.promotion.active

    @property
    def active(self) -> bool:
        """Whether pods are expected to change what they hold or serve."""
        preparing = self.rollout is not None and self.rollout.state is RolloutState.PREPARING
        return self.promoting or preparing

    @property
    def watched(self) -> bool:
        """Whether a gate looks at what pods or shadows count."""
        return (self.rollout is not None and self.rollout.evidence is not None) or (
            self.shadow is not None and not self.shadow.is_judged
        )

    @property
    def decision(self) -> tuple[object, ...]:
        """What is written to status before anything is done about it."""
        return tuple(part.decision if part is not None else None for part in (self.rollout, self.shadow))


def plan_release(
    world: PromotionInput, wanted: RolloutInput, *, now: datetime, shadow: ShadowInput | None = None
) -> ReleasePlan:
    """Decide the next flag store; the same world gives the same plan. Without ``shadow`` there is none.

    FlagDocumentError where the rollout or the shadow asks for something that no flag store can say.
    """
    promoted = plan_promotion(world, now=now)
    watched = plan_shadow(world, shadow, promoted.flags, now=now) if shadow is not None else None
    held = tell_hold(shadow, watched, wanted.spec, promoting=promoted.active)
    planned = plan_rollout(world, replace(wanted, held=held), promoted, now=now)
    return ReleasePlan(
        flags=mirror_requests(planned.flags, watched, shadow, observed=world.flags),
        promotion=promoted.promotion,
        rollout=planned.progress,
        shadow=watched,
    )
