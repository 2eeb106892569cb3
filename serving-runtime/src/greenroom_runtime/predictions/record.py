"""What is recorded of one prediction."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from greenroom_runtime.contract.bundle import Value


@dataclass(slots=True, kw_only=True)
class Comparison:
    """What production answered to the row that a shadow's record is about, and how the two differ."""

    version: str
    prediction: Value
    probabilities: Sequence[float] | None
    classes: Sequence[Value] | None
    """The labels of the probabilities; None where they are numbered from 0."""
    latency_ms: float
    outcome: str
    """``agreed``, ``disagreed``, ``not_comparable``, ``failed``, ``production_failed`` or ``both_failed``."""
    difference: float | None
    """The greatest of numbers; None where there are none."""
    segments: Sequence[str]
    """The flag store's that the request belongs to: ``country=NO``."""


@dataclass(slots=True)
class Record:
    """One prediction, answered or refused, as the request path hands it over.

    Nothing is copied or spelled out here: that is the log's own thread's work. So whoever hands a record
    over does not change its parts afterwards.
    """

    id: str
    """The request's; ``id/3`` for the row with index 3 of a batch."""
    time: float
    """When it was answered, in seconds since 1970, UTC."""
    version: str
    """Empty where none was chosen."""
    role: str
    """``production``, ``rollout``, ``shadow``, or empty where no version was chosen."""
    reason: str
    """Why that version: ``default``, ``rule:beta``, ``percentage``, ``fallback``, ``path``, ``shadow``, or
    empty."""
    entity: str
    """The request's sticky key, or empty."""
    features: Mapping[str, Any] | None
    """As the model was given them; None where the request had none that could be read."""
    feature_source: str
    """``request``, or where those are from that it left out: ``memory``, ``redis``, ``compute``, ``stale`` or
    ``default``."""
    status: int
    """The HTTP status of this row's answer."""
    latency_ms: float
    prediction: Value = None
    probabilities: Sequence[float] | None = None
    classes: Sequence[Value] | None = None
    """The labels of the probabilities; None where they are numbered from 0."""
    error: str = ""
    """What was answered instead of a prediction; it holds no feature's value."""
    sensitive: frozenset[str] = frozenset()
    """The features whose values may not be shown."""
    known: frozenset[str] | None = None
    """Where set, features that are not among these are left out: nobody knows whether they are sensitive."""
    size: int = 0
    """Bytes of the request that it keeps alive, its share of the body: they bound the log's queue."""
    feature_age: float | None = None
    """Of the features that were fetched, in seconds; None where all are the request's or defaults."""
    comparison: Comparison | None = None
    """Of a shadow's record only."""
    always: bool = False
    """Recorded whatever the share is, as errors are."""
