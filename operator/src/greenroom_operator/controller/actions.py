"""What a person in a hurry may ask for by an annotation: ``greenroom.dev/action: VERB/VERSION/ANY-TEXT``.

Done once: the whole text is acknowledged in ``status.lastHandledAction``, and another text is another
action. Pure.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from greenroom_operator.api.modeldeployment import ModelDeployment
from greenroom_operator.api.rollout import Rollout, RolloutState, RolloutStatus
from greenroom_runtime.contract import names

MAX_LENGTH: Final = 512
"""Characters; what ``status.lastHandledAction`` holds."""


class Verb(StrEnum):
    """What can be asked for."""

    PROMOTE_STEP = "promote-step"
    ABORT = "abort"
    PAUSE = "pause"
    RESUME = "resume"
    RETRY = "retry"


@dataclass(frozen=True, kw_only=True)
class Action:
    """One action that has not been carried out yet."""

    text: str
    """The annotation's value, cut to what status holds."""
    verb: Verb | None = None
    """None where the text is no action."""
    version: str = ""

    def asks(self, verb: Verb, version: str) -> bool:
        """Tell whether this is asked of this version."""
        return self.verb is verb and self.version == version


def find_action(deployment: ModelDeployment) -> Action | None:
    """Return what a person asks for the first time with these words; None where that is nothing."""
    text: str = deployment.metadata.annotations.get(names.ANNOTATION_ACTION, "")[:MAX_LENGTH]
    if text in ("", deployment.status.last_handled_action):
        return None
    parts = text.split("/", 2)
    if len(parts) < 3 or parts[0] not in set(Verb) or not parts[2]:  # noqa: PLR2004 verb, version, text
        return Action(text=text)
    return Action(text=text, verb=Verb(parts[0]), version=parts[1])


_ROUTING: Final = (RolloutState.RUNNING, RolloutState.HOLDING, RolloutState.PAUSED)
_ALIVE: Final = (RolloutState.WAITING_FOR_SHADOW, RolloutState.PREPARING, *_ROUTING)
_POSSIBLE: Final[Mapping[Verb, tuple[RolloutState, ...]]] = {
    Verb.PROMOTE_STEP: (RolloutState.WAITING_FOR_SHADOW, *_ROUTING),
    Verb.ABORT: (*_ALIVE, RolloutState.COMPLETE),
    Verb.PAUSE: _ALIVE,
    Verb.RESUME: _ALIVE,
    Verb.RETRY: (RolloutState.REFUSED, RolloutState.ABORTED, RolloutState.PROMOTED),
}
"""In which states of the rollout a verb means something."""


def find_objection(action: Action, deployment: ModelDeployment) -> str:
    """Return why an action has no effect, empty where it has one."""
    if action.verb is None:
        verbs = ", ".join(Verb)
        return (
            f"the annotation {names.ANNOTATION_ACTION} is {action.text!r}: write VERB/VERSION/TEXT with one "
            f"of {verbs} and any text that was not used before"
        )
    spec, status = deployment.spec, deployment.status
    asked = f"{action.verb} of {action.version} has no effect"
    shadow = spec.shadow.version if spec.shadow else spec.version
    if action.verb is Verb.RETRY and action.version in (spec.version, shadow):
        return ""
    if spec.rollout is None:
        return f"{asked}: there is no spec.rollout"
    if spec.rollout.version != action.version:
        return f"{asked}: spec.rollout.version is {spec.rollout.version}"
    state = status.rollout.state if status.rollout else RolloutState.PREPARING
    if state not in _POSSIBLE[action.verb]:
        return f"{asked}: its rollout is {state}"
    objection = _object_to_rollout(action.verb, spec.rollout, status.rollout)
    return f"{asked}: {objection}" if objection else ""


def _object_to_rollout(verb: Verb, rollout: Rollout, known: RolloutStatus | None) -> str:
    """Return what is in the way of a verb that its rollout's state allows."""
    state = known.state if known else RolloutState.PREPARING
    begins = state is RolloutState.WAITING_FOR_SHADOW  # without a verdict, whatever its share is
    if verb is Verb.PROMOTE_STEP and rollout.steps is None and not begins:
        return "it has no steps; set spec.rollout.percent"
    paused = known is not None and bool(known.paused_by_action)
    if verb is Verb.PAUSE and paused:
        return "it is paused already"
    return _object_to_resuming(rollout, state, paused=paused) if verb is Verb.RESUME else ""


def _object_to_resuming(rollout: Rollout, state: RolloutState, *, paused: bool) -> str:
    if rollout.paused:
        return "spec.rollout.paused is true; set it to false"
    if paused:
        return ""
    if state is RolloutState.PAUSED:
        return "its gate cannot decide; use promote-step or abort, or send it more users"
    return "it is not paused"
