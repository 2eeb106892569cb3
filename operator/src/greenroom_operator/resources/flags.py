"""The flag store: the one mutable ConfigMap, for what changes without a restart."""

from collections.abc import Mapping
from typing import Any

from greenroom_operator.api.modeldeployment import ModelDeployment
from greenroom_operator.resources.ownership import build_metadata
from greenroom_runtime.contract import names
from greenroom_runtime.contract.flags import FlagDocumentError, FlagStore, dump_flags, parse_flags


def build_flags(deployment: ModelDeployment, *, flags: FlagStore) -> dict[str, Any]:
    """Return the ConfigMap that pods read the flag store from."""
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": build_metadata(deployment, name=flags_name(deployment)),
        "data": {names.FLAGS_FILE: dump_flags(flags)},
    }


def flags_name(deployment: ModelDeployment) -> str:
    """Return the name of the model's flag store."""
    return f"{deployment.metadata.name}-flags"


def read_flags(config_map: Mapping[str, Any] | None) -> FlagStore | None:
    """Return the flag store that a ConfigMap carries; None where somebody has spoilt or removed it."""
    text = ((config_map or {}).get("data") or {}).get(names.FLAGS_FILE)
    if text is None:
        return None
    try:
        return parse_flags(text)
    except FlagDocumentError:
        return None
