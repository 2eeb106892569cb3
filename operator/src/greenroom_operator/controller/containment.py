"""Whether an object already says what we would apply, so that the call can be left out."""

from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any, Final

from greenroom_operator.api.quantities import parse_quantity
from greenroom_runtime.contract.canonical import content_hash
from greenroom_runtime.contract.names import GROUP

ANNOTATION_APPLIED: Final = f"{GROUP}/applied"
"""On every child: the hash of the manifest that was last applied.

What a manifest no longer has cannot be seen by looking for what it has.
"""

_QUANTITIES: Final = frozenset({"limits", "requests", "capacity", "sizeLimit", "storage"})
_MAPS: Final = frozenset(
    {"annotations", "binaryData", "data", "labels", "limits", "matchLabels", "nodeSelector", "requests"}
)
"""Fields that the API server drops when they are empty; an empty object elsewhere, as in emptyDir, stays."""

_LIST_KEYS: Final[Mapping[str, tuple[str, ...]]] = {
    "containers": ("name",),
    "conditions": ("type",),
    "env": ("name",),
    "ephemeralContainers": ("name",),
    "imagePullSecrets": ("name",),
    "initContainers": ("name",),
    "ownerReferences": ("uid",),
    "ports": ("containerPort", "port"),
    "volumeMounts": ("mountPath",),
    "volumes": ("name",),
}
"""Lists whose items have an identity: others may add to them, and their order may differ."""


def stamped(manifest: Mapping[str, Any]) -> dict[str, Any]:
    """Return the manifest with the annotation that says what it was."""
    metadata = manifest["metadata"]
    annotations = {
        **(metadata.get("annotations") or {}),
        ANNOTATION_APPLIED: content_hash(manifest, length=16),
    }
    return {**manifest, "metadata": {**metadata, "annotations": annotations}}


def already_applied(live: Mapping[str, Any] | None, desired: Mapping[str, Any]) -> bool:
    """Return whether applying ``desired`` (as ``stamped`` made it) would leave the live object as it is.

    True means: it was the last one applied, and nobody has changed or removed a field of it since. False
    where in doubt costs one call that changes nothing.
    """
    return live is not None and covers(live, desired)


def status_already_applied(
    live: Mapping[str, Any], desired: Mapping[str, Any], *, condition_types: frozenset[str]
) -> bool:
    """Return whether the live object has exactly this status, other people's conditions aside.

    ``condition_types`` are ours: one of them that is live and no longer desired is a difference.
    """
    here, wanted = dict(live.get("status") or {}), dict(desired["status"])
    ours = {
        condition["type"]: condition
        for condition in here.pop("conditions", [])
        if condition["type"] in condition_types
    }
    conditions = {condition["type"]: condition for condition in wanted.pop("conditions", [])}
    return here == wanted and ours == conditions


def covers(live: Any, desired: Any, *, field: str = "", quantity: bool = False) -> bool:
    """Return whether ``live`` has all that ``desired`` has, in Kubernetes' sense of the same value."""
    match desired:
        case Mapping():
            return isinstance(live, Mapping) and _covers_map(live, desired, quantity=quantity)
        case list() | tuple():
            return isinstance(live, list) and _covers_list(live, desired, keys=_LIST_KEYS.get(field))
        case bool() | None:
            return live is desired
        case _ if quantity:
            return _amount(live) == _amount(desired)
        case _:
            return type(live) is type(desired) and bool(live == desired)


def _covers_map(live: Mapping[str, Any], desired: Mapping[str, Any], *, quantity: bool) -> bool:
    return all(
        covers(live[name], value, field=name, quantity=quantity or name in _QUANTITIES)
        if live.get(name) is not None
        else _is_dropped(name, value)
        for name, value in desired.items()
    )


def _covers_list(live: Sequence[Any], desired: Sequence[Any], *, keys: tuple[str, ...] | None) -> bool:
    if keys is None or not all(isinstance(item, Mapping) for item in (*live, *desired)):
        return len(live) == len(desired) and all(map(covers, live, desired))
    by_key = {tuple(item.get(key) for key in keys): item for item in live}
    return all(covers(by_key.get(tuple(item.get(key) for key in keys)), item) for item in desired)


def _is_dropped(field: str, value: Any) -> bool:
    """Return whether the API server does not store this value, since it is what absence means."""
    return value in (None, "", [], 0, False) or (value == {} and field in _MAPS)


def _amount(quantity: Any) -> Decimal | str:
    """Return a quantity as a number, or as it is spelled if it is none."""
    try:
        return parse_quantity(str(quantity))
    except ValueError:
        return str(quantity)
