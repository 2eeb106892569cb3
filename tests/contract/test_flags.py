"""The flag store's document: one way to write it, and nothing else is obeyed."""

import copy
import json
import math
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from greenroom_runtime.contract.canonical import canonical_json
from greenroom_runtime.contract.flags import (
    FlagDocumentError,
    FlagStore,
    Rollout,
    Rule,
    Shadow,
    dump_flags,
    parse_flags,
)
from greenroom_runtime.contract.shadow_flag import MAX_SEGMENTS
from greenroom_runtime.routing.router import find_place
from tests.support.rollouts import (
    LARGEST,
    SHADOW_VECTORS,
    VECTORS,
    flagd_version,
    rolling,
    shadowing,
)

BETA = Rule(name="beta", attribute="cohorts", values=("beta", "staff"))
RELEASED = FlagStore(
    production="v2",
    resident=("v2", "v3"),
    previous="v1",
    attempt="3f1c",
    digests={"v3": "sha256:" + "3" * 64},
    rollout=Rollout(
        version="v3",
        hundredths=5005,
        salt="ml/churn",
        rules=(
            BETA,
            Rule(name="nordics", attribute="country", values=("NO", "SE")),
            Rule(name="by-name", attribute="user_id", values=("Åse",)),
        ),
    ),
)
SHADOW = Shadow(
    version="v4",
    hundredths=5005,
    salt="ml/churn",
    epoch="v4@44444444/v2@22222222#1",
    latency_ratio=2,
    segments=(("country", "NO"), ("user_id", "Åse")),
)
SHADOWED = FlagStore(
    production="v2",
    resident=("v2",),
    previous="v1",
    attempt="3f1c",
    digests={"v4": "sha256:" + "4" * 64},
    shadow=SHADOW,
)
PLAIN = (
    '{"$schema":"https://flagd.dev/schema/v0/flags.json",'
    '"flags":{"version":{"defaultVariant":"v2","state":"ENABLED","variants":{"v2":"v2"}}},'
    '"metadata":{"attempt":"","digests":"","first":"","previous":"v1","resident":"v2,v3",'
    '"revision":"77ecc7b06679c598"}}'
)


def test_a_store_without_a_rollout_is_written_as_before_there_were_any() -> None:
    """Not a byte is different, so no revision changes and no pod is touched by an upgrade."""
    store = FlagStore(production="v2", resident=("v2", "v3"), previous="v1")
    assert dump_flags(store) == PLAIN
    assert parse_flags(PLAIN) == store


def test_a_rollout_is_written_and_read_as_released() -> None:
    """The released document says what it always said, in the same bytes."""
    text = canonical_json(VECTORS["document"])
    assert dump_flags(RELEASED) == text
    read = parse_flags(text)
    assert (read.rollout, read.revision) == (RELEASED.rollout, VECTORS["document"]["metadata"]["revision"])
    assert read.routable == {"v2", "v3"}


@given(store=rolling)
def test_rollouts_survive_the_round_trip(store: FlagStore) -> None:
    """What is written is read back the same, under the same revision."""
    text = dump_flags(store)
    read = parse_flags(text.encode())
    assert (read.rollout, read.production, read.revision) == (store.rollout, store.production, store.revision)
    assert dump_flags(read) == text


@given(store=rolling)
def test_a_rollout_is_a_flagd_document(store: FlagStore) -> None:
    """Flagd's rules: all that may be chosen is a variant, weights are whole, metadata are scalars."""
    document = json.loads(dump_flags(store))
    flag = document["flags"]["version"]
    assert store.rollout is not None
    assert set(flag["variants"]) == {store.production, store.rollout.version}
    *branches, _, fractional, default = flag["targeting"]["if"]
    assert set(branches[1::2]) <= {store.rollout.version}
    assert default == flag["defaultVariant"] == store.production
    _, (first, weight), (_, rest) = fractional["fractional"]
    assert (first, weight + rest) == (store.rollout.version, 10_000)
    assert all(isinstance(value, str | float) for value in document["metadata"].values())


