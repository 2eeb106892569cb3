"""What a pod has counted of a rollout's users, for the gate: users in buckets, in two arms."""

import binascii
import zlib
from base64 import b64decode, b64encode
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, PlainSerializer, PlainValidator

from greenroom_runtime.contract import names

BUCKETS = 4096
"""How many buckets an arm's users are hashed into."""
SLOW_QUANTILE = 0.75
"""An answer of production's above this quantile of its own is slow; one of the rollout's, where it is above
the flag store's ``latency_ratio`` times that."""
EPOCH_PATTERN = r"[A-Za-z0-9@./_#:-]{0,200}"
_BYTES = BUCKETS // 8
_TEXT_LENGTH = 1024
"""More than the text of any bitmap has, whatever compressor wrote it."""
_INT64_MAX = 2**63 - 1


@dataclass(frozen=True, slots=True)
class Bitmap:
    """A set of buckets. Its text is short while few are set, or nearly all."""

    bits: int = 0
    """Bit ``n`` is bucket ``n``."""

    def __post_init__(self) -> None:
        """Refuse buckets that there are not."""
        if not 0 <= self.bits < 1 << BUCKETS:
            raise ValueError(f"a bitmap has {BUCKETS} buckets and no others")

    @classmethod
    def of(cls, buckets: Iterable[int]) -> "Bitmap":
        """Return the set of these buckets."""
        bits = 0
        for bucket in buckets:
            bits |= 1 << bucket
        return cls(bits)

    @classmethod
    def parse(cls, text: str) -> "Bitmap":
        """Read what ``str`` writes; ValueError for anything else, in bounded time and memory."""
        if not text:
            return cls()
        if len(text) > _TEXT_LENGTH:
            raise ValueError(f"a bitmap's text has at most {_TEXT_LENGTH} characters")
        try:
            packed = zlib.decompressobj()
            content = packed.decompress(b64decode(text, validate=True), _BYTES + 1)
        except (binascii.Error, zlib.error) as error:
            raise ValueError(f"a bitmap is zlib's output in Base64: {error}") from error
        if len(content) != _BYTES or not packed.eof or packed.unused_data:
            raise ValueError(f"a bitmap has {_BYTES} bytes and nothing after them")
        return cls(int.from_bytes(content, "little"))

    def __str__(self) -> str:
        if not self.bits:
            return ""
        return b64encode(zlib.compress(self.bits.to_bytes(_BYTES, "little"), 9)).decode()

    def __or__(self, other: "Bitmap") -> "Bitmap":
        return Bitmap(self.bits | other.bits)

    def __and__(self, other: "Bitmap") -> "Bitmap":
        return Bitmap(self.bits & other.bits)

    def __sub__(self, other: "Bitmap") -> "Bitmap":
        return Bitmap(self.bits & ~other.bits)

    @property
    def count(self) -> int:
        """How many buckets are set."""
        return self.bits.bit_count()


def _read(value: object) -> Bitmap:
    if isinstance(value, Bitmap):
        return value
    if isinstance(value, str):
        return Bitmap.parse(value)
    raise ValueError("a bitmap is a text")  # which pydantic reports; it lets a TypeError pass


BitmapText = Annotated[Bitmap, PlainValidator(_read), PlainSerializer(str, return_type=str)]
"""A bitmap that is a text in JSON."""


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore", use_attribute_docstrings=True)


class ArmEvidence(_Part):
    """What was counted of the users of one version, since the epoch began in this process.

    Bitmaps are of users who were sampled, so that both arms have as many of them; the two numbers are of
    all users of the arm.
    """

    seen: BitmapText = Bitmap()
    """Buckets whose users were answered, well or with a 5xx."""
    failed: BitmapText = Bitmap()
    """Buckets whose users were answered with a 5xx at least once."""
    timed: BitmapText = Bitmap()
    """Buckets whose first answer was timed: those answered well once it was known what is slow."""
    slow: BitmapText = Bitmap()
    """Buckets whose first timed answer was slow."""
    requests: int = Field(default=0, ge=0, le=_INT64_MAX)
    """Answers, well or with a 5xx; what the request itself was refused for is none."""
    errors: int = Field(default=0, ge=0, le=_INT64_MAX)
    """Answers with a 5xx."""


class RolloutEvidence(_Part):
    """What was counted of a rollout's two arms."""

    epoch: str = Field(min_length=1, pattern=f"^{EPOCH_PATTERN}$")
    """The flag store's, which names what is counted."""
    version: str = Field(max_length=names.VERSION_MAX_LENGTH, pattern=names.VERSION_PATTERN)
    """The rollout's version."""
    rollout: ArmEvidence = ArmEvidence()
    """Users who have the version by the percentage, not by a rule."""
    production: ArmEvidence = ArmEvidence()
    """Users with a key who have production's by the percentage."""
