"""Sending production's answers to the shadow, without anybody waiting for it.

The request path appends to a bounded queue. A few milliseconds later, when answers have been sent, a turn
of the event loop encodes what has come together and sends it in packets; it is bounded in time and leaves the
rest to the next turn. Whatever the shadow does, frames are sent or dropped, and counted.
"""

import asyncio
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import msgspec
import structlog

from greenroom_runtime.contract.bundle import Value
from greenroom_runtime.contract.config import ShadowConfig
from greenroom_runtime.contract.flags import FlagStore
from greenroom_runtime.contract.report import MirrorReport
from greenroom_runtime.models.session import Prediction
from greenroom_runtime.shadow.frame import MAX_PACKET, Frame, FrameError, encode_frame
from greenroom_runtime.shadow.link import Link, LinkError, open_link
from greenroom_runtime.shadow.target import Target, compile_target

log = structlog.get_logger(__name__)

QUEUE_FRAMES: Final = 65_536
"""Most that wait, however small."""
_FRAME_BYTES = 512
_FEATURE_BYTES = 64
"""About what a frame, and each of its features, takes of memory besides the request's own text."""
_GATHER_SECONDS = 0.005
"""From the first answer to the turn that sends it, and those that have come by then."""
_TURN_SECONDS = 0.000_25
"""Longest that one turn keeps the event loop from answers."""
_BETWEEN_SECONDS = 0.001
"""From one turn to the next, while there is more."""
_FULL_SECONDS = 0.01
"""To the next attempt where there was no room."""
_CONNECTING_SECONDS = 0.05
"""To the next look whether there is a connection."""
_AWAY_SECONDS = 0.25
"""The same after an attempt has failed, whether there is anything to send or not."""
_TOLD_SECONDS = 10.0
"""How long after the last drop its reason is told."""
_SCALARS = frozenset({bool, int, float, str, type(None)})

Schedule = Callable[[float, Callable[[], None]], object]


def _call_later(seconds: float, turn: Callable[[], None]) -> object:
    return asyncio.get_running_loop().call_later(seconds, turn)