def test_an_epoch_is_written_where_there_is_one() -> None:
    """Nothing is counted without an epoch, so a document without one says nothing of it, as before."""
    assert RELEASED.rollout is not None
    silent = replace(RELEASED, rollout=replace(RELEASED.rollout, latency_ratio=2))
    assert dump_flags(silent) == canonical_json(VECTORS["document"])
    counting = replace(RELEASED, rollout=replace(RELEASED.rollout, epoch="v3@1/2", latency_ratio=2))
    metadata = json.loads(dump_flags(counting))["metadata"]
    assert (metadata["epoch"], metadata["latencyRatio"]) == ("v3@1/2", 2.0)
    assert counting.revision != RELEASED.revision
    read = parse_flags(dump_flags(counting)).rollout
    assert read == counting.rollout


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"epoch": "v3 1"}, "epoch is 'v3 1', not at most 200 letters"),
        ({"epoch": "x" * 201}, "not at most 200 letters"),
        ({"epoch": "v3\n"}, "not at most 200 letters"),
        ({"epoch": 3}, "metadata.epoch"),
        ({"epoch": "v3", "latencyRatio": 1}, "latency ratio is 1.0, not above 1"),
        ({"epoch": "v3", "latencyRatio": 100.5}, "latency ratio is 100.5, not above 1 and at most 100"),
        ({"epoch": "v3", "latencyRatio": "1.3"}, "metadata.latencyRatio"),
        ({"epoch": "v3", "latencyRatio": True}, "metadata.latencyRatio"),
    ],
)
def test_what_is_no_epoch_is_told(change: dict[str, Any], words: str) -> None:
    """What pods could not count by is refused, with what stands there."""
    document = copy.deepcopy(VECTORS["document"])
    document["metadata"] |= {"revision": "", **change}
    with pytest.raises(FlagDocumentError, match=words):
        parse_flags(canonical_json(document))


def places(value: Any, place: tuple[str | int, ...] = ()) -> list[tuple[str | int, ...]]:
    """List the paths to all parts of a document."""
    children: list[tuple[str | int, Any]] = []
    if isinstance(value, dict):
        children = list(value.items())
    elif isinstance(value, list):
        children = list(enumerate(value))
    return [place, *(path for key, child in children for path in places(child, (*place, key)))]


PLACES = [("flags", "version", *path) for path in places(VECTORS["document"]["flags"]["version"])]
json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=8)
    | st.just("v3"),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)


def change(document: dict[str, Any], path: tuple[str | int, ...], new: Any) -> None:
    """Put another part in this place."""
    *parents, last = path
    part: Any = document
    for key in parents:
        part = part[key]
    part[last] = new


def assert_refused_or_whole(document: dict[str, Any]) -> None:
    """Assert that a document that is read is written again as it was: no part of it was passed over."""
    with suppress(FlagDocumentError):
        read = parse_flags(canonical_json(document))
        document["metadata"]["revision"] = read.revision
        assert dump_flags(read) == canonical_json(document)


@given(path=st.sampled_from(PLACES), new=json_values)
def test_no_part_of_a_rollout_is_ignored(path: tuple[str | int, ...], new: Any) -> None:
    """Whatever takes the place of a part, the document is refused, or it is read as what it says now."""
    document = copy.deepcopy(VECTORS["document"])
    document["metadata"]["revision"] = ""
    change(document, path, new)
    assert_refused_or_whole(document)


@given(path=st.sampled_from([path for path in PLACES if path[2:]]))
def test_no_part_of_a_rollout_may_be_missing(path: tuple[str | int, ...]) -> None:
    """A document that lacks a part is refused, or it is another whole one: a rule with a value less, say."""
    document = copy.deepcopy(VECTORS["document"])
    document["metadata"]["revision"] = ""
    *parents, last = path
    part: Any = document
    for key in parents:
        part = part[key]
    del part[last]
    assert_refused_or_whole(document)


TARGETING = ("flags", "version", "targeting")
IF = (*TARGETING, "if")
SHARE = (*IF, 7, "fractional")
OTHER_OPERATOR = {"some": [{"var": "cohorts"}, {"starts_with": [{"var": ""}, "b"]}]}
OTHER_SALT = {"cat": ["ml/other:v9:", {"var": "targetingKey"}, ":"]}


