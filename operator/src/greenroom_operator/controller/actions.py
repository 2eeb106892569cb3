"""What a person in a hurry may ask for by an annotation: ``greenroom.dev/action: VERB/VERSION/ANY-TEXT``.

Done once: the whole text is acknowledged in ``status.lastHandledAction``, and another text is another
action. Pure.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from greenroom_operator.api.modeldeployment import ModelDeployment
from greenroom_operator.api.rollout import RolloutState
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
    return _object_to_steps(action, deployment, state=state, asked=asked)


def _object_to_steps(action: Action, deployment: ModelDeployment, *, state: RolloutState, asked: str) -> str:
    rollout = deployment.spec.rollout
    if rollout is None:
        return ""
    begins = state is RolloutState.WAITING_FOR_SHADOW  # without a verdict, whatever its share is
    if action.verb is Verb.PROMOTE_STEP and rollout.steps is None and not begins:
        return f"{asked}: it has no steps; set spec.rollout.percent"
    if action.verb is Verb.RESUME and rollout.paused:
        return f"{asked}: spec.rollout.paused is true; set it to false"
    return ""
