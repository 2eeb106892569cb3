"""Which version is production, who is routed to another one, and what pods hold for both: one decision.

Pure. A promotion never waits for a rollout; a rollout is prepared once no promotion is under way.
"""

from dataclasses import dataclass
from datetime import datetime

from greenroom_operator.api.rollout import RolloutState
from greenroom_operator.controller.promotion import Promotion, PromotionInput, plan_promotion
from greenroom_operator.controller.rollout import Progress, RolloutInput, plan_rollout
from greenroom_runtime.contract.flags import FlagStore


@dataclass(frozen=True, kw_only=True)
class ReleasePlan:
    """What the flag store should be, and what status should remember of how it came about."""

    flags: FlagStore
    promotion: Promotion | None
    rollout: Progress | None = None

    @property
    def promoting(self) -> bool:
        """Whether pods are expected to change what production is."""
        return self.promotion is not None and self.promotion.active

    @property
    def active(self) -> bool:
        """Whether pods are expected to change what they hold or serve."""
        preparing = self.rollout is not None and self.rollout.state is RolloutState.PREPARING
        return self.promoting or preparing


def plan_release(world: PromotionInput, wanted: RolloutInput, *, now: datetime) -> ReleasePlan:
    """Decide the next flag store; the same world gives the same plan.

    FlagDocumentError where the rollout asks for something that no flag store can say.
    """
    promoted = plan_promotion(world, now=now)
    planned = plan_rollout(world, wanted, promoted, now=now)
    return ReleasePlan(flags=planned.flags, promotion=promoted.promotion, rollout=planned.progress)
