"""What travels from the serving process to the shadow: frames, several in one packet.

A packet is one message of a SEQPACKET socket, or follows the one before on a TCP connection. Each frame in it
is MessagePack (which, unlike JSON, keeps NaN, infinities and the kind of a number) after its length in four
bytes, so that a packet needs no encoding of its own and a stream can be cut anywhere.
"""

from collections.abc import Iterator
from typing import Final

import msgspec

from greenroom_runtime.contract.bundle import Value

MAX_PACKET: Final = 64 * 1024
"""Bytes of one packet, and so of one frame: what one non-blocking ``send`` takes as a whole."""
LENGTH_BYTES: Final = 4


class FrameError(ValueError):
    """What arrived is no frame."""


class Frame(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """One row that production answered, or failed to."""

    epoch: str
    """Of the flag store's shadow when it was answered."""
    id: str
    """The request's; ``id/3`` for the row with index 3 of a batch."""
    key: str
    """Whose trial it is: the sticky key, or the id where there is none."""
    time: float
    """When it was answered, in seconds since 1970, UTC."""
    version: str
    """Production's, that answered."""
    features: dict[str, Value]
    """As production's model was given them, fetched ones included."""
    prediction: Value
    probabilities: list[float] | None
    """None for a regressor, and where production failed."""
    classes: list[Value] | None
    """The labels of the probabilities; None where they are numbered from 0."""
    error: str
    """What production's model failed with; empty where it answered."""
    seconds: float
    """How long production's model took for it, its wait for others included."""
    segments: list[int]
    """Which of the flag store's segments it belongs to."""


_encoder: Final = msgspec.msgpack.Encoder()
_decoder: Final = msgspec.msgpack.Decoder(Frame)


def encode_frame(frame: Frame) -> bytes:
    """Return the frame after its length; FrameError where it is larger than a packet or unwritable."""
    try:
        encoded = _encoder.encode(frame)
    except (UnicodeEncodeError, OverflowError, TypeError) as error:  # half a surrogate pair, a huge integer
        message = f"a frame cannot be written: {error}"
        raise FrameError(message) from error
    if len(encoded) + LENGTH_BYTES > MAX_PACKET:
        message = f"a frame of {len(encoded)} bytes is larger than a packet of {MAX_PACKET}"
        raise FrameError(message)
    return len(encoded).to_bytes(LENGTH_BYTES, "big") + encoded


def decode_frames(packet: bytes) -> Iterator[Frame]:
    """Return the packet's frames; FrameError for anything else, after those that were well."""
    view, start = memoryview(packet), 0
    while start < len(view):
        begin = start + LENGTH_BYTES
        end = begin + int.from_bytes(view[start:begin], "big")
        if begin > len(view) or end > len(view):
            raise FrameError("a packet ends within a frame")
        try:
            yield _decoder.decode(view[begin:end])
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            message = f"a frame cannot be read: {error}"
            raise FrameError(message) from error
        start = end
