"""Constant load on a model, every answer kept: what a promise about users is checked against."""

import asyncio
import itertools
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Self

import aiohttp

from greenroom_runtime.contract import names


@dataclass(frozen=True)
class Answer:
    """One request's outcome."""

    at: float
    """When it was complete, on the monotonic clock; it was asked for ``seconds`` before."""
    client: str
    """``kept-3`` is one keep-alive connection, ``fresh-1`` a client that connects anew for each request."""
    status: int
    """0 where there was no answer."""
    version: str
    seconds: float
    error: str = ""
    user: str = ""
    reason: str = ""
    """Why that version answered."""


class Traffic:
    """Clients that send one request after another until the context is left, each for the next of ``users``.

    Kept-alive connections alone do not notice when a Service has no endpoints left, new connections alone do
    not notice when a server closes idle ones in the wrong moment: both kinds are needed. A kept-alive
    connection stays with one pod, since kube-proxy balances connections.
    """

    def __init__(
        self,
        url: str,
        rows: Sequence[dict[str, Any]],
        *,
        requests: Sequence[dict[str, Any]] = (),
        kept: int = 4,
        fresh: int = 2,
        pause: float = 0.01,
        users: Sequence[str] = (),
    ) -> None:
        """Send rows of features, or whole requests instead, one after the other and again."""
        self._url = f"{url}/predict"
        self._requests = requests or [{"features": row} for row in rows]
        self._clients = [f"kept-{index}" for index in range(kept)]
        self._clients += [f"fresh-{index}" for index in range(fresh)]
        self._pause = pause
        self._users = itertools.cycle(users or ("",))
        self._stop = threading.Event()
        self._news = threading.Condition()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()), daemon=True)
        self.answers: list[Answer] = []

    def __enter__(self) -> Self:
        """Start, and return once each client has been answered."""
        self._thread.start()
        self.wait_until(lambda answers: {answer.client for answer in answers} == set(self._clients))
        return self

    def __exit__(self, *_: object) -> None:
        """Let each client finish its last request."""
        self._stop.set()
        self._thread.join()

    def wait_until(self, holds: Callable[[list[Answer]], bool], *, timeout: float = 120) -> None:
        """Wait for something to be true of the answers; TimeoutError where it never is."""
        with self._news:
            if not self._news.wait_for(lambda: holds(self.answers), timeout):
                message = f"not seen in {timeout:g} s; the last answers: {self.answers[-3:]}"
                raise TimeoutError(message)

    def wait_for_every_client(self, version: str, *, timeout: float = 120) -> None:
        """Wait until each client's newest answer is by this version."""

        def holds(answers: list[Answer]) -> bool:
            newest: dict[str, str] = {}
            for answer in reversed(answers):  # asked anew at each answer: it must not look at all of them
                newest.setdefault(answer.client, answer.version)
                if len(newest) == len(self._clients):
                    break
            return set(newest.values()) == {version}

        self.wait_until(holds, timeout=timeout)

    def asked_since(self, moment: float) -> list[Answer]:
        """Return the answers to what was asked from a moment of the monotonic clock on, the newest first."""
        recent = itertools.takewhile(lambda answer: answer.at >= moment, reversed(self.answers))
        return [answer for answer in recent if answer.at - answer.seconds >= moment]

    @property
    def failed(self) -> list[Answer]:
        """Everything but a 200."""
        return [answer for answer in self.answers if answer.status != 200]

    def versions_by_client(self) -> dict[str, list[str]]:
        """Return the versions that each client saw, repetitions folded: ``["v1", "v2"]`` is one flip."""
        seen: dict[str, list[str]] = {client: [] for client in self._clients}
        for answer in self.answers:
            seen[answer.client].append(answer.version)
        return {client: [version for version, _ in itertools.groupby(all_)] for client, all_ in seen.items()}

    async def _run(self) -> None:
        async with asyncio.TaskGroup() as clients:
            for client in self._clients:
                clients.create_task(self._send_all(client))

    async def _send_all(self, client: str) -> None:
        connector = aiohttp.TCPConnector(limit=1, force_close=client.startswith("fresh"))
        async with aiohttp.ClientSession(connector=connector, trust_env=False) as session:
            for request in itertools.cycle(self._requests):
                answer = await self._send(session, client, request, user=next(self._users))
                with self._news:
                    self.answers.append(answer)
                    self._news.notify_all()
                if self._stop.is_set():
                    return
                await asyncio.sleep(self._pause)

    async def _send(
        self, session: aiohttp.ClientSession, client: str, request: dict[str, Any], *, user: str
    ) -> Answer:
        began = time.monotonic()
        status, version, reason, error = 0, "", "", ""
        asked = {**request, **({"user_id": user} if user else {})}
        try:
            timeout = aiohttp.ClientTimeout(total=10)
            async with session.post(self._url, json=asked, timeout=timeout) as response:
                body = await response.read()
                status, version = response.status, response.headers.get(names.HEADER_VERSION, "")
                reason = response.headers.get(names.HEADER_REASON, "")
                error = "" if status == 200 else body.decode(errors="replace")[:500]
        except (aiohttp.ClientError, TimeoutError) as failure:
            error = repr(failure)
        ended = time.monotonic()
        return Answer(ended, client, status, version, ended - began, error, user, reason)
