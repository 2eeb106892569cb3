"""A TCP proxy between a client and a real server, with faults to order: latency, silence, resets."""

import asyncio
import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

from tests.support.threaded import loop_thread


@dataclass(kw_only=True)
class FaultProxy:
    """A proxy that is up. Its faults may be changed while it runs."""

    target: int
    port: int = 0
    delay_seconds: float = 0.0
    """What each piece of an answer takes longer."""
    silent: bool = False
    """Whether answers are swallowed; connections stay."""
    reset: bool = False
    """Whether connections are reset at the first byte that the client sends."""
    connections: int = 0
    _writers: set[asyncio.StreamWriter] = field(default_factory=set)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one client."""
        self.connections += 1
        if self.reset:
            await reader.read(1)
            _reset(writer)
            return
        try:
            there_reader, there_writer = await asyncio.open_connection("127.0.0.1", self.target)
        except OSError:
            _reset(writer)
            return
        self._writers |= {writer, there_writer}
        to_server = asyncio.ensure_future(self._pump(reader, there_writer, answers=False))
        to_client = asyncio.ensure_future(self._pump(there_reader, writer, answers=True))
        await asyncio.wait({to_server, to_client}, return_when=asyncio.FIRST_COMPLETED)
        for pump, end in ((to_server, writer), (to_client, there_writer)):
            pump.cancel()
            end.close()
        self._writers -= {writer, there_writer}

    async def _pump(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, answers: bool
    ) -> None:
        loop = asyncio.get_running_loop()
        with suppress(OSError):
            while data := await reader.read(65536):
                if self.reset:
                    return
                if answers and self.silent:
                    continue
                if answers and self.delay_seconds:
                    loop.call_later(self.delay_seconds, writer.write, data)
                else:
                    writer.write(data)
                    await writer.drain()


def _reset(writer: asyncio.StreamWriter) -> None:
    """Close a connection by a reset, as a dead peer's kernel does."""
    connection = writer.get_extra_info("socket")
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.close()


@contextmanager
def fault_proxy(target: int) -> Iterator[FaultProxy]:
    """Stand between clients and a port of this machine until the block ends."""
    proxy = FaultProxy(target=target)
    with loop_thread() as thread:
        server = thread.run(asyncio.start_server(proxy.serve, "127.0.0.1", 0))
        proxy.port = server.sockets[0].getsockname()[1]
        yield proxy
        server.close()
