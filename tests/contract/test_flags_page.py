"""docs/flags.md says what the code does: its document, its vector, its limits, and its program runs."""

import json
import re
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import mmh3
import pytest

from greenroom_runtime.contract import flags
from greenroom_runtime.contract.canonical import canonical_json
from greenroom_runtime.contract.flags import dump_flags, parse_flags
from greenroom_runtime.contract.shadow_flag import MAX_SEGMENTS
from greenroom_runtime.routing.router import MAX_ITEMS, MAX_KEY_LENGTH
from tests.support import evaluators
from tests.support.rollouts import LARGEST, SHADOW_VECTORS, VECTORS

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "flags.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    """Return the page's blocks in a language; in none where it is empty."""
    fenced = (block.partition("\n") for block in PAGE.split("```")[1::2])
    return [text for named, _, text in fenced if named == language]


def test_the_document_is_a_released_one() -> None:
    """What is explained is what is written, under the revision that is told."""
    text, _ = blocks("json")
    assert json.loads(text) == VECTORS["document"]
    assert dump_flags(parse_flags(text)) == canonical_json(VECTORS["document"])


def test_the_shadow_s_flag_is_a_released_one() -> None:
    """The same of the flag that stands beside it; its metadata have a row each, and no others have one."""
    _, text = blocks("json")
    assert json.loads(text) == SHADOW_VECTORS["document"]["flags"]["shadow"]
    table = PAGE.split("| of the shadow, in `metadata` |")[1].split("\n\n")[0]
    told = re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE)
    assert sorted(told) == sorted(
        name for name in SHADOW_VECTORS["document"]["metadata"] if name.startswith("shadow")
    )


def test_every_member_of_the_metadata_is_explained() -> None:
    """Each has a row, and no row is of another one."""
    told = re.findall(r"^\| `(\w+)` \|", PAGE.split("| in `metadata` |")[1].split("\n\n")[0], re.MULTILINE)
    assert sorted(told) == sorted(VECTORS["document"]["metadata"])


def test_the_program_prints_what_the_page_says(tmp_path: Path) -> None:
    """The lines that ask flagd run as they stand, beside the document, and give the printed versions."""
    (program,) = blocks("python")
    (tmp_path / "flags.json").write_text(canonical_json(VECTORS["document"]), encoding="utf-8")
    command = [sys.executable, "-c", program]
    ended = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert f"prints `{ended.stdout.strip()}`" in PAGE


@pytest.mark.parametrize(
    ("start", "head", "vector"),
    [
        ("bytes  73", b"\x73", next(one for one in VECTORS["vectors"] if one["key"] == "user-1")),
        ("bytes  78", b"\x78\x1b", next(one for one in SHADOW_VECTORS["vectors"] if one["id"] == "order-7")),
    ],
    ids=["rollout", "shadow"],
)
def test_the_worked_place_is_computed_as_told(start: str, head: bytes, vector: dict[str, Any]) -> None:
    """Text, bytes, hash and place follow from each other, and who is placed is one of the twelve."""
    (worked,) = (block for block in blocks("") if start in block)
    lines = dict(re.findall(r"^(\w+) +(.+?)(?:  .*)?$", worked, re.MULTILINE))
    data = bytes.fromhex(lines["bytes"])
    assert data == head + lines["text"].encode()
    assert mmh3.mmh3_32_uintdigest(data) == int(lines["hash"])
    assert int(lines["hash"]) * flags.WHOLE >> 32 == int(lines["place"])
    assert (vector["hash"], vector["bucket"]) == (int(lines["hash"]), int(lines["place"]))


@pytest.mark.parametrize(
    "limit",
    [
        flags.MAX_RULES,
        flags.MAX_VALUES,
        flags.MAX_VALUE_LENGTH,
        len(LARGEST.rules[0].attribute),
        MAX_KEY_LENGTH,
        MAX_ITEMS,
        MAX_SEGMENTS,
    ],
)
def test_every_limit_is_told(limit: int) -> None:
    """Each number of the code stands in the table."""
    assert f" | {limit:,}" in PAGE.split("## Limits")[1].split("\n## ")[0]


def test_the_evaluators_are_those_that_are_asked() -> None:
    """The releases whose behaviour is told are the installed ones."""
    assert f"`openfeature-flagd-core` {version('openfeature-flagd-core')} |" in PAGE
    assert f"`flagd/core` {evaluators.RELEASES['go']()}:" in PAGE
    assert f"`@openfeature/flagd-core` {evaluators.RELEASES['javascript']()} |" in PAGE
