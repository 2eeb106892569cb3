"""What a person must know of the prediction log: which pod cannot write it, and how much is lost. Pure.

Nothing of it is part of a condition: a log that fails changes no answer.
"""

from datetime import datetime, timedelta
from typing import Final

from greenroom_operator.api.modeldeployment import PredictionLogStatus
from greenroom_operator.api.times import format_timestamp, parse_timestamp
from greenroom_operator.controller.context import Observed

COUNTED_EVERY: Final = timedelta(seconds=30)
_INT64_MAX: Final = 2**63 - 1


def build_prediction_log(observed: Observed, *, now: datetime) -> PredictionLogStatus | None:
    """Return what is wrong with the log, None while nothing is.

    What was known stays until every pod that gets traffic has had the time to speak, and counters and wording
    for 30 seconds: only the beginning and the end of a failure are told at once.
    """
    before = observed.deployment.status.prediction_log
    if before is not None and any(view.unheard for view in observed.views):
        return before
    found = _find_trouble(observed, now=now)
    if before is None or found is None:
        return found
    same = before == found.model_copy(update={"time": before.time})
    recent = now - parse_timestamp(before.time) < COUNTED_EVERY
    return before if same or (recent and bool(before.error) == bool(found.error)) else found


def _find_trouble(observed: Observed, *, now: datetime) -> PredictionLogStatus | None:
    views = sorted(observed.views, key=lambda view: view.name)
    logs = [(view.name, view.report.prediction_log) for view in views if view.report]
    troubled = [(pod, log) for pod, log in logs if log is not None and (log.error or log.dropped)]
    if not troubled:
        return None
    failing = [(pod, log) for pod, log in troubled if log.error]
    pod, log = (failing or troubled)[0]
    return PredictionLogStatus(
        pods_failing=len(failing),
        dropped=min(sum(log.dropped for _, log in troubled), _INT64_MAX),
        pod=pod,
        error=log.error or None,
        time=format_timestamp(now),
    )
