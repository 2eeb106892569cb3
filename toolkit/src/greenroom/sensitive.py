"""What may be shown of rows and errors: values of sensitive features are in nobody's log."""

from collections.abc import Iterable, Mapping
from typing import Final

from greenroom_runtime.contract.bundle import Feature, Value

HIDDEN: Final = "(sensitive)"
"""What stands for such a value."""


def public_row(row: Mapping[str, Value], features: Iterable[Feature]) -> dict[str, Value]:
    """Return a row without the values of sensitive features."""
    sensitive = {feature.name for feature in features if feature.sensitive}
    return {name: HIDDEN if name in sensitive else value for name, value in row.items()}


def spell_error(error: Exception, features: Iterable[Feature]) -> str:
    """Return an error's type and words; without the words where these may hold a sensitive value."""
    if any(feature.sensitive for feature in features):
        return f"{type(error).__name__} {HIDDEN}"
    return f"{type(error).__name__}: {error}"
