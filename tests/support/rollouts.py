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
)

VECTORS: dict[str, Any] = json.loads(
    (Path(__file__).parents[1] / "contract" / "rollout_vectors.json").read_text(encoding="utf-8")
)
"""A released document with a rollout, and where flagd puts twelve users. It is never edited."""
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
shares = st.one_of(st.sampled_from([0, 1, 50, 1000, WHOLE - 1, WHOLE]), st.integers(0, WHOLE))


def rollouts(version: str) -> st.SearchStrategy[Rollout]:
    """Draw rollouts of this version; only those that count evidence have a latency ratio of their own."""
    return _rollouts(version) | _rollouts(
        version,
        epoch=st.from_regex(r"[A-Za-z0-9@./_#:-]{1,20}", fullmatch=True),
        latency_ratio=st.floats(1, 100, exclude_min=True),
    )


def _rollouts(version: str, **more: st.SearchStrategy[Any]) -> st.SearchStrategy[Rollout]:
    return st.builds(
        Rollout,
        version=st.just(version),
        hundredths=shares,
        salt=st.from_regex(r"[a-z]([-a-z0-9]{0,8}[a-z0-9])?/[a-z]([-a-z0-9]{0,8}[a-z0-9])?", fullmatch=True),
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


def flagd_version(document: str, *, key: str | None, attributes: dict[str, Any]) -> str:
    """Return the version that flagd's own evaluator chooses for this user."""
    core = FlagdCore()
    core.set_flags(document)
    return core.resolve_string_value("version", "", EvaluationContext(key, attributes)).value