class Mirror:
    """Takes production's answers, never waits and never raises, and accounts for each.

    ``offered = sampled_out + sent + dropped + pending``, at any time. Belongs to one event loop.
    """

    def __init__(
        self,
        link: Link,
        *,
        queue_bytes: int,
        queue_frames: int = QUEUE_FRAMES,
        schedule: Schedule = _call_later,
        clock: Callable[[], float] = time.monotonic,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        """Send nothing before a flag store names a shadow."""
        self.offered = 0
        self.sampled_out = 0
        self.sent = 0
        """Taken by the kernel: what a shadow that dies has not read is among them."""
        self.dropped = 0
        self._link = link
        self._queue_bytes = queue_bytes
        self._queue_frames = queue_frames
        self._schedule = schedule
        self._clock = clock
        self._wall_clock = wall_clock
        self._queue: deque[tuple[Frame, int]] = deque()
        self._bytes = 0
        """Of memory that the queue keeps, estimated."""
        self._packet = memoryview(b"")
        """What is left of the packet that is on its way."""
        self._packed = 0
        """Its frames."""
        self._is_due = False
        """Whether a turn is on its way."""
        self._takes = False
        """Whether there is a shadow, and this is not the end."""
        self._sends = False
        """The same, or the end has not come yet for what waits."""
        self._has_ended = False
        self._is_away = False
        """Whether the last attempt to connect has failed: until one succeeds nothing is kept."""
        self._is_cut = False
        """Whether there has been no connection since one has ended or could not be made."""
        self._has_refused = False
        """Whether answers were dropped since the last turn, for a full queue."""
        self._has_lost = False
        """The same, for want of a connection."""
        self._error = ""
        self._error_until = 0.0

    @property
    def pending(self) -> int:
        """How many frames are on their way."""
        return len(self._queue) + self._packed

    def obey(self, flags: FlagStore) -> Target | None:
        """Return whom to send what to from now on; where there is nobody, what waits is dropped."""
        target = compile_target(flags)
        if self._has_ended:
            return target
        self._takes = self._sends = target is not None
        if target is None:
            self._stop()
        return target

    def offer(
        self,
        target: Target,
        *,
        request_id: str,
        key: str,
        context: Mapping[str, Any],
        version: str,
        features: Mapping[str, Any],
        prediction: Prediction | None,
        classes: Sequence[Value] | None,
        error: str,
        seconds: float,
        size: int,
    ) -> None:
        """Take one answer in about a microsecond, or count why not. Of a full queue the newest is dropped.

        So a request pays least when there is most to do, and what waits is in the order of its answers.
        ``size`` is that of the row's share of the request's body in bytes.
        """
        self.offered += 1
        try:
            if not target.takes(request_id):
                self.sampled_out += 1
                return
            if self._is_away or not self._takes:
                self.dropped += 1
                self._has_lost = True
                return
            weight = _FRAME_BYTES + _FEATURE_BYTES * len(features) + size
            waiting = self._bytes + weight
            if waiting > self._queue_bytes or len(self._queue) >= self._queue_frames:
                self.dropped += 1
                self._has_refused = True
                return
            answer, probabilities = (
                (None, None) if prediction is None else (prediction.prediction, prediction.probabilities)
            )
            frame = Frame(
                target.epoch,
                request_id,
                key or request_id,
                self._wall_clock(),
                version,
                features,  # type: ignore[arg-type]  # any mapping is encoded alike
                answer,
                probabilities,
                None if probabilities is None else classes,  # type: ignore[arg-type]  # a tuple is encoded alike
                error,
                seconds,
                # Not left for later: rows of a batch share a context, which no row's size accounts for.
                target.segments_of(key, context) if target.segments else [],
            )
        except Exception:  # noqa: BLE001 an answer never fails over its mirror
            self.dropped += 1
            return
        self._queue.append((frame, weight))
        self._bytes = waiting
        if not self._is_due:
            self._is_due = True
            self._schedule(_GATHER_SECONDS, self._turn)

    def report(self) -> MirrorReport | None:
        """Return the accounts, and why frames are dropped where they are; None without a shadow."""
        return self.accounts() if self._takes else None

    def accounts(self) -> MirrorReport:
        """Return the same, whether there is a shadow or not."""
        return MirrorReport(
            offered=self.offered,
            sampled_out=self.sampled_out,
            sent=self.sent,
            dropped=self.dropped,
            pending=self.pending,
            error=self._error[:512] if self._clock() < self._error_until else "",
        )

    async def close(self, deadline_seconds: float) -> None:
        """Send what waits, drop what cannot be sent in time, and end."""
        self._takes, self._has_ended = False, True
        ends = self._clock() + deadline_seconds
        while self.pending and self._clock() < ends:  # noqa: ASYNC110 turns of the loop empty it
            await asyncio.sleep(_BETWEEN_SECONDS)
        self._stop()
        self._drop_all()

    def _stop(self) -> None:
        """Send no more; what waits is dropped by the turns that are due."""
        self._sends = self._is_away = False
        self._link.close()
        self._drop_packet()

    def _turn(self) -> None:
        self._is_due = False
        if self._has_refused:
            self._has_refused = False
            self._complain(
                f"the shadow takes frames more slowly than requests come: {self.pending} wait, further ones "
                "are dropped; give it more CPU, or mirror a smaller percentage"
            )
        try:
            pause = self._send() if self._sends else self._drop_some()
        except Exception:
            log.exception("a defect: frames are dropped")
            self._drop_all()
            pause = _AWAY_SECONDS
        if (self.pending or self._is_away) and not self._is_due:
            self._is_due = True
            self._schedule(pause, self._turn)

    def _send(self) -> float:
        """Send what this turn may; return after how many seconds the next one is due."""
        try:
            if not self._link.connected():
                return self._drop_some() if self._is_away else _CONNECTING_SECONDS
        except LinkError as error:
            # Nobody knows for how long: what would be kept is old when the shadow comes.
            self._is_away = True
            self._lose(str(error))
            return self._drop_some()
        self._is_away = False
        if self._is_cut:
            self._is_cut, self._error = False, ""
        ends = self._clock() + _TURN_SECONDS
        try:
            while self._packed or self._pack(ends):
                taken = self._link.send(self._packet)
                if not taken:
                    return _FULL_SECONDS
                self._packet = self._packet[taken:]
                if not self._packet:
                    self.sent += self._packed
                    self._packed = 0
                if self._clock() >= ends:
                    break
        except LinkError as error:
            self._has_lost = True
            self._lose(str(error))
        return _BETWEEN_SECONDS

    def _pack(self, ends: float) -> int:
        """Make the next packet of what waits, as far as time allows; return its frames."""
        queue, parts, size = self._queue, [], 0
        while queue:
            frame, weight = queue[0]
            try:
                encoded = _encode(frame)
            except FrameError as error:
                self._complain(str(error))
                encoded = b""
                self.dropped += 1
            if size + len(encoded) > MAX_PACKET:
                break
            queue.popleft()
            self._bytes -= weight
            if encoded:
                parts.append(encoded)
                size += len(encoded)
            if self._clock() >= ends:
                break
        self._packet = memoryview(b"".join(parts))
        self._packed = len(parts)
        return self._packed

    def _lose(self, why: str) -> None:
        """Drop the packet that is on its way, and say why where that or anything else was lost."""
        self._is_cut = True
        if self._has_lost or self.pending:
            self._has_lost = False
            self._complain(why)
        self._drop_packet()

    def _drop_some(self) -> float:
        """Drop what waits, as far as this turn's time allows; return after how long the next one is due."""
        ends = self._clock() + _TURN_SECONDS
        while self._queue:
            self._bytes -= self._queue.popleft()[1]
            self.dropped += 1
            if self._clock() >= ends:
                return _BETWEEN_SECONDS
        return _AWAY_SECONDS

    def _drop_packet(self) -> None:
        self.dropped += self._packed
        self._packed = 0
        self._packet = memoryview(b"")

    def _drop_all(self) -> None:
        self._drop_packet()
        self.dropped += len(self._queue)
        self._queue.clear()
        self._bytes = 0

    def _complain(self, text: str) -> None:
        """Tell why frames are dropped, and log it unless that goes on already."""
        now = self._clock()
        if now >= self._error_until:
            log.warning("frames for the shadow are dropped", error=text)
        self._error = text
        self._error_until = now + _TOLD_SECONDS


def _encode(frame: Frame) -> bytes:
    try:
        if not _SCALARS.issuperset(map(type, frame.features.values())):
            # Of another version, so production has not looked at it: a list would spoil the whole packet.
            features = {name: value for name, value in frame.features.items() if type(value) in _SCALARS}
            frame = msgspec.structs.replace(frame, features=features)
        return encode_frame(frame)
    except FrameError:
        raise
    except Exception as error:  # whatever a client has made up
        message = f"a frame cannot be written: {type(error).__name__}"
        raise FrameError(message) from error


def open_mirror(settings: ShadowConfig) -> Mirror:
    """Return the mirror of these settings; where they name no address it says so, and drops."""
    return Mirror(open_link(settings.address), queue_bytes=settings.queue_bytes)