@pytest.mark.parametrize(
    ("path", "new", "words"),
    [
        ((*SHARE, 1, 1), 5006, r"fractional\[2\]\[1\] is 4995, where .* only 4994"),
        ((*SHARE, 1, 1), 50.05, "no rollout that"),
        ((*SHARE, 1, 1), "5005", "no rollout that"),
        ((*SHARE, 1, 1), 10_001, "10001 hundredths of a percent"),
        ((*SHARE, 1, 1), -1, "-1 hundredths of a percent"),
        ((*SHARE, 1, 1), True, r"fractional\[1\]\[1\] is True"),
        ((*SHARE, 1), ["v2", 4995], "salt is 'ml/churn:v3:', not namespace/name"),
        ((*SHARE, 1, 0), "v9", "salt is 'ml/churn:v3:', not namespace/name"),
        ((*SHARE, 2, 1), 4995.0, r"fractional\[2\]\[1\] is 4995.0"),
        ((*SHARE, 0), OTHER_SALT, "salt is 'ml/other:v9:'"),
        ((*SHARE, 0, "cat", 1, "var"), "email", r"cat\[1\]\.var is 'email'"),
        ((*SHARE, 0, "cat", 2), "", r"cat\[2\] is ''"),
        (SHARE, [["v3", 5005], ["v2", 4995]], "no rollout that"),
        ((*IF, 0), OTHER_OPERATOR, "rule 'beta' is"),
        ((*IF, 0), True, "rule 'beta' is True"),
        ((*IF, 0, "some", 1, "in", 1), "beta", "rule 'beta' is"),
        ((*IF, 0, "some", 1, "in", 1), [], "rule 'beta' has 0 values"),
        ((*IF, 0, "some", 1, "in", 1), ["beta", 7], r"if\[0\]\.some\[1\]\.in\[1\] is \['beta', 7\]"),
        ((*IF, 0, "some", 1, "in", 1), ["beta", "beta"], "value 'beta' is there 2 times"),
        ((*IF, 0, "some", 0, "merge", 0, "var"), "a.b", "attribute of rule 'beta' is"),
        ((*IF, 0, "some", 0, "merge", 0, "var"), "$flagd.timestamp", "attribute of rule 'beta' is"),
        (
            (*IF, 4, "some", 0, "merge", 0, "var"),
            "user_id",
            r"if\[4\]\.some\[0\]\.merge\[0\]\.var is 'user_id'",
        ),
        ((*IF, 1), "v2", r"if\[1\] is 'v2'"),
        ((*IF, 6), True, r"if\[6\] is True"),
        ((*IF, 8), "v3", r"if\[8\] is 'v3'"),
        (IF, [], "no rollout that"),
        (TARGETING, {}, "no rollout that"),
        (TARGETING, None, "no rollout that"),
        (TARGETING, "v3", "targeting"),
        ((*TARGETING, "or"), [], r"targeting is"),
        (("flags", "version", "variants", "v4"), "v4", r"version\.variants is"),
        (("flags", "version", "variants"), {"v2": "v2"}, r"version\.variants is"),
        (("flags", "version", "metadata"), {}, r"version\.metadata: Extra"),
        (("metadata", "rules"), "beta,nordics", "names 2 rules, .* has 3"),
        (("metadata", "rules"), "", "names 0 rules, .* has 3"),
        (("metadata", "rules"), "beta,beta,by-name", "rule 'beta' is there 2 times"),
        (("metadata", "rules"), "beta,,by-name", "a rule's name is ''"),
        (("metadata", "rules"), ["beta", "nordics", "by-name"], "metadata.rules"),
        (("metadata", "key"), "", "attribute of rule 'by-name' is ''"),
        (("metadata", "key"), "user id", "attribute of rule 'by-name' is 'user id'"),
        (("metadata", "resident"), "v2", "rollout's 'v3' is not among the resident"),
    ],
)
def test_what_is_no_rollout_is_told(path: tuple[str | int, ...], new: Any, words: str) -> None:
    """A refusal says which part is wrong, and what stands there."""
    document = copy.deepcopy(VECTORS["document"])
    document["metadata"]["revision"] = ""
    change(document, path, new)
    with pytest.raises(FlagDocumentError, match=words):
        parse_flags(canonical_json(document))


@pytest.mark.parametrize("member", ["key", "rules", "epoch"])
def test_parts_of_a_rollout_without_a_rollout_are_refused(member: str) -> None:
    """Rules that are named and not there may not be passed over."""
    document = json.loads(PLAIN)
    document["metadata"] |= {"revision": "", member: "beta"}
    with pytest.raises(FlagDocumentError, match="targeting None is no rollout"):
        parse_flags(canonical_json(document))


