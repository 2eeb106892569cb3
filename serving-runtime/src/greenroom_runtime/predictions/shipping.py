"""Takes sealed segments to a receiver, oldest first, in a thread and an event loop of its own."""

import asyncio
import threading
from collections import Counter, deque
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, suppress
from dataclasses import dataclass, field
from typing import Protocol, Self

import structlog

from greenroom_runtime.predictions.ledger import Account, Ledger
from greenroom_runtime.predictions.segments import Segment, SegmentDirectory
from greenroom_runtime.predictions.writer import Trouble

log = structlog.get_logger(__name__)

_MOST_DOUBLINGS = 20
_LONGEST_RETRY_AFTER = 300.0
_CANCEL_SECONDS = 1.0
"""Kept of the time to end, for what is being sent to be broken off in order."""


class UndeliveredError(Exception):
    """The receiver has not taken it; it may do so later."""

    def __init__(self, message: str, *, retry_after: float = 0.0) -> None:
        """``retry_after`` are the seconds that the receiver asks to be left alone."""
        super().__init__(message)
        self.retry_after = retry_after


@dataclass(kw_only=True)
class Parcel:
    """A segment on its way."""

    name: str
    content: bytes
    lines: deque[bytes] = field(default_factory=deque)
    """Those not acknowledged yet."""
    refused: Counter[tuple[str, str]] = field(default_factory=Counter)
    """Records that the receiver will never take, by version and role."""


class Receiver(AbstractAsyncContextManager["Receiver"], Protocol):
    """Where segments go."""

    async def __aenter__(self) -> Self:
        """Get ready."""

    async def deliver(self, parcel: Parcel, *, hurry: asyncio.Event) -> None:
        """Return when every line is acknowledged, or refused for good; else UndeliveredError.

        What was acknowledged is taken out of the parcel, so that the next attempt goes on behind it.
        ``hurry`` is set when the process ends: no more consideration for others.
        """


class Shipper:
    """Sends one segment after the other, and tries each until it has arrived or room is needed."""

    def __init__(
        self,
        segments: SegmentDirectory,
        *,
        receiver: Receiver,
        ledger: Ledger,
        retry_seconds: float,
        longest_retry_seconds: float,
        chance: Callable[[], float],
    ) -> None:
        self.trouble = Trouble("shipping")
        self.delivered = 0
        """Records acknowledged, those that former processes wrote included."""
        self._segments = segments
        self._receiver = receiver
        self._ledger = ledger
        self._retry_seconds = retry_seconds
        self._longest_retry_seconds = longest_retry_seconds
        self._chance = chance
        self._news = asyncio.Event()
        self._stopping = asyncio.Event()
        self._loop = asyncio.new_event_loop()
        self._work: asyncio.Task[None] | None = None
        self._thread = threading.Thread(target=self._run, name="prediction-shipping", daemon=True)
        segments.on_sealed = lambda: self._call(self._news.set)

    def start(self) -> None:
        """Begin to send."""
        self._thread.start()

    def close(self, deadline_seconds: float) -> None:
        """Send what can be sent at once and end, both in bounded time; the rest stays where it is."""
        self._call(self._stopping.set)
        self._call(self._news.set)
        cancelling = min(_CANCEL_SECONDS, deadline_seconds)
        self._thread.join(deadline_seconds - cancelling)
        self._call(self._cancel)
        self._thread.join(cancelling)

    def _call(self, function: Callable[[], object]) -> None:
        with suppress(RuntimeError):  # the loop has ended
            self._loop.call_soon_threadsafe(function)

    def _cancel(self) -> None:
        if self._work is not None:
            self._work.cancel()

    def _run(self) -> None:
        with asyncio.Runner(loop_factory=lambda: self._loop) as runner, suppress(asyncio.CancelledError):
            try:
                runner.run(self._ship())
            except Exception as error:  # told, since nobody waits for a thread
                log.exception("a defect in the prediction log")
                self.trouble.begin(f"nothing is sent any more: {error!r}")

    async def _ship(self) -> None:
        self._work = asyncio.current_task()
        async with self._receiver:
            while (segment := await self._next()) is not None:
                if not await self._send(segment):
                    return

    async def _next(self) -> Segment | None:
        """Return the oldest segment as soon as there is one; None at the end."""
        while True:
            self._news.clear()
            segment = self._segments.next_unsent()
            if segment is not None or self._stopping.is_set():
                return segment
            await self._news.wait()

    async def _send(self, segment: Segment) -> bool:
        """Try until it has arrived; False where the process ends before."""
        parcel: Parcel | None = None
        failures = 0
        while True:
            left = 0
            try:
                parcel = parcel or self._read(segment)
                if parcel is None:
                    self._vanished(segment)
                    return True
                left = len(parcel.lines)
                await self._receiver.deliver(parcel, hurry=self._stopping)
                self._arrived(segment, parcel)
            except Exception as error:  # noqa: BLE001 whatever it is, later it may work
                self.trouble.begin(_told(error))
                if self._stopping.is_set():
                    return False
                failures = 0 if parcel is not None and len(parcel.lines) < left else failures + 1
                await self._wait(failures, error)
            else:
                self.trouble.end()
                return True

    def _read(self, segment: Segment) -> Parcel | None:
        """Return what is to be sent; None where somebody has removed it."""
        try:
            content = self._segments.file(segment).read_bytes()
        except FileNotFoundError:
            return None
        return Parcel(name=segment.name, content=content, lines=deque(content.splitlines(keepends=True)))

    def _arrived(self, segment: Segment, parcel: Parcel) -> None:
        if not self._segments.remove(segment):
            return
        refused = _of_accounts(parcel.refused, segment.records)
        self.delivered += parcel.content.count(b"\n") - parcel.refused.total()
        self._ledger.sent(segment.records - refused)
        self._ledger.abandoned(refused)

    def _vanished(self, segment: Segment) -> None:
        self.trouble.begin(f"{self._segments.file(segment)} was removed before it was sent")
        if self._segments.remove(segment):
            self._ledger.abandoned(segment.records)

    async def _wait(self, failures: int, error: Exception) -> None:
        """Wait with exponential backoff and full jitter, or as long as the receiver asks for.

        https://aws.amazon.com/builders-library/timeouts-retries-and-backoff-with-jitter/
        """
        backoff = self._retry_seconds * 2.0 ** min(failures, _MOST_DOUBLINGS)
        seconds = self._chance() * min(backoff, self._longest_retry_seconds)
        if isinstance(error, UndeliveredError):
            seconds += min(error.retry_after, _LONGEST_RETRY_AFTER)
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._stopping.wait()


def _of_accounts(records: Counter[tuple[str, str]], accounts: Counter[Account]) -> Counter[Account]:
    """Return as many of the accounts' records as there are of their version and role."""
    found: Counter[Account] = Counter()
    left = records.copy()
    for account, number in accounts.items():
        found[account] = min(number, left[account.version, account.role])
        left[account.version, account.role] -= found[account]
    return found


def _told(error: Exception) -> str:
    return str(error) if isinstance(error, UndeliveredError | OSError) else f"a defect: {error!r}"
