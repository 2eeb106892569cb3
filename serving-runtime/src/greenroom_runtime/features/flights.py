"""Fetches that are under way: each entity's once, for all who wait for it."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from greenroom_runtime.features.entry import Entry

_Fetch = Callable[[], Awaitable[Entry]]


@dataclass(kw_only=True)
class Flights:
    """Joins who asks for the same entity at the same time.

    A fetch is a task of its own: whoever waits may go away, it goes on for the others and for the cache.
    """

    joined: int = 0
    """Callers who found a fetch under way."""
    _tasks: "dict[str, asyncio.Task[Entry]]" = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self._tasks)

    def under_way(self, entity: str) -> bool:
        """Tell whether somebody fetches this entity now."""
        return entity in self._tasks

    def begin(self, entity: str, fetch: _Fetch) -> "asyncio.Task[Entry]":
        """Return the fetch that is under way, or begin one."""
        task = self._tasks.get(entity)
        if task is not None:
            self.joined += 1
            return task
        task = asyncio.ensure_future(self._run(entity, fetch))
        self._tasks[entity] = task
        # Its failure is told to those who wait; where nobody does it is no news.
        task.add_done_callback(lambda ended: ended.cancelled() or ended.exception())
        return task

    async def _run(self, entity: str, fetch: _Fetch) -> Entry:
        try:
            return await fetch()
        finally:
            del self._tasks[entity]

    async def wait(self, entity: str, fetch: _Fetch) -> Entry:
        """Wait for an entity's fetch; raises what the fetch raises."""
        return await asyncio.shield(self.begin(entity, fetch))

    async def close(self, seconds: float) -> None:
        """Cancel what is under way, and wait so long for its end."""
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=seconds)
