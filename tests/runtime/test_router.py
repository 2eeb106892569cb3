"""Who gets which version: the compiled router decides as flagd does, and keeps its promises to users."""

import math
import os
import statistics
import subprocess
import sys
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from itertools import pairwise

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from greenroom_runtime.contract.canonical import canonical_json
from greenroom_runtime.contract.flags import WHOLE, FlagStore, Rollout, Rule, dump_flags, parse_flags
from greenroom_runtime.routing.router import (
    MAX_ITEMS,
    MAX_KEY_LENGTH,
    Decision,
    Router,
    compile_router,
    spellings,
    sticky_key,
)
from tests.support.rollouts import VECTORS, attributes, flagd_version, rolling, values

ROLLOUT = Rollout(version="v3", hundredths=1000, salt="ml/churn")
NORDICS = Rule(name="nordics", attribute="country", values=("NO", "SE"))
USERS = [f"user-{number}" for number in range(20_000)]

keys = st.one_of(
    st.sampled_from(
        ["", "user-1", "17", " ", "\x00", "a" * 10, "a" * 11, "é", "e\u0301", "😀" * 300, "\ud800"]
    ),
    st.text(st.characters(), max_size=40),
)
texts = st.one_of(values, st.text(st.characters(), max_size=70))
anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | texts | st.just("x" * 100_000),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=2),
    max_leaves=8,
)


def router(**changes: object) -> Router:
    """Compile a rollout of v3 beside production v2."""
    rollout = replace(ROLLOUT, **changes)  # type: ignore[arg-type]
    store = FlagStore(production="v2", resident=("v2", rollout.version), rollout=rollout)
    return compile_router(parse_flags(dump_flags(store)))


@cache
def _compiled(hundredths: int) -> Router:
    return compile_router(
        FlagStore(production="v2", resident=("v2", "v3"), rollout=replace(ROLLOUT, hundredths=hundredths))
    )


def chosen(router: Router) -> set[str]:
    """Return the users who get the rollout's version by percentage."""
    return {user for user in USERS if router.choose(user, {}).reason == "percentage"}


@given(store=rolling, key=keys, context=st.dictionaries(attributes, anything, max_size=4))
@example(
    store=FlagStore(
        production="v2", resident=("v2", "v3"), rollout=replace(ROLLOUT, hundredths=WHOLE, rules=(NORDICS,))
    ),
    key="\ud800",
    context={"country": [["NO"], {"NO": "NO"}, None, math.nan, "no", "NORWAY"]},
)
def test_the_router_decides_as_flagd_does(store: FlagStore, key: str, context: dict[str, object]) -> None:
    """Any rollout, any user, any context: the version is the one of flagd's own evaluator."""
    document = dump_flags(store)
    spelled: dict[str, object] = {name: list(spellings(value)) for name, value in context.items()}
    decision = compile_router(parse_flags(document)).choose(key, context)
    assert decision.version == flagd_version(document, key=key, attributes=spelled)


@given(
    store=rolling,
    key=keys,
    context=st.dictionaries(attributes, texts | st.lists(texts, max_size=4) | st.none(), max_size=4),
)
def test_texts_need_no_spelling(store: FlagStore, key: str, context: dict[str, object]) -> None:
    """Of attributes that are texts or lists of texts, flagd thinks the same without our help."""
    document = dump_flags(store)
    decision = compile_router(store).choose(key, context)
    assert decision.version == flagd_version(document, key=key, attributes=context)


@given(store=rolling, key=keys, context=st.dictionaries(attributes, anything, max_size=4))
def test_the_reason_explains_the_version(store: FlagStore, key: str, context: dict[str, object]) -> None:
    """Default is production's reason and nobody else's; a rule that is named is one that matches."""
    assert store.rollout is not None
    decision = compile_router(store).choose(key, context)
    assert (decision.reason == "default") == (decision.version == store.production)
    matching = [
        f"rule:{rule.name}"
        for rule in store.rollout.rules
        if set(rule.values)
        & set(spellings(key if rule.attribute == store.rollout.key else context.get(rule.attribute)))
    ]
    assert decision.reason in (matching[:1] or ["default", "percentage"])