TEXT = canonical_json(
    {**VECTORS["document"], "metadata": {**VECTORS["document"]["metadata"], "revision": ""}}
)


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ('"state":"ENABLED"', '"state":"ENABLED","state":"ENABLED"', "member 'state' is there 2 times"),
        (
            '"metadata":{',
            f'"metadata":{{"{"x" * 9000}":1,"{"x" * 9000}":1,',
            "the member 'xxx.*xxx' is there 2",
        ),
        ('["v3",5005]', '["v3",NaN]', "targeting"),
        ('["v3",5005]', '["v3",5005.0]', "targeting"),
        ('["v3",5005]', f'["v3",{"9" * 1000}]', "hundredths of a percent"),
        ('["v3",5005]', f'["v3",{"9" * 5000}]', "number out of range"),
        ('["v3",5005]', "[" * 100_000, "recursion limit"),
        ('"some":', '"if":' + "[" * 150 + "]" * 150 + ',"some":', "understands only"),
        ('"NO"', '"\\ud800"', "unexpected end of hex escape"),
        ('"NO"', '"N\\u0000O"', "a value of rule 'nordics' is .* not 1 to 64 characters"),
        ('"NO"', f'"{"x" * 65}"', "a value of rule 'nordics' is .* not 1 to 64 characters"),
        ('"NO"', f'"{"x" * 1_000_000}"', "a value of rule 'nordics' is .* not 1 to 64 characters"),
        ('"NO"', ",".join(f'"{number}"' for number in range(100)), "has 101 values"),
    ],
    ids=lambda value: value[:20],
)
def test_hostile_texts_are_refused(old: str, new: str, words: str) -> None:
    """Texts that readers take differently, or that are made to exhaust one, end in a short refusal."""
    assert old in TEXT
    with pytest.raises(FlagDocumentError, match=words) as refused:
        parse_flags(TEXT.replace(old, new, 1))
    assert len(str(refused.value)) < 500


SPLICES = [b'"v2",', b'{"var":"x"},', b"true", b"1e3", b"-0", b"null", b"\\ud800", b",", b'"', b"[", b"}"]


@given(
    start=st.integers(0, len(TEXT)),
    length=st.integers(0, 40),
    new=st.binary(max_size=8) | st.sampled_from(SPLICES),
)
def test_damaged_texts_are_refused_or_whole(start: int, length: int, new: bytes) -> None:
    """A text that was cut, spliced or overwritten anywhere is refused, or read as what it says now."""
    data = TEXT.encode()
    damaged = data[:start] + new + data[start + length :]
    with suppress(FlagDocumentError):
        read = parse_flags(damaged)
        assert json.loads(dump_flags(read))["flags"]["version"] == json.loads(damaged)["flags"]["version"]


@pytest.mark.parametrize(
    "make",
    [
        lambda: replace(BETA, name="be,ta"),
        lambda: replace(BETA, name="beta\n"),
        lambda: replace(BETA, name="n" * 64),
        lambda: replace(BETA, attribute="targetingKey"),
        lambda: replace(BETA, attribute=""),
        lambda: replace(BETA, values=()),
        lambda: replace(BETA, values=("",)),
        lambda: replace(BETA, values=("\ud800",)),
        lambda: replace(BETA, values=("x" * 65,)),
        lambda: replace(BETA, values=tuple(map(str, range(101)))),
        lambda: Rollout(version="v3", hundredths=10_001, salt="ml/churn"),
        lambda: Rollout(version="v3", hundredths=1, salt="ml churn"),
        lambda: Rollout(version="v3", hundredths=1, salt="ml/churn", key="targetingKey"),
        lambda: Rollout(version="v3", hundredths=1, salt="ml/churn", rules=(BETA, BETA)),
        lambda: Rollout(version="v3", hundredths=1, salt="ml/churn", epoch="é"),
        lambda: Rollout(version="v3", hundredths=1, salt="ml/churn", latency_ratio=math.nan),
        lambda: Rollout(version="v3", hundredths=1, salt="ml/churn", latency_ratio=math.inf),
        lambda: Rollout(
            version="v3",
            hundredths=1,
            salt="ml/churn",
            rules=tuple(replace(BETA, name=f"r{number}") for number in range(33)),
        ),
        lambda: replace(RELEASED, production="v3"),
        lambda: replace(RELEASED, resident=("v2",)),
        lambda: FlagStore(production="v2\n", resident=("v2\n",)),
        lambda: FlagStore(production="v2", resident=("v2",), digests={"v2": "sha256:" + "2" * 64 + "\n"}),
    ],
)
def test_what_could_not_be_obeyed_is_never_written(make: Callable[[], object]) -> None:
    """The writer is held to the reader's rules."""
    with pytest.raises(FlagDocumentError):
        make()


