"""How packets reach the shadow: one non-blocking send each, over a Unix socket or TCP.

Nothing here waits. The event loop's own ways are not used: uvloop's ``sock_connect`` reports connections to a
full backlog that do not exist, and a transport's ``write`` buffers without bound.
"""

import os
import socket
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import closing, suppress
from typing import Final, Protocol

RECONNECT_SECONDS: Final = 1.0
"""Between two attempts to connect, and between two looks at the file of a Unix socket."""
_CONNECT_SECONDS = 1.0
"""How long an attempt over TCP may take, once the name is resolved."""
_SEND_BUFFER_BYTES = 256 * 1024
"""What a TCP connection may hold that the shadow has not taken; the kernel doubles it for its own needs."""
_DEAD_SECONDS = 10
"""After which a peer that acknowledges nothing is dead, and another attempt may reach another one."""
_PATH_BYTES = 107
"""Of a Unix socket's path: Linux keeps it in 108, with the zero at the end."""


class LinkError(Exception):
    """There is no connection: an attempt has failed, or there was one and it has ended."""


class Link(Protocol):
    """The way to the shadow. Belongs to one event loop."""

    def connected(self) -> bool:
        """Tell whether packets can be sent now; begin an attempt to connect where that is due.

        LinkError, once, for each attempt that has failed.
        """

    def send(self, packet: memoryview, /) -> int:
        """Return how many bytes were taken, 0 while there is no room.

        LinkError where the connection has ended: of a packet that was taken in part the rest is of no use.
        """

    def close(self) -> None:
        """Let go of the connection; it is made anew when it is asked for again."""


