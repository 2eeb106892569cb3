"""What the parts of a flag store are held to, and the error that says what is wrong with one."""

import re
from collections import Counter
from collections.abc import Sequence
from reprlib import repr as short

from greenroom_runtime.contract import names
from greenroom_runtime.contract.evidence import EPOCH_PATTERN

WHOLE = 10_000
"""The hundredths of a percent in 100 %: what the weights of a percentage add up to."""
BUCKET_END = ":"
"""What follows the key in the text that is hashed: Go's ``cat`` drops blanks at the ends."""
TARGETING_KEY = "targetingKey"
"""The name that flagd has for what is hashed; no field may have it."""
KEY_OF_TARGETING = {"var": TARGETING_KEY}
MAX_RATIO = 100.0
DEFAULT_KEY = "user_id"
MAX_VALUE_LENGTH = 64
FIELD_PATTERN = "^[A-Za-z_][-_A-Za-z0-9]{0,62}$"
"""No dots, which mean a path to JSONLogic."""
FIELD = re.compile(f"(?!{TARGETING_KEY}$){FIELD_PATTERN}")
FIELD_FORM = f"a name of at most 63 letters, digits, - and _, other than {TARGETING_KEY}"
VALUE = re.compile(rf"[^\x00-\x1f\x7f\ud800-\udfff]{{1,{MAX_VALUE_LENGTH}}}")
VALUE_FORM = f"1 to {MAX_VALUE_LENGTH} characters without control characters"
SALT = re.compile(r"[a-z0-9]([-./a-z0-9]{0,126}[a-z0-9])?")
SALT_FORM = "namespace/name"
VERSION = re.compile(names.VERSION_PATTERN)
EPOCH = re.compile(EPOCH_PATTERN)
EPOCH_FORM = "at most 200 letters, digits and @./_#:-"


class FlagDocumentError(ValueError):
    """The document is no flag store that this release understands; the last good one stays in force."""


def demand_match(pattern: re.Pattern[str], text: str, *, what: str, form: str) -> None:
    """Refuse a text that is not of the form."""
    if not pattern.fullmatch(text):
        message = f"{what} is {short(text)}, not {form}"
        raise FlagDocumentError(message)


def demand_unique(texts: Sequence[str], *, what: str) -> None:
    """Refuse what is there twice."""
    for text, count in Counter(texts).items():
        if count > 1:
            message = f"{what} {short(text)} is there {count} times"
            raise FlagDocumentError(message)


def demand_share(hundredths: int, *, what: str) -> None:
    """Refuse a share that is none."""
    if not 0 <= hundredths <= WHOLE:
        message = f"the {what}'s share is {short(hundredths)} hundredths of a percent, not 0 to {WHOLE}"
        raise FlagDocumentError(message)


def demand_ratio(ratio: float, *, what: str) -> None:
    """Refuse a latency ratio that says nothing; NaN is one."""
    if not 1 < ratio <= MAX_RATIO:
        message = f"the {what}'s latency ratio is {ratio}, not above 1 and at most 100"
        raise FlagDocumentError(message)
