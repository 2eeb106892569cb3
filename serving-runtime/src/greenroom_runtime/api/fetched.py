"""What fetching made of a row's features, and how its failures are told."""

from collections.abc import Collection
from http import HTTPStatus
from typing import Any, Final

from greenroom_runtime.api.errors import ProblemError
from greenroom_runtime.features.entry import DEFAULT, FeaturesUnavailableError

UNFIT: Final = "features-unfit"
"""The kind of problem of features that were fetched, and are not what the model takes."""
UNAVAILABLE: Final = "features-unavailable"
_MAX_NAMES: Final = 1000


def blame(
    problem: ProblemError, lacking: Collection[str], *, source: str, trouble: FeaturesUnavailableError | None
) -> ProblemError:
    """Return a refusal of features as what it is where their source is at fault, not the client.

    ``lacking`` are those that the request had left out; ``trouble`` is why they could not be fetched.
    """
    errors = problem.extra.get("errors", ())
    theirs = [error for error in errors if error.get("feature") in lacking]
    if trouble is not None and theirs:
        return _unavailable(theirs, trouble)
    unfit = [error for error in theirs if error["problem"] != "missing"]
    if not unfit:
        return problem
    named = ", ".join(repr(error["feature"]) for error in unfit[:8])
    if source == DEFAULT:  # the last resort: what comes from elsewhere has passed the door
        detail = (
            f"features.defaults are not what the model takes: {named}; correct them in the ModelDeployment"
        )
    else:
        detail = f"features from {source} are not what the model takes: {named}; somebody has changed them"
    extra = {"errors": unfit, "feature_source": source}
    return ProblemError(status=HTTPStatus.BAD_GATEWAY, kind=UNFIT, detail=detail, extra=extra)


def _unavailable(errors: list[dict[str, Any]], trouble: FeaturesUnavailableError) -> ProblemError:
    names = ", ".join(repr(error["feature"]) for error in errors[:8])
    more = f" and {len(errors) - 8} more" if len(errors) > 8 else ""  # noqa: PLR2004 as many as are named
    detail = (
        f"the request leaves out {names}{more}, and they cannot be fetched now: {trouble}; send them, or set "
        "features.defaults"
    )
    return ProblemError(
        status=HTTPStatus.BAD_GATEWAY if trouble.unfit else HTTPStatus.SERVICE_UNAVAILABLE,
        kind=UNFIT if trouble.unfit else UNAVAILABLE,
        detail=detail,
        extra={"errors": errors[:_MAX_NAMES]},
        headers={} if trouble.unfit else {"Retry-After": "1"},
    )
