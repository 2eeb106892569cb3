"""What a ModelDeployment's YAML comes to: the objects of a cluster, and which user gets which version."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from greenroom.errors import CommandError
from greenroom.local.manifest import parse_manifest, read_manifest
from greenroom_operator.api.modeldeployment import ModelDeployment
from greenroom_operator.api.rollout import Rollout as RolloutSpec
from greenroom_operator.controller.promotion import PromotionInput
from greenroom_operator.controller.release import plan_release
from greenroom_operator.controller.rollout import RolloutInput, route_users, to_hundredths
from greenroom_operator.resources import build_children
from greenroom_runtime.contract.flags import FlagDocumentError, FlagStore, Rollout, Shadow, parse_flags
from greenroom_runtime.routing.router import Decision, compile_router, find_place, spellings, sticky_key

_HUNDRED = 100


def load_deployment(path: Path) -> ModelDeployment:
    """Return the ModelDeployment of a YAML file, checked as far as a cluster would check it."""
    return parse_manifest(read_manifest(path), path=path)


def render(deployment: ModelDeployment, *, image: str) -> list[dict[str, Any]]:
    """Return the objects that the operator would apply for a new ModelDeployment, in its order.

    Without the owner references, which need the uid that only a cluster gives.
    """
    metadata = deployment.metadata
    world = PromotionInput(target=deployment.spec.version, flags=None, promotion=None)
    wanted = RolloutInput(
        spec=deployment.spec.rollout, progress=None, salt=f"{metadata.namespace}/{metadata.name}"
    )
    plan = plan_release(world, wanted, now=datetime.now(UTC))
    children = build_children(deployment, flags=plan.flags, default_image=image)
    return [_without_owner(child) for child in children]


def _without_owner(child: Mapping[str, Any]) -> dict[str, Any]:
    metadata = {key: value for key, value in child["metadata"].items() if key != "ownerReferences"}
    return {**child, "metadata": metadata}


def planned_flags(deployment: ModelDeployment, *, percent: float | None) -> FlagStore:
    """Return the flag store that the YAML leads to: a rollout at ``percent``, else at its first share."""
    spec, metadata, shadow = deployment.spec, deployment.metadata, _planned_shadow(deployment)
    if spec.rollout is None or spec.rollout.version == spec.version:
        if percent is not None:
            raise CommandError("--percent needs spec.rollout: there is none, or it is over")
        return FlagStore(production=spec.version, resident=(spec.version,), shadow=shadow)
    share = _first_share(spec.rollout) if percent is None else percent
    rollout = route_users(
        spec.rollout, hundredths=to_hundredths(share), salt=f"{metadata.namespace}/{metadata.name}"
    )
    resident = (spec.version, rollout.version)
    return FlagStore(production=spec.version, resident=resident, rollout=rollout, shadow=shadow)


def _planned_shadow(deployment: ModelDeployment) -> Shadow | None:
    spec, metadata = deployment.spec, deployment.metadata
    if spec.shadow is None or spec.shadow.version == spec.version:
        return None
    return Shadow(
        version=spec.shadow.version,
        hundredths=to_hundredths(spec.shadow.percent),
        salt=f"{metadata.namespace}/{metadata.name}",
        epoch="planned",  # names counts, and has no part in who is mirrored
        latency_ratio=float(spec.shadow.gate.max_latency_ratio),
    )


def _first_share(rollout: RolloutSpec) -> float:
    return rollout.steps[0].percent if rollout.steps else rollout.percent or 0.0


def read_flag_file(path: Path) -> FlagStore:
    """Return the flag store of a ``flags.json``; CommandError where it is none that a pod would obey."""
    try:
        return parse_flags(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise CommandError(f"{path} cannot be read: {error}") from error
    except FlagDocumentError as error:
        raise CommandError(f"{path} is no flag store: {error}") from error


@dataclass(frozen=True, kw_only=True)
class RuleExplained:
    """One rule beside what the user is."""

    name: str
    attribute: str
    values: tuple[str, ...]
    found: Any
    """What the user has there, None for nothing."""
    matches: bool


@dataclass(frozen=True, kw_only=True)
class MirrorExplained:
    """Whether the shadow is asked, too."""

    version: str
    """The shadow's."""
    percent: float
    """Share of requests that are mirrored."""
    place: float
    """Where between 0 and 100 % the request is."""
    answered_by: str
    """The version that the user gets."""
    by_production: bool

    @property
    def mirrored(self) -> bool:
        """Whether it is."""
        return self.by_production and self.place < self.percent

    def why(self) -> str:
        """Return the reason in a sentence."""
        if not self.by_production:
            return f"no: {self.answered_by} answers it, and {self.version} is compared with production only"
        side = "within" if self.mirrored else "beyond"
        told = "yes" if self.mirrored else "no"
        share = f"the {self.percent:g} % that {self.version} is asked, too"
        return f"{told}: the request is at {self.place:.2f} %, {side} {share}"


