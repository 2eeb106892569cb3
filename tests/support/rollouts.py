"""Flag stores with a rollout, drawn at random, and flagd's own reading of them."""

import json
from pathlib import Path
from typing import Any

from hypothesis import strategies as st
from openfeature.contrib.tools.flagd.core import FlagdCore
from openfeature.evaluation_context import EvaluationContext

from greenroom_runtime.contract import names
from greenroom_runtime.contract.flags import (
    DEFAULT_KEY,
    MAX_RULES,
    MAX_VALUES,
    WHOLE,
    FlagStore,
    Rollout,
    Rule,
    Shadow,
)
from greenroom_runtime.contract.shadow_flag import MAX_SEGMENTS

_CONTRACT = Path(__file__).parents[1] / "contract"
VECTORS: dict[str, Any] = json.loads((_CONTRACT / "rollout_vectors.json").read_text(encoding="utf-8"))
"""A released document with a rollout, and where flagd puts twelve users. It is never edited."""
SHADOW_VECTORS: dict[str, Any] = json.loads((_CONTRACT / "shadow_vectors.json").read_text(encoding="utf-8"))
"""A released document with a shadow, and where flagd puts twelve requests. It is never edited."""
LARGEST = Rollout(
    version="v3",
    hundredths=1,
    salt="ml/churn",
    rules=tuple(
        Rule(
            name=f"{number:02}".ljust(63, "r"),
            attribute=f"a{number:02}".ljust(63, "a"),
            values=tuple("😀" * 61 + f"{value:03}" for value in range(MAX_VALUES)),
        )
        for number in range(MAX_RULES)
    ),
)
"""All limits reached at once, in characters of four bytes."""

versions = st.from_regex(names.VERSION_PATTERN, fullmatch=True).filter(
    lambda name: len(name) <= names.VERSION_MAX_LENGTH
)
attributes = st.sampled_from(["cohorts", "country", "plan", "_x-1", DEFAULT_KEY, "account"])
values = st.one_of(
    st.sampled_from(["beta", "NO", "SE", "17", "true", "user-1", " ", "ø", '"\\', "😀"]),
    st.text(
        st.characters(exclude_categories=["Cc", "Cs"]),
        min_size=1,
        max_size=64,
    ),
)
rules = st.builds(
    Rule,
    name=st.from_regex(r"[A-Za-z0-9]([-_.A-Za-z0-9]{0,8}[A-Za-z0-9])?", fullmatch=True),
    attribute=attributes,
    values=st.lists(values, min_size=1, max_size=5, unique=True).map(tuple),
)
_salts = st.from_regex(r"[a-z]([-a-z0-9]{0,8}[a-z0-9])?/[a-z]([-a-z0-9]{0,8}[a-z0-9])?", fullmatch=True)
_epochs = st.from_regex(r"[A-Za-z0-9@./_#:-]{1,20}", fullmatch=True)
_ratios = st.floats(1, 100, exclude_min=True)
shares = st.one_of(st.sampled_from([0, 1, 50, 1000, WHOLE - 1, WHOLE]), st.integers(0, WHOLE))


def rollouts(version: str) -> st.SearchStrategy[Rollout]:
    """Draw rollouts of this version; only those that count evidence have a latency ratio of their own."""
    return _rollouts(version) | _rollouts(
        version,
        epoch=_epochs,
        latency_ratio=_ratios,
    )


def _rollouts(version: str, **more: st.SearchStrategy[Any]) -> st.SearchStrategy[Rollout]:
    return st.builds(
        Rollout,
        version=st.just(version),
        hundredths=shares,
        salt=_salts,
        key=st.sampled_from([DEFAULT_KEY, "account"]),
        rules=st.lists(rules, max_size=4, unique_by=lambda rule: rule.name).map(tuple),
        **more,
    )


rolling = st.lists(versions, min_size=2, max_size=4, unique=True).flatmap(
    lambda resident: st.builds(
        FlagStore,
        production=st.just(resident[0]),
        resident=st.just(tuple(resident)),
        rollout=rollouts(resident[1]),
    )
)
"""Flag stores with a rollout."""


def shadows(version: str) -> st.SearchStrategy[Shadow]:
    """Draw shadows of this version."""
    return st.builds(
        Shadow,
        version=st.just(version),
        hundredths=shares,
        salt=_salts,
        epoch=_epochs,
        latency_ratio=_ratios,
        segments=st.lists(st.tuples(attributes, values), max_size=MAX_SEGMENTS, unique=True).map(tuple),
    )


shadowing = st.lists(versions, min_size=3, max_size=3, unique=True).flatmap(
    lambda named: st.builds(
        FlagStore,
        production=st.just(named[0]),
        resident=st.just((named[0], named[1])),
        rollout=st.none() | rollouts(named[1]),
        shadow=shadows(named[1]) | shadows(named[2]),
    )
)
"""Flag stores with a shadow, that of a rollout's version or of one that no pod holds."""


def flagd_version(
    document: str, *, key: str | None, attributes: dict[str, Any], flag: str = "version"
) -> str:
    """Return the version that flagd's own evaluator chooses for this user, or for this request's id."""
    core = FlagdCore()
    core.set_flags(document)
    return core.resolve_string_value(flag, "?", EvaluationContext(key, attributes)).value
