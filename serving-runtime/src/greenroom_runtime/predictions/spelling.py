"""How a record is written: one line of JSON, as ``docs/schemas/prediction.schema.json`` describes it."""

import hashlib
import math
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Literal

import orjson

from greenroom_runtime.contract.bundle import Value
from greenroom_runtime.predictions.record import Comparison, Record

_OPTIONS = orjson.OPT_APPEND_NEWLINE | orjson.OPT_UTC_Z | orjson.OPT_SERIALIZE_NUMPY
_SAME_VALUE = orjson.OPT_SORT_KEYS | orjson.OPT_NON_STR_KEYS
_EXACT_AS_FLOAT = 2**53
_HASH_BYTES = 16
_MOST_CLASSES_KEPT = 64


class UnspeakableRecordError(ValueError):
    """JSON has no words for the record, or it needs too many."""


def hash_key(secret: str | None, *, model: str, namespace: str) -> bytes:
    """Return the key of the hashes of sensitive features.

    Without a secret it is made of the model's name, which anybody can do: then whoever can guess a value
    can also confirm it.
    """
    text = secret or f"greenroom/{namespace}/{model}"
    # A Secret may hold any bytes, and Python's environment spells those that are no UTF-8 as surrogates.
    return hashlib.blake2b(text.encode(errors="surrogateescape"), digest_size=32).digest()


class Speller:
    """Writes the records of one model."""

    def __init__(
        self,
        *,
        model: str,
        namespace: str,
        sensitive: Literal["Hash", "Omit"],
        key: bytes,
        most_bytes: int,
        mark: bool = False,
    ) -> None:
        """``most_bytes`` bounds a line; ``mark`` lets it begin with ``"event":"prediction"``."""
        self._spelled: dict[str, object] = {"event": "prediction"} if mark else {}
        self._spelled |= {"model": model, "namespace": namespace}
        self._hashes = sensitive == "Hash"
        self._key = key
        self._most_bytes = most_bytes
        self._labels: dict[int, tuple[Sequence[Value], list[str]]] = {}

    def line(self, record: Record) -> bytes:
        """Return the record's line; UnspeakableRecordError where there can be none.

        Features that are too large, or that JSON cannot carry, are left out as a whole: that a request was
        refused is worth recording, whatever it contained.
        """
        try:
            as_given = not record.sensitive and record.known is None
            spelled = self._spell(record, record.features if as_given else self._features(record))
            if len(spelled) <= self._most_bytes:
                return spelled
        except (TypeError, ValueError, RecursionError):  # what orjson and datetime raise
            pass
        try:
            spelled = self._spell(record, None)
        except (TypeError, ValueError) as error:
            message = f"a record cannot be written as JSON: {type(error).__name__}"
            raise UnspeakableRecordError(message) from error
        if len(spelled) > self._most_bytes:
            message = f"a record has {len(spelled)} bytes, more than {self._most_bytes}"
            raise UnspeakableRecordError(message)
        return spelled

    def _spell(self, record: Record, features: Mapping[str, Any] | None) -> bytes:
        probabilities, comparison = record.probabilities, record.comparison
        spelled = self._spelled  # always the same dictionary: making one takes longer than writing it
        spelled["id"] = record.id
        spelled["time"] = datetime.fromtimestamp(record.time, UTC)
        spelled["version"] = record.version
        spelled["role"] = record.role
        spelled["reason"] = record.reason
        spelled["entity"] = record.entity
        spelled["features"] = features
        spelled["feature_source"] = record.feature_source
        spelled["feature_age_seconds"] = record.feature_age
        spelled["prediction"] = record.prediction
        spelled["probabilities"] = (
            None if probabilities is None else self._by_class(record.classes, probabilities)
        )
        spelled["latency_ms"] = record.latency_ms
        spelled["status"] = record.status
        spelled["error"] = record.error
        if comparison is None:
            spelled.pop("comparison", None)
        else:
            spelled["comparison"] = self._compared(comparison)
        return orjson.dumps(spelled, option=_OPTIONS)

    def _compared(self, comparison: Comparison) -> dict[str, object]:
        probabilities = comparison.probabilities
        return {
            "version": comparison.version,
            "prediction": comparison.prediction,
            "probabilities": (
                None if probabilities is None else _by_own_class(comparison.classes, probabilities)
            ),
            "latency_ms": comparison.latency_ms,
            "outcome": comparison.outcome,
            "difference": comparison.difference,
            "segments": comparison.segments,
        }

    def _by_class(self, classes: Sequence[Value] | None, probabilities: Sequence[float]) -> dict[str, float]:
        if classes is None:
            return {str(number): value for number, value in enumerate(probabilities)}
        # By identity: a version's records share the tuple, and (0, 1) == (False, True).
        kept = self._labels.get(id(classes))
        if kept is None or kept[0] is not classes:
            if len(self._labels) >= _MOST_CLASSES_KEPT:
                self._labels.clear()
            kept = self._labels[id(classes)] = (classes, [_label(one) for one in classes])
        return dict(zip(kept[1], probabilities, strict=True))

    def _features(self, record: Record) -> Mapping[str, Any] | None:
        features = record.features
        if features is None:
            return None
        known = features.keys() if record.known is None else record.known
        shown = {name: value for name, value in features.items() if name in known}
        for name in record.sensitive & shown.keys():
            if not self._hashes:
                del shown[name]
            elif shown[name] is not None:
                shown[name] = self._hash(name, shown[name])
        return shown

    def _hash(self, name: str, value: object) -> str:
        """Return the same text for the same value of the same feature, under the same key."""
        if isinstance(value, int) and not isinstance(value, bool) and abs(value) <= _EXACT_AS_FLOAT:
            value = float(value)  # 1 and 1.0 are the same number to a model
        if isinstance(value, float) and not math.isfinite(value):
            value = str(value)  # JSON would spell them all null
        content = name.encode() + b"\0" + orjson.dumps(value, option=_SAME_VALUE)
        return hashlib.blake2b(content, digest_size=_HASH_BYTES, key=self._key).hexdigest()


def _by_own_class(classes: Sequence[Value] | None, probabilities: Sequence[float]) -> dict[str, float]:
    """Spell probabilities whose labels no other record shares."""
    labels = range(len(probabilities)) if classes is None else classes
    return {_label(label): value for label, value in zip(labels, probabilities, strict=False)}


def _label(value: Value) -> str:
    """Return a class as an object's key, as the answers of ``/predict`` spell it."""
    return value if isinstance(value, str) else orjson.dumps(value).decode()
