"""How features are asked for, and what answers mean: well-formed ones, and whatever else may come."""

import subprocess
import sys
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from greenroom_runtime.contract.config import Compute, Feast, RedisCache
from greenroom_runtime.features.breaker import Breaker
from greenroom_runtime.features.lookup import Lookup, UnreadableAnswerError, open_lookup
from greenroom_runtime.features.redis_store import RedisStore, open_client
from tests.support.features import Clock

EACH = Compute(url="http://features.ml/v1/{entity}?all=1")
LIST = Compute(url="http://features.ml/v1")
FEAST = Compute(url="http://feast.ml", feast=Feast(features=("view:age",), join_key="user"))
KINDS = [EACH, LIST, FEAST]
entities = st.lists(st.text(min_size=1, max_size=20), min_size=1, max_size=4, unique=True)
scalars = st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False) | st.text()
documents: st.SearchStrategy[Any] = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.text(max_size=5)
            | st.sampled_from(["features", "metadata", "feature_names", "results", "values", "statuses"]),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)
names = st.text(min_size=1, max_size=8).filter(lambda name: name != "user")
known = st.dictionaries(names, scalars, min_size=1, max_size=4)


def queried(lookup: Lookup, wanted: list[str]) -> Any:
    """Return the query for as many of these as it may ask for at once."""
    return lookup.query(wanted[: lookup.entities_at_once])


@pytest.mark.parametrize("settings", KINDS, ids=["each", "list", "feast"])
@given(wanted=entities, body=st.binary(max_size=64) | documents.map(orjson.dumps))
def test_whatever_is_answered_is_features_or_refused(
    settings: Compute, wanted: list[str], body: bytes
) -> None:
    """No answer makes anything else of it than objects by entity, or one kind of error."""
    lookup = open_lookup(settings)
    query = queried(lookup, wanted)
    if query is None:
        return
    try:
        answers = lookup.read(query, body)
    except UnreadableAnswerError:
        return
    assert answers.keys() <= set(query.entities)
    assert all(type(features) is dict for features in answers.values())


@given(wanted=entities, features=known)
def test_a_list_is_read_back(wanted: list[str], features: dict[str, Any]) -> None:
    """Each entity that is told has what is told; a null, or nothing, is one that is not known."""
    lookup = open_lookup(LIST)
    told: dict[str, Any] = {"features": {wanted[0]: features, "somebody else": features}}
    told["features"] |= dict.fromkeys(wanted[1:])
    query = queried(lookup, wanted)
    assert orjson.loads(query.body) == {"entities": wanted}
    assert lookup.read(query, orjson.dumps(told)) == orjson.loads(orjson.dumps({wanted[0]: features}))


@given(wanted=entities, features=known)
def test_feast_is_read_back(wanted: list[str], features: dict[str, Any]) -> None:
    """By column; a value past its time in Feast, or that it has not, is none, and a null is one."""
    lookup = open_lookup(FEAST)
    query = queried(lookup, wanted)
    assert orjson.loads(query.body) == {"features": ["view:age"], "entities": {"user": wanted}}
    columns: list[Any] = [{"values": wanted, "statuses": ["PRESENT"] * len(wanted)}]
    for value in features.values():
        late = [["OUTSIDE_MAX_AGE", "NOT_FOUND"][number % 2] for number in range(len(wanted) - 1)]
        first = "NULL_VALUE" if value is None else "PRESENT"
        columns.append({"values": [value] * len(wanted), "statuses": [first, *late]})
    document = {"metadata": {"feature_names": ["user", *features]}, "results": columns}
    told = lookup.read(query, orjson.dumps(document))
    assert told == orjson.loads(orjson.dumps({wanted[0]: features}))


@given(st.text(min_size=1, max_size=40))
def test_an_entity_is_encoded_whole(entity: str) -> None:
    """Nothing of it is a path, a query or a fragment of its own."""
    query = open_lookup(EACH).query([entity])
    if entity in (".", ".."):
        assert query is None
        return
    assert query is not None
    assert query.url.startswith("http://features.ml/v1/")
    assert query.url.endswith("?all=1")
    inner = query.url.removeprefix("http://features.ml/v1/").removesuffix("?all=1")
    assert inner.isascii()
    assert not set(inner) & set("/?#&\\ \r\n{}")


async def test_whatever_is_in_redis_is_an_entry_or_garbage() -> None:
    """No value of any form raises."""
    client = open_client("redis://127.0.0.1:1", environment={})
    clock = Clock()
    store = RedisStore(
        RedisCache(url="redis://a"),
        client=client,
        model="churn",
        namespace="ml",
        keep_seconds=60,
        breaker=Breaker(name="redis", clock=clock, chance=lambda: 0.0),
        clock=clock,
        wall_clock=clock.wall,
    )

    @given(
        st.binary(max_size=40)
        | documents.map(orjson.dumps)
        | st.fixed_dictionaries({"at": scalars, "features": documents}).map(orjson.dumps)
    )
    def read(value: bytes) -> None:
        entry = store._read("u1", value)
        if entry is not None:
            assert type(entry.features) is dict
            assert entry.born <= clock()
            assert entry.expires <= clock() + 300

    read()
    await store.close(1.0)


def test_nothing_is_loaded_that_nobody_asked_for() -> None:
    """A pod without features pays for no client of theirs at its start."""
    code = (
        "import sys, greenroom_runtime.app; "
        "sys.exit(any(name in sys.modules for name in ('redis', 'greenroom_runtime.features.compute')))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
