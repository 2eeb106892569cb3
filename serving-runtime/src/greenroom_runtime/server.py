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
    """A transport that sends two writes of one turn of the event loop at once.

    uvicorn writes the head of an answer and its body apart, and uvloop hands each to the kernel: a second
    system call, and a second packet, for each prediction.
    """

    def __init__(self, transport: asyncio.Transport, *, loop: asyncio.AbstractEventLoop) -> None:
        self._transport = transport
        self._loop = loop
        self._head = b""

    def __getattr__(self, name: str) -> Any:
        """Be the transport in all else."""
        return getattr(self._transport, name)

    def write(self, data: bytes) -> None:
        """Send this with what was written before it, or with what will be in this turn."""
        if self._head:
            data, self._head = self._head + data, b""
            self._transport.write(data)
        else:
            self._head = data
            self._loop.call_soon(self._flush)

    def close(self) -> None:
        """Send what waits and close."""
        self._flush()
        self._transport.close()

    def _flush(self) -> None:
        if self._head:
            head, self._head = self._head, b""
            self._transport.write(head)


class Protocol(HttpToolsProtocol):
    """uvicorn's HTTP/1.1 over httptools, with answers in one write."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin with a connection."""
        super().connection_made(OneWrite(transport, loop=self.loop))  # type: ignore[arg-type]


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
