"""An Event says what happened, once."""

from datetime import UTC, datetime
from typing import Any, Literal

from greenroom_operator.controller.events import build_event

OBJECT = {
    "apiVersion": "greenroom.dev/v1alpha1",
    "kind": "ModelDeployment",
    "metadata": {"namespace": "ml", "name": "churn", "uid": "u-1"},
}


def event(
    *, kind: Literal["Normal", "Warning"] = "Warning", message: str = "v2 refused", uid: str = "u-1"
) -> dict[str, Any]:
    """Return an event about ml/churn."""
    regarding = {**OBJECT, "metadata": {**OBJECT["metadata"], "uid": uid}}  # type: ignore[dict-item]
    return build_event(
        regarding,
        type=kind,
        reason="VerificationFailed",
        message=message,
        now=datetime(2026, 1, 1, tzinfo=UTC),
        instance="operator-x",
    )


def test_the_same_news_has_the_same_name_and_other_news_another() -> None:
    """The name is what makes a repetition a count and not a flood."""
    assert event()["metadata"] == event()["metadata"]
    names = {event()["metadata"]["name"], event(message="v3 refused")["metadata"]["name"]}
    names |= {event(uid="u-2")["metadata"]["name"], event(kind="Normal")["metadata"]["name"]}
    assert len(names) == 4


def test_a_message_that_is_too_long_is_cut_not_refused() -> None:
    """The API server takes 1,024 characters; the object's status has the rest."""
    told = event(message="x" * 5000)["message"]
    assert len(told) == 1024
    assert told.endswith("…")
