"""The prediction log as the rest of the process sees it."""

import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from random import random
from typing import Final

import mmh3

from greenroom_runtime.contract import config, names
from greenroom_runtime.contract.report import LogReport
from greenroom_runtime.predictions.batch import Batch
from greenroom_runtime.predictions.ledger import Account, Counts, Ledger
from greenroom_runtime.predictions.object_store import ObjectStoreReceiver
from greenroom_runtime.predictions.record import Record
from greenroom_runtime.predictions.segments import SegmentDirectory
from greenroom_runtime.predictions.shipping import Receiver, Shipper
from greenroom_runtime.predictions.spelling import Speller, hash_key
from greenroom_runtime.predictions.stdout import StdoutSink
from greenroom_runtime.predictions.writer import Queue, Sink, Trouble, Writer

_ERRORS: Final = 400
_BUCKETS: Final = 2**32
_RECORD_BYTES = 512
_FEATURE_BYTES = 128
"""About what a record, and each of its features, takes of memory besides the request's own text."""
_WAKE_RECORDS = 128
_ERROR_LETTERS = 512


@dataclass(frozen=True, kw_only=True)
class Bounds:
    """What the log may take, and how long it may wait."""

    queue_records: int = 65_536
    queue_bytes: int = 64 * 1024 * 1024
    """Of memory, estimated."""
    line_bytes: int = 1024 * 1024
    """Of a longer record the features are left out."""
    batch_bytes: int = 1024 * 1024
    """Written and synced at once."""
    sync_seconds: float = 0.2
    """What a killed process loses at most, as long as the disk keeps up."""
    segment_bytes: int = 8 * 1024 * 1024
    segment_seconds: float = 60.0
    http_seconds: float = 1.0
    """A segment's age when it is sent to a receiver that has nothing else to do."""
    retry_seconds: float = 0.5
    """The first wait for a receiver; it doubles up to ``longest_retry_seconds``."""
    longest_retry_seconds: float = 60.0


class PredictionLog:
    """Takes records without ever blocking or raising, and accounts for each of them.

    ``write`` and ``forget`` belong to one thread, the event loop's.
    """

    def __init__(
        self,
        *,
        percent: float,
        bounds: Bounds,
        queue: Queue,
        ledger: Ledger,
        writer: Writer,
        segments: SegmentDirectory | None,
        shipper: Shipper | None,
        clock: Callable[[], float],
        settings: Trouble,
    ) -> None:
        """Drop every record where ``settings`` are in trouble."""
        self._threshold = round(percent / 100 * _BUCKETS)
        self._bounds = bounds
        self._queue = queue
        self._ledger = ledger
        self._writer = writer
        self._segments = segments
        self._shipper = shipper
        self._clock = clock
        self._settings = settings
        self._closed = bool(settings.text)

    def start(self) -> None:
        """Begin to write and to send, unless the settings forbid it."""
        if self._closed:
            return
        self._writer.start()
        if self._shipper is not None:
            self._shipper.start()

    def write(self, record: Record) -> None:
        """Take a record: in about a microsecond, whatever state the sink is in.

        Whether it is sampled depends on its id alone, so that every process decides alike and a repeated
        request is chosen again; errors always are. Where the queue is full it is dropped, and counted.
        """
        account = self._ledger.account(record.version, record.role)
        account.requests += 1
        try:
            self._take(account, record)
        except Exception:  # noqa: BLE001 a prediction's answer never fails over its record
            account.refused += 1

    def _take(self, account: Account, record: Record) -> None:
        if (
            self._threshold < _BUCKETS
            and record.status < _ERRORS
            and not record.always
            and mmh3.hash(record.id, signed=False) >= self._threshold
        ):
            account.sampled_out += 1
            return
        queue = self._queue
        features = record.features
        weight = _RECORD_BYTES + record.size + (_FEATURE_BYTES * len(features) if features else 0)
        waiting = queue.bytes_in - queue.bytes_out + weight
        number = len(queue.waiting)
        if waiting > self._bounds.queue_bytes or number >= self._bounds.queue_records or self._closed:
            account.refused += 1
            return
        queue.bytes_in += weight
        queue.waiting.append((account, record, weight))
        if number >= _WAKE_RECORDS and not self._writer.wake.is_set():
            self._writer.wake.set()

    def forget(self, version: str) -> None:
        """Fold the accounts of a version that has left into one for all such."""
        self._ledger.forget(version)

    def counts(self) -> Mapping[tuple[str, str], Counts]:
        """Return the accounts by version and role; departed versions under ``ledger.DEPARTED``."""
        return self._ledger.counts()

    def report(self) -> LogReport:
        """Return the sums, and what is wrong where something is."""
        total = self._ledger.total()
        error = "; ".join(text for text in self._complaints() if text)
        return LogReport(
            logged=total.logged,
            dropped=total.dropped,
            sampled_out=total.sampled_out,
            pending=total.pending,
            error=error[:_ERROR_LETTERS],
        )

    @property
    def delivered(self) -> int:
        """Return how many records a receiver has acknowledged, those of former processes included."""
        return self._shipper.delivered if self._shipper is not None else 0

    @property
    def expired_segments(self) -> int:
        """Return how many segments were removed to make room."""
        return self._segments.counts.expired if self._segments is not None else 0

    @property
    def torn_lines(self) -> int:
        """Return how many lines were found cut off by a crash."""
        return self._segments.counts.torn if self._segments is not None else 0

    def close(self, deadline_seconds: float) -> None:
        """Write what waits, send what can be sent, and settle the accounts, in bounded time.

        It blocks: call it from another thread than the event loop's. What is on the disk then counts as
        logged, also where it has not been sent: a restart adopts it. What is not is dropped.
        """
        if self._closed:
            return
        self._closed = True
        end = self._clock() + deadline_seconds
        self._writer.close(deadline_seconds)
        if self._shipper is not None:
            self._shipper.close(max(0.0, end - self._clock()))
        self._ledger.settle()

    def _complaints(self) -> list[str]:
        shipping = self._shipper.trouble.text if self._shipper is not None else ""
        return [self._settings.text, self._writer.trouble.text, shipping]


