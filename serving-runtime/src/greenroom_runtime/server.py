"""An HTTP server among others in one process: uvicorn, with a say in how it begins, writes and ends."""

import asyncio
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from greenroom_runtime.api.exchange import Application

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


class Protocol(HttpToolsProtocol):
    """uvicorn's HTTP/1.1 over httptools, with answers in one write."""

    transport: OneWrite  # type: ignore[assignment]

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin with a connection."""
        super().connection_made(OneWrite(transport))  # type: ignore[arg-type]

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
        await server.listening.wait()
        yield server
    finally:
        server.should_exit = True
        await task
