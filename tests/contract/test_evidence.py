"""Evidence between pods and operator: sets of buckets, their text, and what is none."""

import zlib
from base64 import b64encode

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from greenroom_runtime.contract.evidence import BUCKETS, ArmEvidence, Bitmap, RolloutEvidence

buckets = st.sets(st.integers(0, BUCKETS - 1), max_size=40)
bitmaps = st.one_of(
    buckets.map(Bitmap.of),
    buckets.map(lambda missing: Bitmap((1 << BUCKETS) - 1) - Bitmap.of(missing)),
    st.binary(min_size=BUCKETS // 8, max_size=BUCKETS // 8).map(
        lambda content: Bitmap(int.from_bytes(content, "little"))
    ),
)


def packed(content: bytes) -> str:
    """Return these bytes as a bitmap's text has them, whether they are a bitmap or not."""
    return b64encode(zlib.compress(content)).decode()


@given(one=buckets, other=buckets)
def test_bitmaps_are_sets(one: set[int], other: set[int]) -> None:
    """Union, intersection, difference and size are those of sets."""
    first, second = Bitmap.of(one), Bitmap.of(other)
    assert first | second == Bitmap.of(one | other)
    assert first & second == Bitmap.of(one & other)
    assert first - second == Bitmap.of(one - other)
    assert first.count == len(one)


@given(bitmap=bitmaps)
def test_bitmaps_survive_the_round_trip(bitmap: Bitmap) -> None:
    """Any set of buckets is read back from its text, which is at most 712 characters long."""
    text = str(bitmap)
    assert Bitmap.parse(text) == bitmap
    assert len(text) <= 712


@pytest.mark.parametrize("bits", [-1, 1 << BUCKETS])
def test_there_are_no_other_buckets(bits: int) -> None:
    """A bucket that no hash leads to is refused."""
    with pytest.raises(ValueError, match="4096 buckets"):
        Bitmap(bits)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (" ", "zlib's output in Base64"),
        ("!", "zlib's output in Base64"),
        ("é", "ASCII"),
        ("AAAA", "zlib's output in Base64"),
        (packed(b"\x01" * 511), "512 bytes"),
        (packed(b"\x01" * 513), "512 bytes"),
        (packed(bytes(10**5)), "512 bytes"),
        (b64encode(zlib.compress(b"\x01" * 512) + b"\x00").decode(), "512 bytes"),
        (b64encode(zlib.compress(b"\x01" * 512)[:-1]).decode(), "512 bytes"),
        ("A" * 1025, "1024 characters"),
    ],
    ids=lambda text: text[:16],
)
def test_what_is_no_bitmap_is_told(text: str, words: str) -> None:
    """Garbage, too short, too long, what inflates to far more, and something after the end: ValueError."""
    with pytest.raises(ValueError, match=words):
        Bitmap.parse(text)


@given(text=st.text(max_size=40) | st.binary(max_size=40).map(packed))
def test_garbage_is_no_bitmap(text: str) -> None:
    """Whatever the text, reading it ends in a bitmap or in ValueError."""
    try:
        assert isinstance(Bitmap.parse(text), Bitmap)
    except ValueError:
        assert text


def test_evidence_survives_the_round_trip() -> None:
    """What a pod writes the operator reads, in strict mode too; fields of a newer runtime are ignored."""
    told = RolloutEvidence(
        epoch="v3@1",
        version="v3",
        rollout=ArmEvidence(seen=Bitmap.of([0, 4095]), failed=Bitmap.of([0]), requests=7, errors=1),
    )
    text = told.model_dump_json()
    assert RolloutEvidence.model_validate_json(text, strict=True) == told
    newer = text.replace('{"epoch"', '{"invented_later":1,"epoch"')
    assert RolloutEvidence.model_validate_json(newer, strict=True) == told


@pytest.mark.parametrize("arm", [{"seen": None}, {"slow": []}, {"failed": "AAAA"}, {"errors": -1}])
def test_what_is_no_evidence_is_told(arm: dict[str, object]) -> None:
    """One part that is none spoils the whole, as a ValidationError that names it."""
    with pytest.raises(ValidationError, match=next(iter(arm))):
        RolloutEvidence.model_validate({"epoch": "v3", "version": "v3", "production": arm})
