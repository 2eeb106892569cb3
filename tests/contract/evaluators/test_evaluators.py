"""flagd's evaluators for other languages read what we write: what they agree in, and where they differ."""

import copy
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import mmh3
import pytest
from hypothesis import given
from hypothesis import strategies as st

from greenroom_runtime.contract.canonical import canonical_json
from greenroom_runtime.contract.flags import BUCKET_END, WHOLE, FlagStore, Rollout, Rule, dump_flags
from greenroom_runtime.routing.router import compile_router, spellings
from tests.support import evaluators
from tests.support.evaluators import Evaluator
from tests.support.rollouts import (
    LARGEST,
    SHADOW_VECTORS,
    VECTORS,
    attributes,
    flagd_version,
    rolling,
    shadowing,
    values,
)

DOCUMENTS = Path(__file__).parents[1] / "documents"
USERS = [f"user-{number}" for number in range(4000)]
ROLLOUT = Rollout(version="v3", hundredths=1000, salt="ml/churn")

keys = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)
texts = st.one_of(values, st.text(st.characters(exclude_categories=["Cs"]), max_size=70))
contexts = st.builds(
    dict.__or__,
    st.dictionaries(attributes, st.none() | texts | st.lists(texts, max_size=4), max_size=4),
    st.fixed_dictionaries({}, optional={"targetingKey": keys}),
)
pytestmark = pytest.mark.timeout(120, func_only=True)  # the first fixture installs and builds


@pytest.fixture(scope="module", params=sorted(evaluators.COMMANDS))
def evaluator(request: pytest.FixtureRequest) -> Iterator[Evaluator]:
    """Run flagd's evaluator for one language."""
    with evaluators.running(request.param) as evaluator:
        yield evaluator


def store(*, rules: tuple[Rule, ...] = (), **changes: object) -> FlagStore:
    """Return a rollout of v3 beside production v2."""
    rollout = replace(ROLLOUT, rules=rules, **changes)  # type: ignore[arg-type]
    return FlagStore(production="v2", resident=("v2", rollout.version), rollout=rollout)


def versions(evaluator: Evaluator, flags: FlagStore, *contexts: Mapping[str, object]) -> list[str]:
    """Return the version for each context; the evaluator has nothing to complain of."""
    answer = evaluator.ask(dump_flags(flags), contexts)
    assert answer.said == []
    return answer.versions


def ours(flags: FlagStore, context: Mapping[str, object]) -> str:
    """Return the version that a pod chooses, which is told the key beside the context."""
    return compile_router(flags).choose(str(context.get("targetingKey", "")), context).version


def chosen(evaluator: Evaluator, **changes: object) -> set[str]:
    """Return the users who get the rollout's version."""
    flags = store(**changes)  # type: ignore[arg-type]
    told = versions(evaluator, flags, *({"targetingKey": user} for user in USERS))
    return {user for user, version in zip(USERS, told, strict=True) if version != "v2"}


@pytest.mark.parametrize("path", sorted(DOCUMENTS.glob("*/flags.json")), ids=lambda path: path.parent.name)
def test_released_documents_are_accepted(evaluator: Evaluator, path: Path) -> None:
    """A flag store of each release fits flagd's schema and gives production."""
    answer = evaluator.ask(path.read_text(encoding="utf-8"), [{}, {"targetingKey": "user-1"}])
    assert (answer.versions, answer.said) == (["v2", "v2"], [])


@given(flags=rolling, context=contexts)
def test_every_rollout_is_accepted(
    evaluator: Evaluator, flags: FlagStore, context: dict[str, object]
) -> None:
    """Any rollout fits flagd's schema, and whoever asks gets one of its two versions."""
    assert set(versions(evaluator, flags, context)) <= flags.routable


def test_the_largest_rollout_is_accepted(evaluator: Evaluator) -> None:
    """So does one that reaches all limits at once."""
    flags = replace(store(), rollout=LARGEST)
    last = LARGEST.rules[-1]
    assert versions(evaluator, flags, {}, {last.attribute: last.values[-1]}) == ["v2", "v3"]


