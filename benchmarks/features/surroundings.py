"""What contenders ask, in a process of its own: a feature service, and a proxy that makes Redis slow.

``python -m benchmarks.features.surroundings REDIS_PORT`` prints the ports of the service and of the proxy,
and obeys lines on its standard input: ``slow SECONDS``, ``limit CALLS_PER_SECOND``, ``count``.
"""

import asyncio
import math
import random
import sys
import time
from contextlib import suppress
from typing import Any, Final

import orjson
import uvloop
from aiohttp import web

from benchmarks.features.contenders import NAMES

MEDIAN_SECONDS: Final = 0.025
SPREAD: Final = 0.4
"""Of the service's time: log-normal, 63 ms at the 99th percentile."""


class Surroundings:
    """The service and the proxy."""

    def __init__(self, redis_port: int) -> None:
        self._redis_port = redis_port
        self._delay = 0.0
        self._rate = math.inf
        self._tokens = 0.0
        self._filled = time.monotonic()
        self._calls = 0
        self._random = random.Random(7)  # noqa: S311 times, not secrets

    async def answer(self, request: web.Request) -> web.Response:
        """Compute one entity's features, or refuse: 429 and a second's Retry-After."""
        self._calls += 1
        if not self._take():
            return web.Response(status=429, headers={"Retry-After": "1"})
        await asyncio.sleep(MEDIAN_SECONDS * math.exp(self._random.gauss(0, SPREAD)))
        value = float(len(request.path))
        return web.Response(body=orjson.dumps(dict.fromkeys(NAMES, value)))

    def _take(self) -> bool:
        if self._rate == math.inf:
            return True
        now = time.monotonic()
        self._tokens = min(self._rate, self._tokens + (now - self._filled) * self._rate)
        self._filled = now
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True

    async def proxy(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Pass one client's bytes on, answers later where Redis shall be slow."""
        try:
            there = await asyncio.open_connection("127.0.0.1", self._redis_port)
        except OSError:
            writer.close()
            return
        pumps = {
            asyncio.ensure_future(self._pump(reader, there[1], answers=False)),
            asyncio.ensure_future(self._pump(there[0], writer, answers=True)),
        }
        await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        for pump in pumps:
            pump.cancel()
        for end in (writer, there[1]):
            end.close()

    async def _pump(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, answers: bool
    ) -> None:
        with suppress(OSError):
            while data := await reader.read(65536):
                if answers and self._delay:
                    asyncio.get_running_loop().call_later(self._delay, writer.write, data)
                else:
                    writer.write(data)

    def obey(self, line: str) -> str:
        """Carry out one command, and return what to say."""
        command, *arguments = line.split()
        if command == "slow":
            self._delay = float(arguments[0])
        elif command == "limit":
            self._rate = float(arguments[0])
            self._tokens = 0.0
        elif command == "count":
            counted, self._calls = self._calls, 0
            return str(counted)
        return "done"


async def _run(redis_port: int) -> None:
    surroundings = Surroundings(redis_port)
    application = web.Application()
    application.router.add_get("/{entity}", surroundings.answer)
    runner = web.AppRunner(application, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    proxy = await asyncio.start_server(surroundings.proxy, "127.0.0.1", 0)
    _say(f"{runner.addresses[0][1]} {proxy.sockets[0].getsockname()[1]}")
    while line := await asyncio.to_thread(sys.stdin.readline):
        _say(surroundings.obey(line))
    await runner.cleanup()
    proxy.close()


def _say(text: Any) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    uvloop.run(_run(int(sys.argv[1])))
