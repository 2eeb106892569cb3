"""kstatus, by the rules that cli-utils publishes for kinds of which it knows nothing else."""

from collections.abc import Mapping
from enum import StrEnum
from typing import Any


class KStatus(StrEnum):
    """What Flux and others that read kstatus make of an object."""

    IN_PROGRESS = "InProgress"
    FAILED = "Failed"
    CURRENT = "Current"
    TERMINATING = "Terminating"


_BY_CONDITION = {"Reconciling": KStatus.IN_PROGRESS, "Stalled": KStatus.FAILED}


def compute_kstatus(found: Mapping[str, Any]) -> KStatus:
    """Return the status of an object as the API server sends it.

    The first rule that fits decides: deletion, a generation that is not observed, the first of the conditions
    that is a true Reconciling or Stalled, then Ready. An object without any of that is taken for done.
    """
    metadata, status = found["metadata"], found.get("status", {})
    if metadata.get("deletionTimestamp"):
        return KStatus.TERMINATING
    generation = metadata.get("generation")
    if generation is not None and status.get("observedGeneration", generation) != generation:
        return KStatus.IN_PROGRESS
    conditions = status.get("conditions", [])
    for condition in conditions:
        if condition["status"] == "True" and condition["type"] in _BY_CONDITION:
            return _BY_CONDITION[condition["type"]]
    ready = next((condition for condition in conditions if condition["type"] == "Ready"), None)
    return KStatus.IN_PROGRESS if ready and ready["status"] != "True" else KStatus.CURRENT