def test_the_largest_rollout_fits_into_a_config_map() -> None:
    """All limits reached at once, in characters of four bytes, is still less than a ConfigMap's 1 MiB."""
    text = dump_flags(replace(RELEASED, rollout=LARGEST))
    assert len(text.encode()) < 900_000
    assert parse_flags(text).rollout == LARGEST


def test_a_shadow_is_written_and_read_as_released() -> None:
    """The released document says what it always said, in the same bytes."""
    text = canonical_json(SHADOW_VECTORS["document"])
    assert dump_flags(SHADOWED) == text
    read = parse_flags(text)
    assert (read.shadow, read.rollout, read.routable) == (SHADOW, None, frozenset({"v2"}))
    assert read.revision == SHADOW_VECTORS["document"]["metadata"]["revision"]


@pytest.mark.parametrize("vector", SHADOW_VECTORS["vectors"], ids=lambda vector: vector["id"][:24])
def test_requests_keep_their_place(vector: dict[str, Any]) -> None:
    """Twelve requests are where flagd's `fractional` has always put them, to the hundredth of a percent."""
    key, place = vector["id"], vector["bucket"]
    assert find_place(SHADOW.bucket_start, key) == vector["hash"] * 10_000 >> 32 == place
    document = canonical_json(SHADOW_VECTORS["document"])
    assert flagd_version(document, key=key, attributes={}, flag="shadow") == vector["version"]
    for hundredths, version in ((place, ""), (place + 1, "v4")):
        edge = replace(SHADOWED, shadow=replace(SHADOW, hundredths=hundredths))
        assert flagd_version(dump_flags(edge), key=key, attributes={}, flag="shadow") == version


@given(store=shadowing)
def test_shadows_survive_the_round_trip(store: FlagStore) -> None:
    """What is written is read back the same, under the same revision, whatever else the store has."""
    text = dump_flags(store)
    read = parse_flags(text.encode())
    assert (read.shadow, read.rollout, read.revision) == (store.shadow, store.rollout, store.revision)
    assert dump_flags(read) == text


@given(store=shadowing)
def test_a_shadow_changes_nothing_else(store: FlagStore) -> None:
    """It is a flag beside the others, which a reader that does not know it finds as they were."""
    document, without = (json.loads(dump_flags(each)) for each in (store, replace(store, shadow=None)))
    assert document["flags"].pop("shadow")
    assert document["flags"] == without["flags"]
    known = {name: value for name, value in document["metadata"].items() if not name.startswith("shadow")}
    assert known | {"revision": ""} == without["metadata"] | {"revision": ""}


SHADOW_PLACES = [
    ("flags", "shadow", *path) for path in places(SHADOW_VECTORS["document"]["flags"]["shadow"])
] + [("metadata", name) for name in ("shadowEpoch", "shadowLatencyRatio", "shadowSegments")]


@given(path=st.sampled_from(SHADOW_PLACES), new=json_values | st.none() | st.just("v4"))
def test_no_part_of_a_shadow_is_ignored(path: tuple[str | int, ...], new: Any) -> None:
    """Whatever takes the place of a part, the document is refused, or it is read as what it says now."""
    document = copy.deepcopy(SHADOW_VECTORS["document"])
    document["metadata"]["revision"] = ""
    change(document, path, new)
    assert_refused_or_whole(document)


SHADOW_SHARE = ("flags", "shadow", "targeting", "if", 1, "fractional")


