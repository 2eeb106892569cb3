"""Where frames arrive: a Unix SEQPACKET socket beside the serving process, or TCP from other pods.

What waits is bounded. While there is no room nothing is read, so that the sender's socket fills and it
drops and counts: it never waits for us.
"""

import asyncio
import secrets
import socket
import struct
from collections import deque
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import structlog

from greenroom_runtime.shadow.frame import LENGTH_BYTES, MAX_PACKET, Frame, FrameError, decode_frames

log = structlog.get_logger(__name__)

LOOK_SECONDS: Final = 1.0
_BACKLOG: Final = 64
_MOST_CONNECTIONS: Final = 256
_MOST_BYTES: Final = 1024 * 1024
"""Of packets that wait; their frames take up to ten times that of memory."""
_READ_BYTES: Final = MAX_PACKET + 1
_KEEP_ALIVE: Final = ((socket.TCP_KEEPIDLE, 30), (socket.TCP_KEEPINTVL, 10), (socket.TCP_KEEPCNT, 3))
"""Seconds, seconds and times: a pod that vanished says no goodbye."""


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where to listen."""

    path: Path | None = None
    """Of the Unix socket; None for TCP."""
    host: str = ""
    port: int = 0


def parse_address(address: str, *, host: str, port: int) -> Place:
    """Return where the shadow listens that is reached by this address; ValueError for none that there is.

    Of a ``tcp:`` address name and port are the Service's: the process listens on its own.
    """
    kind, _, rest = address.partition(":")
    if kind == "unix" and rest.startswith("/"):
        return Place(path=Path(rest))
    if kind == "tcp" and rest:
        return Place(host=host, port=port)
    message = f"the shadow's address is {address!r}, not unix:/PATH or tcp:HOST:PORT"
    raise ValueError(message)


@dataclass(eq=False)
class _Sender:
    """One connection."""

    socket: socket.socket
    stream: bool
    rest: bytearray = field(default_factory=bytearray)
    """Of a stream, the part of a frame that has arrived."""


class Inbox:
    """Takes frames until it is full. Belongs to one event loop."""

    def __init__(self, place: Place, *, most_bytes: int = _MOST_BYTES) -> None:
        self._place = place
        self._most_bytes = most_bytes
        self._listener: socket.socket | None = None
        self._inode = (0, 0)
        self._senders: set[_Sender] = set()
        self._frames: deque[tuple[Frame, int]] = deque()
        self._bytes = 0
        self._full = False
        self._arrived = asyncio.Event()
        self._complaint = ""
        self._refused_before = False
        self.refused = 0
        """Connections closed since what they sent was no frame."""

    @property
    def connections(self) -> int:
        """How many serving processes are connected."""
        return len(self._senders)

    async def watch(self) -> None:
        """Listen for ever, and anew whenever the socket's file is gone or another's."""
        while True:
            try:
                self._look()
                self._complaint = ""
            except OSError as error:
                if str(error) != self._complaint:
                    log.warning("no frames can be taken, it is tried again", error=str(error))
                self._complaint = str(error)
            await asyncio.sleep(LOOK_SECONDS)

    async def take(self, most: int) -> list[Frame]:
        """Return some frames, in the order in which they came, as soon as there is one."""
        while not self._frames:
            self._arrived.clear()
            await self._arrived.wait()
        taken = [self._frames.popleft() for _ in range(min(most, len(self._frames)))]
        self._bytes -= sum(weight for _, weight in taken)
        if self._full and self._bytes <= self._most_bytes // 2:
            self._full = False
            for sender in self._senders:
                self._read_from(sender)
        return [frame for frame, _ in taken]

    def close(self) -> None:
        """Take no more."""
        for sender in list(self._senders):
            self._hang_up(sender)
        self._stop_listening()
        if self._place.path is not None and self._identify() == self._inode:
            with suppress(OSError):
                self._place.path.unlink()

    def _look(self) -> None:
        if self._listener is not None and (self._place.path is None or self._identify() == self._inode):
            return
        if self._listener is not None:
            log.warning(
                "the socket's file is gone or another's, so it is made anew", path=str(self._place.path)
            )
        self._stop_listening()
        listener = self._listen_unix(self._place.path) if self._place.path else self._listen_tcp()
        listener.setblocking(False)
        self._listener = listener
        self._inode = self._identify()
        asyncio.get_running_loop().add_reader(listener, self._accept, listener)
        log.info(
            "taking frames", address=listener.getsockname() if not self._place.path else str(self._place.path)
        )

    def _listen_unix(self, path: Path) -> socket.socket:
        """Bind under another name and rename: whoever connects meets the old socket or the new one."""
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            listener.bind(str(temporary))
            temporary.chmod(0o600)  # the same user's: nobody else says what production answered
            listener.listen(_BACKLOG)
            temporary.rename(path)
        except OSError:
            listener.close()
            temporary.unlink(missing_ok=True)
            raise
        return listener

    def _listen_tcp(self) -> socket.socket:
        family = socket.AF_INET6 if ":" in self._place.host else socket.AF_INET
        return socket.create_server(
            (self._place.host, self._place.port), family=family, backlog=_BACKLOG, reuse_port=False
        )

    def _identify(self) -> tuple[int, int]:
        if self._place.path is None:
            return 0, 0
        try:
            found = self._place.path.lstat()
        except OSError:
            return -1, -1
        return found.st_dev, found.st_ino

    def _stop_listening(self) -> None:
        if self._listener is not None:
            asyncio.get_running_loop().remove_reader(self._listener)
            self._listener.close()
            self._listener = None

    def _accept(self, listener: socket.socket) -> None:
        try:
            connection, _ = listener.accept()
        except OSError:  # it has gone again, or there is no descriptor left
            return
        if len(self._senders) >= _MOST_CONNECTIONS:
            self._refuse(f"more than {_MOST_CONNECTIONS} connections")
            connection.close()
            return
        connection.setblocking(False)
        stream = self._place.path is None
        if stream:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            for option, value in _KEEP_ALIVE:
                connection.setsockopt(socket.IPPROTO_TCP, option, value)
        sender = _Sender(connection, stream)
        self._senders.add(sender)
        if not self._full:
            self._read_from(sender)

    def _read_from(self, sender: _Sender) -> None:
        asyncio.get_running_loop().add_reader(sender.socket, self._receive, sender)

    def _receive(self, sender: _Sender) -> None:
        try:
            content = sender.socket.recv(_READ_BYTES)
        except BlockingIOError:
            return
        except OSError:
            content = b""
        if not content:
            self._hang_up(sender)
            return
        try:
            self._keep(_whole_frames(sender, content))
        except FrameError as error:
            self._refuse(str(error))
            self._hang_up(sender)

    def _keep(self, content: bytes) -> None:
        """Put the frames of the content behind the others; those before one that cannot be read count."""
        frames: list[Frame] = []
        try:
            frames.extend(decode_frames(content))
        finally:
            weight = len(content) // max(1, len(frames)) + 1
            self._frames.extend((frame, weight) for frame in frames)
            self._bytes += weight * len(frames)
            if frames:
                self._arrived.set()
        if self._bytes > self._most_bytes and not self._full:
            self._full = True
            for sender in self._senders:
                asyncio.get_running_loop().remove_reader(sender.socket)

    def _hang_up(self, sender: _Sender) -> None:
        asyncio.get_running_loop().remove_reader(sender.socket)
        sender.socket.close()
        self._senders.discard(sender)

    def _refuse(self, why: str) -> None:
        self.refused += 1
        if not self._refused_before:
            log.warning("a connection is closed since it sends no frames of this release", error=why)
        self._refused_before = True


def _whole_frames(sender: _Sender, content: bytes) -> bytes:
    """Return what can be decoded now; of a stream the rest waits. FrameError for what can be no frame."""
    if not sender.stream:
        if len(content) > MAX_PACKET:
            message = f"a packet of more than {MAX_PACKET} bytes"
            raise FrameError(message)
        return content
    sender.rest += content
    end = 0
    while len(sender.rest) - end >= LENGTH_BYTES:
        (length,) = struct.unpack_from(">I", sender.rest, end)
        if length + LENGTH_BYTES > MAX_PACKET:
            message = f"a frame of {length} bytes is larger than a packet of {MAX_PACKET}"
            raise FrameError(message)
        if end + LENGTH_BYTES + length > len(sender.rest):
            break
        end += LENGTH_BYTES + length
    whole = bytes(sender.rest[:end])
    del sender.rest[:end]
    return whole