@dataclass(frozen=True, kw_only=True)
class Explanation:
    """Which version a user gets, and why."""

    key: str
    """Which field of the request says who asks."""
    user: str
    """Empty where the request would not say."""
    decision: Decision
    production: str
    rollout: Rollout | None
    rules: tuple[RuleExplained, ...] = ()
    """Those that were looked at: up to the first that matches."""
    place: float | None = None
    """Where between 0 and 100 % the user is in this rollout; None where nobody looks."""
    mirror: MirrorExplained | None = None
    """None without a shadow, or without a request's id."""

    def to_data(self) -> dict[str, Any]:
        """Return it as JSON carries it."""
        rollout, mirror = self.rollout, self.mirror
        told = (
            {"version": mirror.version, "mirrored": mirror.mirrored, "why": mirror.why()} if mirror else None
        )
        return {
            "user": self.user,
            "version": self.decision.version,
            "reason": self.decision.reason,
            "why": self.why(),
            "production": self.production,
            "shadow": told,
            "rollout": None
            if rollout is None
            else {
                "version": rollout.version,
                "percent": rollout.hundredths / _HUNDRED,
                "key": rollout.key,
                "place": self.place,
                "rules": [
                    {
                        "name": rule.name,
                        "attribute": rule.attribute,
                        "found": rule.found,
                        "matches": rule.matches,
                    }
                    for rule in self.rules
                ],
            },
        }

    def why(self) -> str:
        """Return the reason in a sentence."""
        rollout = self.rollout
        if rollout is None:
            return f"nobody is routed elsewhere: {self.production} is production"
        if self.rules and self.rules[-1].matches:
            rule = self.rules[-1]
            return f"rule {rule.name!r} matches: {rule.attribute} is one of {', '.join(rule.values)}"
        share = f"{rollout.hundredths / _HUNDRED:g} %"
        if self.place is None:
            return f"the request has no {self.key}, and the rollout of {rollout.version} goes by it"
        if self.decision.version == rollout.version:
            return f"the user is at {self.place:.2f} %, within the {share} that get {rollout.version}"
        return f"the user is at {self.place:.2f} %, beyond the {share} that get {rollout.version}"


def explain(
    flags: FlagStore, *, user: str | None, context: Mapping[str, Any], request_id: str | None = None
) -> Explanation:
    """Return which version a request of this user and context gets, decided by the runtime's own router.

    A pod that does not hold the rollout's version answers with production all the same, as ``fallback``.
    With the request's id it tells, too, whether a shadow is asked.
    """
    router, rollout = compile_router(flags), flags.rollout
    value = user if user is not None else context.get(router.key)
    key = sticky_key(value)
    decision = router.choose(key, context)
    mirror = _explain_mirror(flags, decision, request_id)
    if rollout is None:
        return Explanation(
            key=router.key,
            user=key,
            decision=decision,
            production=flags.production,
            rollout=None,
            mirror=mirror,
        )
    rules = []
    for rule in rollout.rules:
        found = key or None if rule.attribute == rollout.key else context.get(rule.attribute)
        matches = found is not None and not set(rule.values).isdisjoint(spellings(found))
        rules.append(
            RuleExplained(
                name=rule.name, attribute=rule.attribute, values=rule.values, found=found, matches=matches
            )
        )
        if matches:
            break
    place = find_place(rollout.bucket_start, key) / _HUNDRED if key else None
    return Explanation(
        key=router.key,
        user=key,
        decision=decision,
        production=flags.production,
        rollout=rollout,
        rules=tuple(rules),
        place=place,
        mirror=mirror,
    )


def _explain_mirror(flags: FlagStore, decision: Decision, request_id: str | None) -> MirrorExplained | None:
    shadow = flags.shadow
    if shadow is None or not request_id:
        return None
    return MirrorExplained(
        version=shadow.version,
        percent=shadow.hundredths / _HUNDRED,
        place=find_place(shadow.bucket_start, request_id) / _HUNDRED,
        answered_by=decision.version,
        by_production=decision.version == flags.production,
    )