@pytest.mark.parametrize("vector", VECTORS["vectors"], ids=lambda vector: ascii(vector["key"])[:24])
def test_golden_vectors(vector: Mapping[str, str | int]) -> None:
    """Twelve users are where the third `fractional` has always put them, to the hundredth of a percent."""
    document = canonical_json(VECTORS["document"])
    key, bucket = str(vector["key"]), int(vector["bucket"])
    store = parse_flags(document)
    assert store.rollout is not None
    assert compile_router(store).choose(key, {}).version == vector["version"]
    assert flagd_version(document, key=key, attributes={}) == vector["version"]
    assert int(vector["hash"]) * WHOLE >> 32 == bucket
    for hundredths, version in ((bucket, "v2"), (bucket + 1, "v3")):
        edge = replace(store, rollout=replace(store.rollout, hundredths=hundredths))
        assert compile_router(edge).choose(key, {}).version == version
        assert flagd_version(dump_flags(edge), key=key, attributes={}) == version


@given(key=keys, first=st.integers(0, WHOLE), second=st.integers(0, WHOLE))
def test_raising_a_percentage_takes_the_version_from_nobody(key: str, first: int, second: int) -> None:
    """Who has the rollout's version at a percentage has it at every higher one."""
    low, high = sorted((first, second))
    if router(hundredths=low).choose(key, {}).version == "v3":
        assert router(hundredths=high).choose(key, {}).version == "v3"


def test_percentages_are_exact_at_the_ends_and_close_between() -> None:
    """Nobody at 0 %, everybody at 100 %; between, the count of users is within four standard errors."""
    counts = {
        hundredths: len(chosen(router(hundredths=hundredths))) for hundredths in (0, 50, 1000, 5000, WHOLE)
    }
    assert (counts[0], counts[WHOLE]) == (0, len(USERS))
    for hundredths in (50, 1000, 5000):
        share = hundredths / WHOLE
        error = math.sqrt(len(USERS) * share * (1 - share))
        assert abs(counts[hundredths] - len(USERS) * share) < 4 * error


@given(key=st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=MAX_KEY_LENGTH))
def test_a_user_has_one_hundredth_of_a_percent(key: str) -> None:
    """Of all 10,001 percentages there is one from which on the user has the version, and below it never."""
    had = [_compiled(hundredths).choose(key, {}).version == "v3" for hundredths in range(WHOLE + 1)]
    place = had.index(True)
    assert had == [False] * place + [True] * (WHOLE + 1 - place)


def test_users_are_spread_evenly() -> None:
    """Each twentieth of the range has its share of twenty thousand users, by a chi-squared test at 0.1 %."""
    sizes = [len(chosen(router(hundredths=hundredths))) for hundredths in range(0, WHOLE + 1, 500)]
    expected = len(USERS) / 20
    deviations = [(more - fewer - expected) ** 2 / expected for fewer, more in pairwise(sizes)]
    assert sum(deviations) < 43.82


@given(percentages=st.lists(st.integers(0, WHOLE), min_size=2, max_size=12))
def test_no_sequence_of_percentages_forgets_a_user(percentages: list[int]) -> None:
    """Up, down and up again: who has the version depends on today's percentage and on nothing before."""
    groups = [
        {user for user in USERS[:200] if _compiled(hundredths).choose(user, {}).version == "v3"}
        for hundredths in percentages
    ]
    for (before, fewer), (after, more) in pairwise(zip(percentages, groups, strict=True)):
        assert fewer <= more if before <= after else more <= fewer
    by_percentage: dict[int, set[str]] = {}
    for hundredths, group in zip(percentages, groups, strict=True):
        assert by_percentage.setdefault(hundredths, group) == group


_IN_A_PROCESS = """
import sys
from greenroom_runtime.contract.flags import parse_flags
from greenroom_runtime.routing.router import compile_router

router = compile_router(parse_flags(sys.stdin.read()))
print(*(f"user-{number}" for number in range(20_000) if router.choose(f"user-{number}", {}).version == "v3"))
"""


