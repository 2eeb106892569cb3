"""A queue of keys with the semantics that Kubernetes controllers rely on."""

import asyncio
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)


class WorkQueue(Generic[K]):
    """Each key at most once in the queue, never with two workers, and never lost.

    A key that is added while a worker has it runs again afterwards. ``add_after`` keeps the earliest time
    per key. ``retry`` delays by ``base`` seconds, doubled with every failure in a row up to ``cap``, and
    shortened by up to half at random: keys that failed together do not come back together.
    """

    def __init__(self, *, random: Callable[[], float], base: float = 0.25, cap: float = 120.0) -> None:
        self._random = random
        self._base = base
        self._cap = cap
        self._queue: asyncio.Queue[K] = asyncio.Queue()
        self._waiting_since: dict[K, float] = {}
        self._active: set[K] = set()
        self._timers: dict[K, asyncio.TimerHandle] = {}
        self._failures: dict[K, int] = {}

    def add(self, key: K) -> None:
        """Queue a key, unless it waits already."""
        if key in self._waiting_since:
            return
        self._waiting_since[key] = asyncio.get_running_loop().time()
        if key not in self._active:
            self._queue.put_nowait(key)

    def add_after(self, key: K, seconds: float) -> None:
        """Queue a key once the seconds have passed, or earlier if an earlier time was asked for before."""
        loop = asyncio.get_running_loop()
        known = self._timers.get(key)
        if known is not None and known.when() <= loop.time() + seconds:
            return
        if known is not None:
            known.cancel()
        self._timers[key] = loop.call_later(seconds, self._due, key)

    def retry(self, key: K) -> float:
        """Queue a key that has failed after its backoff; return that delay in seconds."""
        failures = self._failures[key] = self._failures.get(key, 0) + 1
        # 2 ** 64 is beyond any cap, and a key that fails for months must not overflow a float.
        delay = min(self._cap, self._base * 2.0 ** min(failures - 1, 64)) * (1 - self._random() / 2)
        self.add_after(key, delay)
        return delay

    def succeeded(self, key: K) -> None:
        """Forget a key's failures: its next backoff starts from the base."""
        self._failures.pop(key, None)

    async def get(self) -> K:
        """Wait for a key and take it; ``done`` must follow."""
        key = await self._queue.get()
        del self._waiting_since[key]
        self._active.add(key)
        return key

    def done(self, key: K) -> None:
        """Give a taken key back; if it was added meanwhile it is queued again."""
        self._active.discard(key)
        if key in self._waiting_since:
            self._queue.put_nowait(key)

    @property
    def depth(self) -> int:
        """How many keys wait for a worker, those put off for later aside."""
        return len(self._waiting_since)

    @property
    def oldest_age(self) -> float:
        """For how many seconds the key that has waited longest has waited; 0 when none waits."""
        now = asyncio.get_running_loop().time()
        return now - min(self._waiting_since.values(), default=now)

    def _due(self, key: K) -> None:
        del self._timers[key]
        self.add(key)
