"""Load on one contender at a constant rate, in a process of its own.

``python -m benchmarks.features.worker CONTENDER REDIS_PORT SERVICE_PORT RATE WARM_UP SECONDS`` prints
``warm`` when the warm-up is over and waits for a line on its standard input; then it measures, and prints the
outcome as JSON.
"""

import asyncio
import random
import sys
import time
from bisect import bisect_left
from itertools import accumulate
from typing import Final

import orjson
import structlog
import uvloop

from benchmarks.features.contenders import CONTENDERS, Contender

ENTITIES: Final = 20_000
EXPONENT: Final = 1.1
"""Entities are wanted as Zipf's law says: few very often, many seldom."""
PATIENCE_SECONDS: Final = 2.0
"""What takes longer has failed: whoever asked has gone."""


class Popularity:
    """Draws entities."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)  # noqa: S311 load, not secrets
        self._sums = list(accumulate(1 / (rank + 1) ** EXPONENT for rank in range(ENTITIES)))

    def draw(self) -> str:
        """Return the next entity to be asked for."""
        place = bisect_left(self._sums, self._random.random() * self._sums[-1])
        return f"u{place}"


class Load:
    """Asks at a constant rate, whether answers come or not."""

    def __init__(self, contender: Contender, *, rate: float, seed: int) -> None:
        self._contender = contender
        self._rate = rate
        self._popularity = Popularity(seed)
        self.times: list[float] = []
        """Seconds from when each request was due to its end, failed ones included."""
        self.failures: dict[str, int] = {}

    async def run(self, seconds: float) -> None:
        """Ask for so long, and wait for the last answers."""
        begun, number, tasks = time.perf_counter(), 0, []
        while (due := begun + number / self._rate) < begun + seconds:
            if (early := due - time.perf_counter()) > 0:
                await asyncio.sleep(early)
            tasks.append(asyncio.ensure_future(self._ask(self._popularity.draw(), due)))
            number += 1
        await asyncio.gather(*tasks)

    async def _ask(self, entity: str, due: float) -> None:
        try:
            async with asyncio.timeout(PATIENCE_SECONDS):
                await self._contender.get(entity)
        except Exception as error:  # noqa: BLE001 each kind is counted by its name
            name = type(error).__name__
            self.failures[name] = self.failures.get(name, 0) + 1
        self.times.append(time.perf_counter() - due)


async def _run(name: str, ports: tuple[int, int], rate: float, warm_up: float, seconds: float) -> None:
    # The cache tells of a source that it leaves alone; standard output is for the outcome.
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
    contender = CONTENDERS[name](*ports)  # type: ignore[call-arg]  # a protocol says nothing of constructors
    await Load(contender, rate=rate, seed=1).run(warm_up)
    sys.stdout.write("warm\n")
    sys.stdout.flush()
    await asyncio.to_thread(sys.stdin.readline)
    load = Load(contender, rate=rate, seed=2)
    await load.run(seconds)
    await contender.close()
    sys.stdout.write(orjson.dumps({"times": load.times, "failures": load.failures}).decode() + "\n")


if __name__ == "__main__":
    contender_name, redis, service, *numbers = sys.argv[1:]
    uvloop.run(_run(contender_name, (int(redis), int(service)), *(float(number) for number in numbers)))