class UnixLink:
    """A SEQPACKET socket: each send is one packet, taken as a whole or not at all."""

    def __init__(self, path: str, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._path = path
        self._clock = clock
        self._socket: socket.socket | None = None
        self._file: tuple[int, ...] = ()
        """Names the file that was connected to."""
        self._next_attempt = 0.0
        self._next_look = 0.0

    def connected(self) -> bool:
        """Connect at once where that is due; a file made anew while its old reader lives is another one."""
        now = self._clock()
        if self._socket is not None:
            if now < self._next_look:
                return True
            self._next_look = now + RECONNECT_SECONDS
            if not self._is_replaced():
                return True
            self.close()
        if now < self._next_attempt:
            return False
        self._next_attempt = self._next_look = now + RECONNECT_SECONDS
        self._socket = self._connect()
        return True

    def send(self, packet: memoryview) -> int:
        """Send a whole packet, or nothing."""
        try:
            return _send(self._socket, packet)
        except OSError as error:
            self.close()
            raise LinkError(self._told(error)) from error

    def close(self) -> None:
        """Close the socket."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _connect(self) -> socket.socket:
        try:
            # Looked at first: if it is replaced between the two, the next look finds another file.
            self._file = _file(self._path)
            made = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            try:
                made.setblocking(False)
                made.connect(self._path)
            except BaseException:
                made.close()
                raise
        except OSError as error:
            raise LinkError(self._told(error)) from error
        return made

    def _is_replaced(self) -> bool:
        """Tell whether another file is there; where none is, whoever reads goes on reading."""
        try:
            return _file(self._path) != self._file
        except OSError:
            return False

    def _told(self, error: OSError) -> str:
        what = {
            FileNotFoundError: "no shadow listens there yet",
            ConnectionRefusedError: "the shadow that listened there has ended",
            BlockingIOError: "the shadow accepts no connection: it is busy or hangs",
            PermissionError: "this process may not connect: both containers must run as the same user",
        }.get(type(error), error.strerror or str(error))
        return f"unix:{self._path}: {what}"


class TcpLink:
    """A TCP connection to one of the shadow's own pods.

    Names are resolved and connections made in a thread, since a resolver may block for half a minute.
    """

    def __init__(self, host: str, port: int, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._host = host
        self._port = port
        self._clock = clock
        self._socket: socket.socket | None = None
        self._attempt: Future[socket.socket] | None = None
        self._next_attempt = 0.0

    def connected(self) -> bool:
        """Take the connection that a thread has made; let one make it where that is due."""
        if self._socket is not None:
            return True
        if self._attempt is None:
            if (now := self._clock()) >= self._next_attempt:
                self._next_attempt = now + RECONNECT_SECONDS
                self._attempt = self._begin()
            return False
        if not self._attempt.done():
            return False
        attempt, self._attempt = self._attempt, None
        try:
            self._socket = attempt.result()
        except OSError as error:
            raise LinkError(self._told(error)) from error
        return True

    def send(self, packet: memoryview) -> int:
        """Send what there is room for."""
        try:
            if self._socket is not None and _has_ended(self._socket):
                raise ConnectionResetError(0, "the shadow has closed the connection")
            return _send(self._socket, packet)
        except OSError as error:
            self.close()
            raise LinkError(self._told(error)) from error

    def close(self) -> None:
        """Close the socket, and the one that is being made once it is."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None
        if self._attempt is not None:
            self._attempt.add_done_callback(_close_unused)
            self._attempt = None

    def _begin(self) -> "Future[socket.socket]":
        attempt: Future[socket.socket] = Future()
        thread = threading.Thread(
            target=_make, args=(attempt, self._host, self._port), name="mirror-connect", daemon=True
        )
        try:
            thread.start()
        except RuntimeError as error:  # no more threads: later, perhaps
            attempt.set_exception(OSError(0, str(error)))
        return attempt

    def _told(self, error: OSError) -> str:
        what = "no shadow listens there" if isinstance(error, ConnectionRefusedError) else error.strerror
        return f"tcp:{self._host}:{self._port}: {what or error}"


class NoLink:
    """Stands for an address that is none: nothing is ever sent, and it says why."""

    def __init__(self, why: str) -> None:
        self._why = why

    def connected(self) -> bool:
        """Refuse."""
        raise LinkError(self._why)

    def send(self, _: memoryview, /) -> int:
        """Refuse."""
        raise LinkError(self._why)

    def close(self) -> None:
        """Do nothing."""


def open_link(address: str) -> Link:
    """Return the way to ``unix:PATH`` or ``tcp:HOST:PORT``; to anything else one that says what is wrong."""
    kind, _, place = address.partition(":")
    if kind == "unix" and place and "\0" not in place:
        if len(os.fsencode(place)) <= _PATH_BYTES:
            return UnixLink(place)
        return NoLink(f"{address}: a Unix socket's path has at most {_PATH_BYTES} bytes")
    host, _, port = place.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")  # as URLs have IPv6
    if kind == "tcp" and host and port.isascii() and port.isdigit() and 0 < int(port) < 1 << 16:
        return TcpLink(host, int(port))
    return NoLink(f"the shadow's address {address!r} is neither unix:PATH nor tcp:HOST:PORT")


def _send(connection: socket.socket | None, packet: memoryview) -> int:
    if connection is None:
        raise ConnectionResetError(0, "there is no connection")
    try:
        return connection.send(packet)
    except BlockingIOError:
        return 0


def _has_ended(connection: socket.socket) -> bool:
    """Tell whether the peer has closed its end: what is sent to it would count as sent and be lost."""
    try:
        return not connection.recv(1, socket.MSG_PEEK)
    except BlockingIOError:
        return False


def _make(attempt: "Future[socket.socket]", host: str, port: int) -> None:
    try:
        made = socket.create_connection((host, port), timeout=_CONNECT_SECONDS)
        try:
            made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            made.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER_BYTES)
            made.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            made.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, _DEAD_SECONDS // 2)
            made.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 1)
            made.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, _DEAD_SECONDS * 1000)
            made.setblocking(False)
        except BaseException:
            made.close()
            raise
    except OSError as error:
        attempt.set_exception(error)
    except Exception as error:  # noqa: BLE001 a host's name may be none, which idna says in its own way
        attempt.set_exception(OSError(0, f"{type(error).__name__}: {error}"))
    else:
        attempt.set_result(made)


def _close_unused(attempt: "Future[socket.socket]") -> None:
    with suppress(OSError), closing(attempt.result()):
        pass


def _file(path: str) -> tuple[int, ...]:
    found = os.stat(path)  # noqa: PTH116 a Path costs more than the call
    # An inode's number may be given again at once.
    return found.st_dev, found.st_ino, found.st_ctime_ns
