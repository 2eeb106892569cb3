"""Frames: what goes in comes out, and nothing else is read."""

import math
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from greenroom_runtime.shadow.frame import MAX_PACKET, Frame, FrameError, decode_frames, encode_frame

values = st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False) | st.text()
frames = st.builds(
    Frame,
    features=st.dictionaries(st.text(max_size=20), values, max_size=5),
    prediction=values,
    probabilities=st.none() | st.lists(st.floats(0, 1), max_size=4),
    classes=st.none() | st.lists(values, max_size=4),
    time=st.floats(0, 1e10),
    seconds=st.floats(0, 10),
    segments=st.lists(st.integers(0, 31), max_size=4),
)


def frame(**changes: Any) -> Frame:
    """Return a frame."""
    known = Frame(
        epoch="v4/v2#1",
        id="r1",
        key="user-1",
        time=1.5,
        version="v2",
        features={"age": 41.0, "country": "NO"},
        prediction="yes",
        probabilities=[0.25, 0.75],
        classes=["no", "yes"],
        error="",
        seconds=0.001,
        segments=[0],
    )
    return msgspec.structs.replace(known, **changes)


@given(st.lists(frames, max_size=4))
def test_frames_survive_the_packet(sent: list[Frame]) -> None:
    """Several frames in one packet arrive whole, in order, each value with its type."""
    arrived = list(decode_frames(b"".join(map(encode_frame, sent))))
    assert repr(arrived) == repr(sent)


def test_what_is_not_a_number_arrives() -> None:
    """NaN and infinity stay what they are: the shadow gets features exactly as production did."""
    (arrived,) = decode_frames(encode_frame(frame(features={"a": math.nan, "b": -math.inf})))
    assert math.isnan(arrived.features["a"])  # type: ignore[arg-type]
    assert arrived.features["b"] == -math.inf


def test_a_frame_larger_than_a_packet_is_refused() -> None:
    """A frame that no single send could take is refused before it is sent."""
    with pytest.raises(FrameError, match="larger than a packet"):
        encode_frame(frame(features={"text": "x" * MAX_PACKET}))


@pytest.mark.parametrize("value", ["\ud800", 2**64, -(2**63) - 1])
def test_what_cannot_be_written_is_refused(value: Any) -> None:
    """Half of a surrogate pair and an integer of more than 64 bits are refused, not sent changed."""
    with pytest.raises(FrameError, match="cannot be written"):
        encode_frame(frame(features={"a": value}))


@given(st.binary(max_size=200))
def test_garbage_is_no_frame(packet: bytes) -> None:
    """Whatever arrives is a frame or a FrameError, nothing else."""
    try:
        for arrived in decode_frames(packet):
            assert isinstance(arrived, Frame)
    except FrameError:
        pass


@pytest.mark.parametrize("cut", [1, 3, 4, 5, 40])
def test_a_torn_packet_is_told_after_what_was_whole(cut: int) -> None:
    """The frames before a tear are read, the tear is told."""
    packet = encode_frame(frame()) + encode_frame(frame(id="r2"))[:cut]
    found = decode_frames(packet)
    assert next(found).id == "r1"
    with pytest.raises(FrameError):
        next(found)