def open_log(
    settings: config.PredictionLog,
    *,
    model: str,
    namespace: str,
    pod: str,
    environment: Mapping[str, str],
    bounds: Bounds = Bounds(),
    stdout: int = 1,
    wall_clock: Callable[[], float] = time.time,
    clock: Callable[[], float] = time.monotonic,
    chance: Callable[[], float] = random,
) -> PredictionLog:
    """Return a log that is at work, or says why it cannot be: whatever is wrong with it, production serves.

    Where its settings name nothing that can be sent to, every record is dropped for good. A directory that
    cannot be used may become usable: the log says so, drops, and recovers by itself.
    """
    ledger = Ledger()
    trouble = Trouble("settings")
    receiver, segments, shipper = None, None, None
    try:
        receiver = _receiver(settings, model=model, namespace=namespace, environment=environment)
    except ValueError as error:
        trouble.begin(str(error))
    if settings.sink == "Stdout":
        sink: Sink = StdoutSink(stdout, ledger=ledger)
        batch_bytes = bounds.batch_bytes
    else:
        segments = SegmentDirectory(
            Path(settings.directory),
            pod=pod,
            most_bytes=settings.max_disk_bytes,
            segment_bytes=bounds.segment_bytes,
            segment_seconds=bounds.segment_seconds,
            idle_seconds=bounds.http_seconds if settings.sink == "Http" else bounds.segment_seconds,
            purpose="Keep" if settings.sink == "Files" else "Ship",
            ledger=ledger,
            wall_clock=wall_clock,
            clock=clock,
        )
        sink, batch_bytes = segments, min(bounds.batch_bytes, segments.segment_bytes)
        if receiver is not None:
            shipper = Shipper(
                segments,
                receiver=receiver,
                ledger=ledger,
                retry_seconds=bounds.retry_seconds,
                longest_retry_seconds=bounds.longest_retry_seconds,
                chance=chance,
            )
    queue = Queue(deque())
    speller = Speller(
        model=model,
        namespace=namespace,
        sensitive=settings.sensitive,
        key=hash_key(environment.get(names.ENV_LOG_KEY), model=model, namespace=namespace),
        most_bytes=min(bounds.line_bytes, batch_bytes),
        mark=settings.sink == "Stdout",
    )
    writer = Writer(
        queue,
        sink=sink,
        speller=speller,
        ledger=ledger,
        batch=Batch(batch_bytes),
        every_seconds=bounds.sync_seconds,
        clock=clock,
    )
    log = PredictionLog(
        percent=settings.percent,
        bounds=bounds,
        queue=queue,
        ledger=ledger,
        writer=writer,
        segments=segments,
        shipper=shipper,
        clock=clock,
        settings=trouble,
    )
    log.start()
    return log


def _receiver(
    settings: config.PredictionLog, *, model: str, namespace: str, environment: Mapping[str, str]
) -> Receiver | None:
    if settings.sink == "Http":
        # Its client takes a noticeable part of a pod's start, and most pods never use it.
        from greenroom_runtime.predictions.http import HttpReceiver  # noqa: PLC0415

        return HttpReceiver(settings.uri, model=model, namespace=namespace, environment=environment)
    if settings.sink == "ObjectStore":
        return ObjectStoreReceiver(settings.uri, model=model, namespace=namespace, environment=environment)
    return None
