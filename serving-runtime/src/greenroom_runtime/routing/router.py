"""Which version answers a request: the flag store's rollout, compiled once per revision.

Evaluating the document itself by JSONLogic costs as much as a prediction. What is compiled decides as
flagd does: rules by JSONLogic's ``some`` and ``in``, the percentage by the third form of flagd's
``fractional``, MurmurHash3 (x86, 32 bits, seed 0) over canonical CBOR (RFC 8949, section 4.2.1).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import mmh3

from greenroom_runtime.contract.flags import (
    BUCKET_END,
    DEFAULT_KEY,
    MAX_VALUE_LENGTH,
    WHOLE,
    FlagStore,
    Rollout,
)

MAX_KEY_LENGTH = 1024
"""Characters; a longer key is none. Every request's is hashed."""
MAX_ITEMS = 256
"""A list of more items matches no rule: a client must not decide how long a request is looked at."""


@dataclass(frozen=True, slots=True)
class Decision:
    """One version, and why."""

    version: str
    reason: str
    """``default``, ``percentage``, or ``rule:`` and the rule's name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Rule:
    attribute: str
    """Empty for the sticky key."""
    values: frozenset[str]
    decision: Decision


@dataclass(frozen=True, slots=True, kw_only=True)
class _Share:
    start: str
    hundredths: int
    rules: tuple[_Rule, ...]
    decision: Decision


@dataclass(frozen=True, slots=True, kw_only=True)
class Router:
    """One revision's decisions."""

    routable: frozenset[str]
    """The versions that it may choose."""
    key: str
    """The field of the request that is sticky."""
    default: Decision
    """Production's."""
    _share: _Share | None

    def choose(self, key: str, context: Mapping[str, object]) -> Decision:
        """Decide for the user with this key, as `sticky_key` returns it, and this context.

        Whatever the context holds, there is an answer; a rule matches as `spellings` says.
        """
        share = self._share
        if share is None:
            return self.default
        for rule in share.rules:
            if _matches(rule.values, context.get(rule.attribute) if rule.attribute else key):
                return rule.decision
        if not key:
            return self.default
        place = find_place(share.start, key)
        return share.decision if place < share.hundredths else self.default


def compile_router(flags: FlagStore) -> Router:
    """Prepare the decisions of one document."""
    rollout = flags.rollout
    return Router(
        routable=flags.routable,
        key=rollout.key if rollout else DEFAULT_KEY,
        default=Decision(flags.production, "default"),
        _share=_compile_share(rollout) if rollout else None,
    )


def find_place(start: str, key: str) -> int:
    """Return where between 0 and 9,999 hundredths of a percent a user is; 10,000 for who has no place.

    ``start`` is the rollout's ``bucket_start``. A share above the place takes the user in.
    """
    try:
        text = f"{start}{key}{BUCKET_END}".encode()
    except UnicodeEncodeError:  # half of a surrogate pair: no text that could be hashed
        return WHOLE
    return int(mmh3.mmh3_32_uintdigest(_text_head(len(text)) + text) * WHOLE >> 32)


def sticky_key(value: object) -> str:
    """Return the text that a request's sticky key is hashed as, empty for none.

    A text is itself, byte for byte: no case, blank or Unicode form is changed. An integer is its decimal
    digits, so 17, 17.0 and "17" are one user. Anything else, and more than `MAX_KEY_LENGTH` characters,
    is no key.
    """
    if isinstance(value, str):
        return value if len(value) <= MAX_KEY_LENGTH else ""
    return "" if isinstance(value, bool) else _spell(value)


def spellings(value: object) -> Sequence[str]:
    """Return the texts by which rules know an attribute; one of them must be among a rule's values.

    A text is itself, an integer (17.0 is one, as for flagd) its decimal digits, a boolean ``true`` or
    ``false``, a list its items'. Anything else has none: null, fractions, objects, lists in lists, and
    what is longer than any value.
    """
    if not isinstance(value, list | tuple):
        return (_spell(value),)
    return [_spell(item) for item in value] if len(value) <= MAX_ITEMS else ()


def _spell(value: object) -> str:
    if isinstance(value, str):
        return value if len(value) <= MAX_VALUE_LENGTH else ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, int) and -(2**63) <= value < 2**64:
        return str(value)
    return ""


def _matches(values: frozenset[str], found: object) -> bool:
    return found is not None and not values.isdisjoint(spellings(found))


def _compile_share(rollout: Rollout) -> _Share:
    return _Share(
        start=rollout.bucket_start,
        hundredths=rollout.hundredths,
        rules=tuple(
            _Rule(
                attribute="" if rule.attribute == rollout.key else rule.attribute,
                values=frozenset(rule.values),
                decision=Decision(rollout.version, f"rule:{rule.name}"),
            )
            for rule in rollout.rules
        ),
        decision=Decision(rollout.version, "percentage"),
    )


@lru_cache(maxsize=1024)
def _text_head(length: int) -> bytes:
    """Return what CBOR writes before a text of so many bytes: major type 3 and the shortest length."""
    if length < 24:  # noqa: PLR2004 RFC 8949, section 3: up to 23 the length is in the first byte itself
        return bytes((0x60 | length,))
    size = next(size for size in (1, 2, 4, 8) if length < 1 << 8 * size)
    return bytes((0x78 + size.bit_length() - 1,)) + length.to_bytes(size, "big")