@pytest.mark.parametrize(
    "change",
    [
        lambda flag: flag["targeting"]["if"].append({"unheard_of": ["v3"]}),
        lambda flag: flag.pop("state"),
        lambda flag: flag["variants"].update(v3=3),
        lambda flag: flag["targeting"]["if"][-2]["fractional"].append(["v3", "1"]),
    ],
    ids=["operator", "state", "type", "weight"],
)
def test_what_is_no_flag_document_is_complained_of(
    evaluator: Evaluator, change: Callable[[dict[str, Any]], object]
) -> None:
    """What the schema refuses is told, so that silence above means that nothing is wrong."""
    document = copy.deepcopy(VECTORS["document"])
    change(document["flags"]["version"])
    assert evaluator.ask(canonical_json(document), []).said != []


@given(flags=rolling, hundredths=st.sampled_from([0, WHOLE]), context=contexts)
def test_rules_and_ends_are_as_a_pod_decides(
    evaluator: Evaluator, flags: FlagStore, hundredths: int, context: dict[str, object]
) -> None:
    """With attributes that are texts or lists of texts: rules, 0 %, 100 % and no key are the same for all."""
    assert flags.rollout is not None
    flags = replace(flags, rollout=replace(flags.rollout, hundredths=hundredths))
    assert versions(evaluator, flags, context) == [ours(flags, context)]


@pytest.mark.parametrize(
    "key", [{}, {"targetingKey": ""}, {"targetingKey": None}], ids=["no", "empty", "null"]
)
def test_without_a_key_everybody_gets_production(evaluator: Evaluator, key: dict[str, object]) -> None:
    """Also at 100 %, and without a complaint for each request."""
    assert versions(evaluator, store(hundredths=WHOLE), key, {**key, "country": "NO"}) == ["v2", "v2"]


def test_raising_a_percentage_takes_the_version_from_nobody(evaluator: Evaluator) -> None:
    """Whoever has the version has it at each higher percentage; their number is what chance would give."""
    groups = {
        hundredths: chosen(evaluator, hundredths=hundredths) for hundredths in (0, 50, 1000, 5005, WHOLE)
    }
    for (_, fewer), (hundredths, more) in pairwise(groups.items()):
        assert fewer <= more
        share = hundredths / WHOLE
        error = math.sqrt(len(USERS) * share * (1 - share))
        assert abs(len(more) - len(USERS) * share) <= 4 * error
    assert (groups[0], groups[WHOLE]) == (set(), set(USERS))


def test_another_version_begins_with_other_people(evaluator: Evaluator) -> None:
    """Two rollouts at 10 % share the users that chance would share."""
    shared = chosen(evaluator) & chosen(evaluator, version="v4")
    expected = len(USERS) / 100
    assert abs(len(shared) - expected) < 4 * math.sqrt(expected)


@given(flags=shadowing, context=contexts)
def test_every_shadow_is_accepted(evaluator: Evaluator, flags: FlagStore, context: dict[str, object]) -> None:
    """Any shadow fits flagd's schema; a request is mirrored or not, and its version is what it was."""
    assert flags.shadow is not None
    answer = evaluator.ask(dump_flags(flags), [context], flag="shadow")
    assert answer.said == []
    assert set(answer.versions) <= {"", flags.shadow.version}
    without = replace(flags, shadow=None)
    assert versions(evaluator, flags, context) == versions(evaluator, without, context)


@given(flags=shadowing, key=keys)
def test_a_shadow_s_ends_are_as_a_pod_decides(evaluator: Evaluator, flags: FlagStore, key: str) -> None:
    """No request at 0 %, every one at 100 %, and never one without an id."""
    assert flags.shadow is not None
    for hundredths, all_of_them in ((0, ""), (WHOLE, flags.shadow.version)):
        edge = dump_flags(replace(flags, shadow=replace(flags.shadow, hundredths=hundredths)))
        asked: list[Mapping[str, object]] = [{"targetingKey": key}, {}, {"targetingKey": ""}]
        answer = evaluator.ask(edge, asked, flag="shadow")
        assert (answer.versions, answer.said) == ([all_of_them if key else "", "", ""], [])


