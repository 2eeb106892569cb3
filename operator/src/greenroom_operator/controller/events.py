"""Events that people see with ``kubectl describe``: one per transition, counted when it happens again."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final, Literal

from greenroom_operator.kinds import EVENT
from greenroom_runtime.contract.canonical import content_hash
from greenroom_runtime.contract.names import GROUP

COMPONENT: Final = f"{GROUP}/operator"
_MESSAGE_LENGTH: Final = 1024  # the API server refuses more


def build_event(
    regarding: Mapping[str, Any],
    *,
    type: Literal["Normal", "Warning"],  # noqa: A002 - the field's name
    reason: str,
    message: str,
    now: datetime,
    instance: str,
) -> dict[str, Any]:
    """Return the Event that tells of a transition of an object.

    Its name follows from the object's uid, the reason and the message: the same news again is the same Event.
    ``now`` must have a time zone; ``instance`` is the process that reports.
    """
    metadata = regarding["metadata"]
    at = now.strftime("%Y-%m-%dT%H:%M:%SZ")
    digest = content_hash([metadata["uid"], type, reason, message], length=16)
    return {
        "apiVersion": EVENT.api_version,
        "kind": EVENT.name,
        "metadata": {"namespace": metadata["namespace"], "name": f"{metadata['name']}.{digest}"},
        "involvedObject": {
            "apiVersion": regarding["apiVersion"],
            "kind": regarding["kind"],
            "namespace": metadata["namespace"],
            "name": metadata["name"],
            "uid": metadata["uid"],
        },
        "type": type,
        "reason": reason,
        "message": message if len(message) <= _MESSAGE_LENGTH else message[: _MESSAGE_LENGTH - 1] + "…",
        "source": {"component": COMPONENT},
        "reportingComponent": COMPONENT,
        "reportingInstance": instance,
        "count": 1,
        "firstTimestamp": at,
        "lastTimestamp": at,
    }
