"""What a pod has counted of a rollout's users, for the gate: users in buckets, in two arms."""

import binascii
import zlib
from base64 import b64decode, b64encode
from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from typing import Annotated, ClassVar, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field, PlainSerializer, PlainValidator

from greenroom_runtime.contract import names

BUCKETS = 4096
"""How many buckets an arm's users are hashed into."""
WIDE_BUCKETS = 16_384
"""How many buckets a shadow's users are hashed into: each is a trial, and 0.1 % takes thousands of them."""
SLOW_QUANTILE = 0.75
"""An answer of production's above this quantile of its own is slow; one of the rollout's, where it is above
the flag store's ``latency_ratio`` times that."""
EPOCH_PATTERN = r"[A-Za-z0-9@./_#:-]{0,200}"
_INT64_MAX = 2**63 - 1
_Kind = TypeVar("_Kind", bound="Bitmap")


@dataclass(frozen=True, slots=True)
class Bitmap:
    """A set of buckets. Its text is short while few are set, or nearly all."""

    buckets: ClassVar[int] = BUCKETS
    bits: int = 0
    """Bit ``n`` is bucket ``n``."""

    def __post_init__(self) -> None:
        """Refuse buckets that there are not."""
        if not 0 <= self.bits < 1 << self.buckets:
            message = f"a bitmap has {self.buckets} buckets and no others"
            raise ValueError(message)

    @classmethod
    def of(cls, buckets: Iterable[int]) -> Self:
        """Return the set of these buckets."""
        bits = 0
        for bucket in buckets:
            bits |= 1 << bucket
        return cls(bits)

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read what ``str`` writes; ValueError for anything else, in bounded time and memory."""
        if not text:
            return cls()
        size, longest = cls.buckets // 8, cls.buckets // 4  # of the text of any, whatever compressor wrote it
        if len(text) > longest:
            message = f"a bitmap's text has at most {longest} characters"
            raise ValueError(message)
        try:
            packed = zlib.decompressobj()
            content = packed.decompress(b64decode(text, validate=True), size + 1)
        except (binascii.Error, zlib.error) as error:
            message = f"a bitmap is zlib's output in Base64: {error}"
            raise ValueError(message) from error
        if len(content) != size or not packed.eof or packed.unused_data:
            message = f"a bitmap has {size} bytes and nothing after them"
            raise ValueError(message)
        return cls(int.from_bytes(content, "little"))

    def __str__(self) -> str:
        if not self.bits:
            return ""
        return b64encode(zlib.compress(self.bits.to_bytes(self.buckets // 8, "little"), 9)).decode()

    def __repr__(self) -> str:
        # Python refuses to write integers of so many digits, and then the report cannot be shown at all.
        return f"{type(self).__name__}({self.count} of {self.buckets})"

    def __or__(self, other: Self) -> Self:
        return type(self)(self.bits | other.bits)

    def __and__(self, other: Self) -> Self:
        return type(self)(self.bits & other.bits)

    def __sub__(self, other: Self) -> Self:
        return type(self)(self.bits & ~other.bits)

    @property
    def count(self) -> int:
        """How many buckets are set."""
        return self.bits.bit_count()


class WideBitmap(Bitmap):
    """A set of a shadow's buckets."""

    __slots__ = ()
    buckets: ClassVar[int] = WIDE_BUCKETS


def _read(kind: type[_Kind], value: object) -> _Kind:
    if type(value) is kind:
        return value
    if isinstance(value, str):
        return kind.parse(value)
    raise ValueError("a bitmap is a text")  # which pydantic reports; it lets a TypeError pass


BitmapText = Annotated[Bitmap, PlainValidator(partial(_read, Bitmap)), PlainSerializer(str, return_type=str)]
"""A bitmap that is a text in JSON."""
WideBitmapText = Annotated[
    WideBitmap, PlainValidator(partial(_read, WideBitmap)), PlainSerializer(str, return_type=str)
]


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
