"""What is asked of where features are computed, and what its answers mean. Pure.

Three ways to ask: a GET for one entity (``{entity}`` in the URL), a POST for a list of them, and Feast's
``/get-online-features``: https://docs.feast.dev/reference/feature-servers/python-feature-server
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol
from urllib.parse import quote, urlsplit

import orjson

from greenroom_runtime.contract.config import Compute, Feast

PLACEHOLDER: Final = "{entity}"
FEAST_PATH: Final = "/get-online-features"
_NOT_A_SEGMENT: Final = frozenset({"", ".", ".."})
"""Entities that would be another path, however they are encoded."""
_PRESENT: Final = "PRESENT"
_NULL: Final = "NULL_VALUE"

Answers = Mapping[str, Mapping[str, Any]]
"""What is known of each entity; one that is not known is not there."""


class UnreadableAnswerError(ValueError):
    """The answer is none of features; the text shows no value."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Query:
    """One HTTP request."""

    url: str
    """Encoded already."""
    body: bytes | None
    """JSON to POST; None for a GET."""
    entities: Sequence[str]


class Lookup(Protocol):
    """One way to ask."""

    @property
    def entities_at_once(self) -> int:
        """How many entities one query may ask for."""

    def query(self, entities: Sequence[str]) -> Query | None:
        """Return the request for these entities; None where they cannot be asked for, so are not known."""

    def read(self, query: Query, body: bytes) -> Answers:
        """Return what the answer to a query says; UnreadableAnswerError where it is none."""


def open_lookup(settings: Compute) -> Lookup:
    """Return the way that the settings ask for; ValueError for a URL that cannot be used."""
    parts = urlsplit(settings.url)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.port == 0:
        raise ValueError("features.compute.url must be http:// or https:// with a host")
    if "@" in parts.netloc:
        raise ValueError("features.compute.url holds credentials: put them into features.compute.secretRef")
    if PLACEHOLDER in parts.netloc:
        raise ValueError("features.compute.url has {entity} in its host: put it into the path or the query")
    if settings.feast is not None:
        return _Feast(settings.url.rstrip("/"), settings.feast)
    return _Each(settings.url) if PLACEHOLDER in settings.url else _List(settings.url)


class _Each:
    """A GET for one entity: the answer is an object of its features, 404 for one that is not known."""

    entities_at_once = 1

    def __init__(self, url: str) -> None:
        self._url = url

    def query(self, entities: Sequence[str]) -> Query | None:
        (entity,) = entities
        if entity in _NOT_A_SEGMENT:
            return None
        url = self._url.replace(PLACEHOLDER, quote(entity, safe=""))
        return Query(url=url, body=None, entities=entities)

    def read(self, query: Query, body: bytes) -> Answers:
        return {query.entities[0]: _object(_parse(body), "the answer")}


class _List:
    """A POST of ``{"entities": […]}``: the answer is ``{"features": {entity: {name: value}}}``."""

    entities_at_once = 500

    def __init__(self, url: str) -> None:
        self._url = url

    def query(self, entities: Sequence[str]) -> Query | None:
        return Query(url=self._url, body=orjson.dumps({"entities": entities}), entities=entities)

    def read(self, query: Query, body: bytes) -> Answers:
        features = _object(_object(_parse(body), "the answer").get("features"), "its member features")
        return {
            entity: _object(features[entity], "an entity's features")
            for entity in query.entities
            if features.get(entity) is not None
        }


class _Feast:
    """Feast's feature server: columns of values and statuses, in the order of the entities."""

    entities_at_once = 500

    def __init__(self, url: str, settings: Feast) -> None:
        self._url = url if url.endswith(FEAST_PATH) else url + FEAST_PATH
        self._key = settings.join_key
        self._wanted: dict[str, Any] = (
            {"feature_service": settings.service} if settings.service else {"features": settings.features}
        )

    def query(self, entities: Sequence[str]) -> Query | None:
        document = {**self._wanted, "entities": {self._key: entities}}
        return Query(url=self._url, body=orjson.dumps(document), entities=entities)

    def read(self, query: Query, body: bytes) -> Answers:
        document = _object(_parse(body), "the answer")
        names = _object(document.get("metadata"), "its metadata").get("feature_names")
        columns = document.get("results")
        if type(names) is not list or type(columns) is not list or len(names) != len(columns):
            raise UnreadableAnswerError("its feature_names and results do not fit together")
        answers: dict[str, dict[str, Any]] = {}
        for name, column in zip(names, columns, strict=True):
            if name != self._key:
                self._read_column(str(name), _object(column, "a result"), query.entities, answers)
        return answers

    @staticmethod
    def _read_column(
        name: str, column: Mapping[str, Any], entities: Sequence[str], answers: dict[str, dict[str, Any]]
    ) -> None:
        values, statuses = column.get("values"), column.get("statuses")
        if (
            type(values) is not list
            or type(statuses) is not list
            or not len(values) == len(statuses) == len(entities)
        ):
            raise UnreadableAnswerError("a result has not one value and one status for each entity")
        for entity, value, status in zip(entities, values, statuses, strict=True):
            # A value past its time in Feast is none: its owner has said how old it may be.
            if status in (_PRESENT, _NULL):
                answers.setdefault(entity, {})[name] = value if status == _PRESENT else None


def _parse(body: bytes) -> Any:
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError:
        raise UnreadableAnswerError("the answer is not JSON") from None


def _object(value: object, what: str) -> Mapping[str, Any]:
    if type(value) is not dict:
        raise UnreadableAnswerError(f"{what} is no object")
    return value