@pytest.mark.parametrize("vector", SHADOW_VECTORS["vectors"], ids=lambda vector: vector["id"][:24])
def test_other_requests_are_in_a_shadow_s_share(evaluator: Evaluator, vector: Mapping[str, Any]) -> None:
    """Both hash the plain text here, too: what is mirrored between the ends a pod alone can tell."""
    document, key = canonical_json(SHADOW_VECTORS["document"]), vector["id"]
    plain = mmh3.mmh3_32_uintdigest(f"ml/churn:shadow:v4:{key}:".encode()) * WHOLE >> 32
    answer = evaluator.ask(document, [{"targetingKey": key}], flag="shadow")
    assert (answer.versions, answer.said) == (["v4" if plain < 5005 else ""], [])


def bucket_of_plain_text(key: str) -> int:
    """Return the user's hundredth of a percent where the text is hashed as it is, in UTF-8."""
    text = f"{ROLLOUT.bucket_start}{key}{BUCKET_END}"
    return mmh3.mmh3_32_uintdigest(text.encode()) * WHOLE >> 32


def has_bucket(evaluator: Evaluator, key: str, bucket: int) -> bool:
    """Tell whether the version begins for this user exactly above so many hundredths of a percent."""
    edges = [
        versions(evaluator, store(hundredths=edge), {"targetingKey": key}) for edge in (bucket, bucket + 1)
    ]
    return edges == [["v2"], ["v3"]]


@pytest.mark.parametrize(
    ("language", "release"), [("go", "0.17.0"), ("javascript", "4.0.1")], ids=["go", "javascript"]
)
def test_which_release_is_asked(language: str, release: str) -> None:
    """What is said below, and in docs/flags.md, is of these releases; ask anew when they are others."""
    assert evaluators.RELEASES[language]() == release


@pytest.mark.parametrize("vector", VECTORS["vectors"], ids=lambda vector: ascii(vector["key"])[:24])
def test_other_users_are_in_a_percentage(evaluator: Evaluator, vector: Mapping[str, Any]) -> None:
    """Both hash the plain text, so a user has another place; JavaScript hashes other bytes than UTF-8's."""
    key, plain = vector["key"], bucket_of_plain_text(vector["key"])
    assert plain != vector["bucket"]
    utf8 = evaluator.language == "go" or key.isascii()
    assert (has_bucket(evaluator, key, plain), has_bucket(evaluator, key, vector["bucket"])) == (utf8, False)


@given(key=st.text(st.characters(max_codepoint=127), min_size=1, max_size=80))
def test_ascii_keys_have_their_place_by_plain_text(evaluator: Evaluator, key: str) -> None:
    """Blanks at the ends of a key and control characters count, as they do for a pod."""
    assert has_bucket(evaluator, key, bucket_of_plain_text(key))


def test_a_percentage_differs_by_what_chance_would_give(evaluator: Evaluator) -> None:
    """At 10 %, of the users whom pods give the version one in ten has it from this evaluator too."""
    router = compile_router(store())
    tenth = {user for user in USERS if router.choose(user, {}).version == "v3"}
    expected = len(USERS) / 100
    assert abs(len(tenth & chosen(evaluator)) - expected) < 4 * math.sqrt(expected)


@pytest.mark.parametrize(
    ("value", "understood_by"),
    [
        ("17", {"go", "javascript", "python"}),
        (["x", "17"], {"go", "javascript", "python"}),
        (17, {"go"}),
        ([17.0], {"go"}),
        (True, set()),
    ],
    ids=["digits", "texts", "integer", "floats", "boolean"],
)
def test_attributes_that_are_no_texts(evaluator: Evaluator, value: object, understood_by: set[str]) -> None:
    """A pod spells integers and booleans before it looks at a rule: others must be given them as texts."""
    flags = store(hundredths=0, rules=(Rule(name="rule", attribute="x", values=("17", "true")),))
    assert ours(flags, {"x": value}) == "v3"
    spelled = {"x": list(spellings(value))}
    assert versions(evaluator, flags, {"x": value}, spelled) == [
        "v3" if evaluator.language in understood_by else "v2",
        "v3",
    ]
    in_python = flagd_version(dump_flags(flags), key=None, attributes={"x": value})
    assert (in_python == "v3") == ("python" in understood_by)