@pytest.mark.parametrize(
    ("path", "new", "words"),
    [
        ((*SHADOW_SHARE, 1, 1), 5006, r"fractional\[2\]\[1\] is 4995, where .* only 4994"),
        ((*SHADOW_SHARE, 1, 1), True, r"fractional\[1\]\[1\] is True"),
        ((*SHADOW_SHARE, 1, 1), 10_001, "the shadow's share is 10001 hundredths"),
        ((*SHADOW_SHARE, 1, 1), "5005", "no shadow that"),
        ((*SHADOW_SHARE, 1, 0), "v9", "shadow's salt is 'ml/churn:shadow:v4:', not namespace/name"),
        ((*SHADOW_SHARE, 1, 0), "v" * 64, "is not a version's name"),
        ((*SHADOW_SHARE, 2, 0), "v2", r"fractional\[2\]\[0\] is 'v2'"),
        ((*SHADOW_SHARE, 0, "cat", 0), "ml/churn:v4:", "salt is 'ml/churn:v4:'"),
        ((*SHADOW_SHARE, 0, "cat", 2), "", r"cat\[2\] is ''"),
        (("flags", "shadow", "targeting"), None, "targeting None is no shadow"),
        (("flags", "shadow", "targeting", "if", 2), "v4", r"if\[2\] is 'v4'"),
        (("flags", "shadow", "defaultVariant"), "v4", r"shadow\.defaultVariant is 'v4'"),
        (("flags", "shadow", "variants", "OFF"), "v2", r"variants\.OFF is 'v2'"),
        (("flags", "shadow", "state"), "DISABLED", r"flags\.shadow\.state"),
        (("flags", "shadow", "metadata"), {}, r"flags\.shadow\.metadata: Extra"),
        (("metadata", "shadowEpoch"), "", "the shadow has no epoch"),
        (("metadata", "shadowEpoch"), "a b", "epoch is 'a b', not at most 200 letters"),
        (("metadata", "shadowEpoch"), 7, "metadata.shadowEpoch"),
        (("metadata", "shadowLatencyRatio"), 1, "shadow's latency ratio is 1.0, not above 1"),
        (("metadata", "shadowLatencyRatio"), "2", "metadata.shadowLatencyRatio"),
        (("metadata", "shadowSegments"), "country", "a segment's value of 'country' is '', not 1 to 64"),
        (("metadata", "shadowSegments"), "a.b=c", "a segment's attribute is 'a.b'"),
        (("metadata", "shadowSegments"), "=NO", "a segment's attribute is ''"),
        (("metadata", "shadowSegments"), "a=b\na=b", "segment 'a=b' is there 2 times"),
        (("metadata", "shadowSegments"), "a=b\n", "a segment's attribute is ''"),
        (("metadata", "shadowSegments"), "a=\x7f", "a segment's value of 'a' is"),
        (("metadata", "shadowSegments"), "\n".join(f"a={n}" for n in range(33)), "33 segments, more than 32"),
        (("metadata", "shadowSegments"), ["a=b"], "metadata.shadowSegments"),
        (("flags", "version", "defaultVariant"), "v4", "is none of its variants"),
    ],
)
def test_what_is_no_shadow_is_told(path: tuple[str | int, ...], new: Any, words: str) -> None:
    """A refusal says which part is wrong, and what stands there."""
    document = copy.deepcopy(SHADOW_VECTORS["document"])
    document["metadata"]["revision"] = ""
    change(document, path, new)
    with pytest.raises(FlagDocumentError, match=words):
        parse_flags(canonical_json(document))


@pytest.mark.parametrize("member", ["shadowEpoch", "shadowSegments"])
def test_parts_of_a_shadow_without_a_shadow_are_refused(member: str) -> None:
    """What is told of a shadow that is not there may not be passed over."""
    document = json.loads(PLAIN)
    document["metadata"] |= {"revision": "", member: "a=b"}
    with pytest.raises(FlagDocumentError, match="tells of a shadow, and there is no flag"):
        parse_flags(canonical_json(document))


@pytest.mark.parametrize(
    "make",
    [
        lambda: replace(SHADOWED, production="v4", resident=("v4",)),
        lambda: replace(SHADOW, version="V4"),
    ],
)
def test_a_shadow_that_could_not_be_obeyed_is_never_written(make: Callable[[], object]) -> None:
    """Production is no shadow of its own, and a version has a version's name."""
    with pytest.raises(FlagDocumentError):
        make()


def test_the_largest_shadow_fits_into_a_config_map() -> None:
    """Beside the largest rollout, with all segments at their longest."""
    segments = tuple((f"a{number:02}".ljust(63, "a"), "😀" * 64) for number in range(MAX_SEGMENTS))
    shadow = replace(SHADOW, segments=segments, epoch="e" * 200)
    store = replace(RELEASED, rollout=LARGEST, shadow=shadow)
    text = dump_flags(store)
    assert len(text.encode()) < 1_000_000
    assert parse_flags(text).shadow == shadow
