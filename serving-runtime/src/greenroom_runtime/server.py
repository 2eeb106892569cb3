"""An HTTP server among others in one process: uvicorn, with a say in how it begins, writes and ends."""

import asyncio
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any, NamedTuple

import httptools
import structlog
import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from greenroom_runtime.api.exchange import Application

log = structlog.get_logger(__name__)

_HEAD_BYTES = 64 * 1024
"""About the longest head of a request."""
_KEEP_ALIVE_SECONDS = 75
"""Longer than clients and proxies keep idle connections, so that it is they who close."""
_FINISH_SECONDS = 30
"""How long requests that are running after the drain may take."""


class OneWrite:
    """A transport that sends the head of an answer together with its body.

    uvicorn writes the two apart, and uvloop hands each to the kernel: a second system call, and a second
    packet, for each prediction.
    """

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self._head = b""

    def __getattr__(self, name: str) -> Any:
        """Be the transport in all else."""
        return getattr(self._transport, name)

    def write(self, data: bytes) -> None:
        """Keep the head of an answer for the next write; send anything else with what was kept."""
        if self._head:
            data, self._head = self._head + data, b""
        elif data.startswith(b"HTTP/1.1 ") and not data.startswith(b"HTTP/1.1 1"):
            self._head = data
            return
        self._transport.write(data)

    def flush(self) -> None:
        """Send what was kept: the answer has no body."""
        if self._head:
            head, self._head = self._head, b""
            self._transport.write(head)

    def close(self) -> None:
        """Send what was kept and close."""
        self.flush()
        self._transport.close()


class _BodyOnly(NamedTuple):
    """What httptools calls of a request whose head is known."""

    on_body: Callable[[bytes], None]
    on_message_complete: Callable[[], None]


class Protocol(HttpToolsProtocol):
    """uvicorn's HTTP/1.1 over httptools, with answers in one write, bounded heads and no upgrades."""

    transport: OneWrite  # type: ignore[assignment]
    _head_bytes = 0
    """Of a head that is not whole yet."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin with a connection; one that never says anything is closed like an idle one."""
        super().connection_made(OneWrite(transport))  # type: ignore[arg-type]
        self.timeout_keep_alive_task = self.loop.call_later(
            self.timeout_keep_alive, self.timeout_keep_alive_handler
        )

    def data_received(self, data: bytes) -> None:
        """Read on."""
        self._unset_keepalive_if_required()
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserError:
            self._refuse("the request is no HTTP")
        except httptools.HttpParserUpgrade as upgrade:
            self._go_on_without_upgrade(data[upgrade.args[0] :])
        else:
            if self.cycle is not None and self.cycle.scope is self.scope:
                self._head_bytes = 0
                return
            self._head_bytes += len(data)
            if self._head_bytes > _HEAD_BYTES:
                self._refuse(f"the head of the request is larger than {_HEAD_BYTES} bytes")

    def _refuse(self, why: str) -> None:
        log.debug("a connection is closed", why=why)
        self.send_400_response(why)

    def _go_on_without_upgrade(self, data: bytes) -> None:
        """Read a request's body although it asks for another protocol as well, as Java's own client does.

        A server may ignore that wish (RFC 9110, section 7.8); httptools takes such a request to be without a
        body. So a second parser reads it, and the connection is closed after the answer.
        """
        size = b"".join(
            b"%s: %s\r\n" % header
            for header in self.headers
            if header[0] in (b"content-length", b"transfer-encoding")
        )
        self.cycle.keep_alive = False
        if not size:
            return
        self.cycle.more_body = True
        self.cycle.message_event.clear()
        self.parser = httptools.HttpRequestParser(_BodyOnly(self.on_body, self.on_message_complete))
        self.data_received(b"POST / HTTP/1.1\r\n%s\r\n%s" % (size, data))

    def on_response_complete(self) -> None:
        """Send an answer without a body, and go on to the next request."""
        self.transport.flush()
        super().on_response_complete()


class Server(uvicorn.Server):
    """A uvicorn server among others in one process: signals are the process's own business."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.listening = asyncio.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begin to answer, and say so."""
        await super().startup(sockets)
        self.listening.set()

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave the signal handlers as they are."""
        yield

    def close_connections(self) -> None:
        """Let each further answer say ``Connection: close``, so that clients move on before the end."""
        header = (b"connection", b"close")
        self.config.encoded_headers.append(header)
        self.server_state.default_headers.append(header)


@contextmanager
def listen(host: str, port: int) -> Iterator[socket.socket]:
    """Listen on an address; OSError where that cannot be."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    dualstack = family == socket.AF_INET6 and socket.has_dualstack_ipv6()
    listening = socket.create_server((host, port), family=family, backlog=2048, dualstack_ipv6=dualstack)
    with listening:
        listening.setblocking(False)
        yield listening


@asynccontextmanager
async def serving(application: Application, listening: socket.socket) -> AsyncIterator[Server]:
    """Serve the application; at the end finish what runs."""
    server = Server(
        uvicorn.Config(
            application,
            http=Protocol,
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            timeout_keep_alive=_KEEP_ALIVE_SECONDS,
            timeout_graceful_shutdown=_FINISH_SECONDS,
        )
    )
    task = asyncio.create_task(server.serve(sockets=[listening]))
    try:
        begun = asyncio.create_task(server.listening.wait())
        await asyncio.wait({begun, task}, return_when=asyncio.FIRST_COMPLETED)
        begun.cancel()
        yield server
    finally:
        server.should_exit = True
        await task