@pytest.mark.parametrize("seed", ["0", "1", "random"])
def test_users_are_the_same_in_every_process(seed: str) -> None:
    """Nothing of a process decides: neither its memory nor the seed of Python's own hashes."""
    ended = subprocess.run(
        [sys.executable, "-c", _IN_A_PROCESS],
        input=dump_flags(FlagStore(production="v2", resident=("v2", "v3"), rollout=ROLLOUT)),
        env={**os.environ, "PYTHONHASHSEED": seed},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    assert set(ended.stdout.split()) == chosen(router())


def test_nobody_is_always_first() -> None:
    """Over twenty rollouts at 10 % each user is in as many as chance gives: two on average, variance 1.8."""
    times = Counter(user for number in range(20) for user in chosen(router(version=f"v{number + 3}")))
    counts = [times[user] for user in USERS]
    assert abs(statistics.mean(counts) - 2) < 4 * math.sqrt(1.8 / len(USERS))
    assert abs(statistics.pvariance(counts) - 1.8) < 4 * 1.8 * math.sqrt(2 / len(USERS))


@pytest.mark.parametrize(
    "change",
    [{"version": "v4"}, {"salt": "ml/spam"}, {"salt": "other/churn"}],
    ids=["version", "name", "namespace"],
)
def test_another_rollout_begins_with_other_people(change: dict[str, str]) -> None:
    """Version, name and namespace each shuffle the users: both groups share what chance would share."""
    tenth, other = chosen(router()), chosen(router(**change))
    expected = len(USERS) / 100
    assert abs(len(tenth & other) - expected) < 4 * math.sqrt(expected)


def test_users_stay_where_they_are() -> None:
    """Rules, other versions and another document around it change nothing for those in the percentage."""
    tenth = chosen(router())
    store = FlagStore(
        production="v2",
        resident=("v1", "v2", "v3"),
        previous="v1",
        first="pod-0",
        attempt="x",
        rollout=ROLLOUT,
    )
    assert chosen(compile_router(store)) == tenth
    assert chosen(router(rules=(NORDICS,), key="account")) == tenth


def test_rules_come_before_the_percentage_and_in_their_order() -> None:
    """The first rule that matches is the reason, also where there is no key and at 0 %."""
    by_name = Rule(name="by-name", attribute="user_id", values=("u1",))
    beta = Rule(name="beta", attribute="cohorts", values=("beta",))
    routes = router(hundredths=0, rules=(NORDICS, beta, by_name))
    assert routes.choose("u1", {"country": "SE", "cohorts": ["beta"]}) == Decision("v3", "rule:nordics")
    assert routes.choose("u1", {"country": "DE", "cohorts": ["x", "beta"]}) == Decision("v3", "rule:beta")
    assert routes.choose("u1", {"user_id": "u2"}) == Decision("v3", "rule:by-name")
    assert routes.choose("u2", {"user_id": "u1"}) == Decision("v2", "default")
    assert routes.choose("", {"country": "NO"}) == Decision("v3", "rule:nordics")
    everyone = router(hundredths=WHOLE, rules=(NORDICS,))
    assert everyone.choose("u1", {"country": "NO"}) == Decision("v3", "rule:nordics")
    assert everyone.choose("u1", {"country": "DE"}) == Decision("v3", "percentage")


def test_the_sticky_key_has_its_name_in_rules_too() -> None:
    """A rule on the sticky field looks at the key itself; what another rollout's key is called is context."""
    by_account = Rule(name="by-account", attribute="account", values=("a1",))
    by_user = Rule(name="by-user", attribute="user_id", values=("u1",))
    store = FlagStore(
        production="v2",
        resident=("v2", "v3"),
        rollout=replace(ROLLOUT, hundredths=0, key="account", rules=(by_account, by_user)),
    )
    for key, context, reason in (
        ("a1", {}, "rule:by-account"),
        ("a2", {"account": "a1"}, "default"),
        ("u1", {}, "default"),
        ("a2", {"user_id": "u1"}, "rule:by-user"),
    ):
        decision = compile_router(store).choose(key, context)
        assert decision.reason == reason
        assert decision.version == flagd_version(dump_flags(store), key=key, attributes=dict(context))


def test_without_a_key_there_is_no_percentage() -> None:
    """Even at 100 % a request without a sticky key gets production."""
    assert router(hundredths=WHOLE).choose("", {}) == Decision("v2", "default")


def test_without_a_rollout_there_is_one_answer() -> None:
    """Production is all that can be chosen, and each request is given the same object."""
    routes = compile_router(FlagStore(production="v2", resident=("v2", "v3")))
    assert (routes.routable, routes.key) == (frozenset({"v2"}), "user_id")
    assert routes.choose("u1", {}) is routes.choose("u2", {"country": "NO"}) is routes.default
    assert routes.default == Decision("v2", "default")


def test_a_router_tells_what_it_may_choose() -> None:
    """Production and the rollout's version, and the name of the field to look for in a request."""
    assert router(key="account").routable == {"v2", "v3"}
    assert router(key="account").key == "account"


@pytest.mark.parametrize(
    ("value", "matching"),
    [
        ("17", "17"),
        (17, "17"),
        (17.0, "17"),
        (-0.0, "0"),
        (2**64 - 1, "18446744073709551615"),
        ("true", "true"),
        (True, "true"),
        ([False], "false"),
        ((1, "NO"), "NO"),
        (["x"] * (MAX_ITEMS - 1) + ["NO"], "NO"),
        ("é", "é"),
        ("x" * 64, "x" * 64),
    ],
    ids=repr,
)
def test_a_rule_matches_by_spelling(value: object, matching: str) -> None:
    """A text is itself, an integer its digits, a boolean its JSON name, and a list any of its items."""
    routes = router(hundredths=0, rules=(Rule(name="rule", attribute="x", values=("other", matching)),))
    assert routes.choose("u1", {"x": value}) == Decision("v3", "rule:rule")


@pytest.mark.parametrize(
    "value",
    [
        None,
        "",
        "no",
        "NO ",
        "NORWAY",
        "e\u0301",
        "\ud800",
        "NO" * 10_000_000,
        0.5,
        math.nan,
        math.inf,
        1e300,
        2**64,
        10**5000,
        True,
        {"NO": "NO"},
        [["NO"]],
        [{"country": "NO"}],
        ["x"] * MAX_ITEMS + ["NO"],
        [None] * 1_000_000,
        pytest.param(object(), id="object"),
        b"NO",
    ],
    ids=lambda value: ascii(value)[:24] if value != 10**5000 else "huge",
)
def test_everything_else_matches_no_rule(value: object) -> None:
    """Garbage in a context is nobody's rule, and never an exception."""
    routes = router(
        hundredths=0, rules=(Rule(name="rule", attribute="country", values=("NO", "é", "0.5", "1")),)
    )
    assert routes.choose("u1", {"country": value}) == Decision("v2", "default")


@pytest.mark.parametrize(
    ("value", "key"),
    [
        ("u1", "u1"),
        (" U1 ", " U1 "),
        (17, "17"),
        (17.0, "17"),
        ("17", "17"),
        (-1, "-1"),
        ("x" * MAX_KEY_LENGTH, "x" * MAX_KEY_LENGTH),
        ("x" * (MAX_KEY_LENGTH + 1), ""),
        ("", ""),
        (None, ""),
        (True, ""),
        (1.5, ""),
        (math.nan, ""),
        (10**5000, ""),
        (["u1"], ""),
        ({"id": "u1"}, ""),
    ],
    ids=lambda value: ascii(value)[:24] if value != 10**5000 else "huge",
)
def test_sticky_keys(value: object, key: str) -> None:
    """Texts as they are and integers by their digits; what is no name of a user is no key."""
    assert sticky_key(value) == key
