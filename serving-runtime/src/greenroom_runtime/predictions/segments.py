"""A directory of segments: files of JSON lines, appended to, sealed by a rename, then never changed.

``<name>.open`` is being written, ``<name>.jsonl`` is sealed; names sort by age. What a crash leaves behind is
adopted: a last line that is torn is cut, everything before it was synced or is at least whole.
"""

import errno
import fcntl
import os
import re
import secrets
import threading
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import orjson

from greenroom_runtime.models.durable import sync_directory
from greenroom_runtime.predictions.batch import Batch
from greenroom_runtime.predictions.ledger import Account, Ledger

SEALED = ".jsonl"
_OPEN = ".open"
_LOCK = ".lock"
_BLOCK_BYTES = 4096
"""Files take whole blocks of a disk."""
_MOST_SEGMENTS = 16_384
"""However small they are: a directory must stay one that can be listed."""
_PARTS = 8
"""A segment takes at most this part of the disk's share, so that the oldest can go without much loss."""
_LEAST_SEGMENT_BYTES = 64 * 1024
_POD_LETTERS = 63
_NAME = re.compile(r"[0-9]{20}-")
"""When it was begun, in nanoseconds since 1970; then the pod, and something random."""


class DirectoryInUseError(OSError):
    """Another process has the directory's lock."""


@dataclass(slots=True, eq=False)
class Segment:
    """One file of the directory."""

    name: str
    size: int = 0
    """Bytes of whole, synced lines."""
    records: Counter[Account] = field(default_factory=Counter)
    """Those of this process: an adopted file's were accounted for by the process that wrote them."""
    sending: bool = False

    @property
    def taken(self) -> int:
        """Bytes that it takes of the disk."""
        return -(-self.size // _BLOCK_BYTES) * _BLOCK_BYTES


@dataclass(slots=True)
class SegmentCounts:
    """What happened to files as a whole."""

    expired: int = 0
    """Segments removed since the disk's share was used up."""
    torn: int = 0
    """Lines that a crash had cut off."""


class SegmentDirectory:
    """The segments of one process; the writer's thread and the shipping thread share it."""

    def __init__(
        self,
        path: Path,
        *,
        pod: str,
        most_bytes: int,
        segment_bytes: int,
        segment_seconds: float,
        idle_seconds: float,
        purpose: Literal["Keep", "Ship"],
        ledger: Ledger,
        wall_clock: Callable[[], float],
        clock: Callable[[], float],
    ) -> None:
        """``Keep`` holds segments for readers until room is needed, ``Ship`` until they are sent.

        A segment is sealed after ``segment_seconds``, or ``idle_seconds`` when no sealed one is here.
        """
        self.path = path
        self.counts = SegmentCounts()
        self.segment_bytes = max(_LEAST_SEGMENT_BYTES, min(segment_bytes, most_bytes // _PARTS))
        self._most_bytes = max(most_bytes, _PARTS * self.segment_bytes)
        self._segment_seconds = segment_seconds
        self._idle_seconds = idle_seconds
        self._pod = re.sub(r"[^A-Za-z0-9.-]", "-", pod)[:_POD_LETTERS]
        self._ships = purpose == "Ship"
        self._ledger = ledger
        self._wall_clock = wall_clock
        self._clock = clock
        self._guard = threading.Lock()
        self._sealed: dict[str, Segment] = {}
        self._sealed_bytes = 0
        self.on_sealed: Callable[[], None] = lambda: None
        self._open: Segment | None = None
        self._opened_at = 0.0
        self._file = self._lock_file = -1

    def append(self, batch: Batch) -> int:
        """Write all lines, at most ``segment_bytes``, and wait for the disk; return their number.

        OSError when it did not work, and then none counts.
        """
        content = batch.lines(0, len(batch))
        self._prepare()
        try:
            self._refuse_when_removed()
            if self._open is not None and self._open.size + len(content) > self.segment_bytes:
                self._seal()
            self._make_room(len(content))
            segment = self._open or self._begin()
            _write_all(self._file, content)
            os.fdatasync(self._file)
        except OSError:
            self._let_go()
            raise
        segment.size += len(content)
        records = Counter(batch.accounts)
        if self._ships:
            segment.records.update(records)
            self._ledger.stored(records)
        else:
            self._ledger.logged(records)
        return len(batch)

    def tidy(self) -> None:
        """Adopt what is to be adopted, and seal the open segment when it is old enough."""
        self._prepare()
        age = self._segment_seconds if self._sealed else self._idle_seconds
        if self._open is not None and self._clock() - self._opened_at >= age:
            try:
                self._seal()
            except OSError:
                self._let_go()
                raise

    def close(self) -> None:
        """Seal what is open, and let another process have the directory."""
        try:
            if self._open is not None:
                self._prepare()  # after a failure it seals what can be saved
            if self._open is not None:
                self._seal()
        finally:
            self._let_go()

    def next_unsent(self) -> Segment | None:
        """Return the oldest sealed segment; it stays until ``remove``."""
        with self._guard:
            segment = next(iter(self._sealed.values()), None)
            if segment is not None:
                segment.sending = True
            return segment

    def file(self, segment: Segment) -> Path:
        """Return the path of a sealed segment."""
        return self.path / f"{segment.name}{SEALED}"

    def remove(self, segment: Segment) -> bool:
        """Delete a sealed segment; False when it had gone before, and was accounted for."""
        with self._guard:
            return self._remove(segment)

    def _remove(self, segment: Segment) -> bool:
        self.file(segment).unlink(missing_ok=True)
        if self._sealed.pop(segment.name, None) is None:
            return False
        self._sealed_bytes -= segment.taken
        return True

    def _prepare(self) -> None:
        """Own the directory, and know what is in it; nothing to do once it is so."""
        if self._lock_file >= 0:
            return
        self.path.mkdir(parents=True, exist_ok=True)
        lock = os.open(self.path / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o640)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self._adopt()
        except BlockingIOError as error:
            os.close(lock)
            message = f"{self.path} is in use by another process"
            raise DirectoryInUseError(errno.EWOULDBLOCK, message) from error
        except OSError:
            os.close(lock)
            raise
        self._lock_file = lock

    def _adopt(self) -> None:
        sealed = dict(self._sealed)
        known = sealed if self._open is None else {**sealed, self._open.name: self._open}
        found: dict[str, Segment] = {}
        for path in sorted(self.path.iterdir()):
            if not _NAME.match(path.name) or path.suffix not in (SEALED, _OPEN):
                continue
            if path.suffix == _OPEN and not self._repair(path, known.get(path.stem)):
                continue
            segment = known.get(path.stem) or Segment(path.stem)
            segment.size = self.file(segment).stat().st_size
            found[path.stem] = segment
        with self._guard:
            for name in sealed.keys() - self._sealed.keys():  # sent and removed meanwhile
                found.pop(name, None)
            gone = [segment for name, segment in self._sealed.items() if name not in found]
            if self._open is not None and self._open.name not in found:
                gone.append(self._open)
            self._open = None
            self._sealed = dict(sorted(found.items()))
            self._sealed_bytes = sum(segment.taken for segment in found.values())
        if self._ships:
            for segment in gone:
                self._ledger.abandoned(segment.records)
        if found:
            self.on_sealed()

    def _repair(self, path: Path, known: Segment | None) -> bool:
        """Seal a segment that was left open; False when there is nothing in it."""
        content = path.read_bytes()
        if known is not None:  # what follows is written again
            whole = known.size
        else:
            whole = _length_of_whole_lines(content)
            self.counts.torn += whole < len(content)
        if whole == 0:
            path.unlink()
            return False
        if whole < len(content):
            os.truncate(path, whole)
        path.rename(path.with_suffix(SEALED))
        sync_directory(self.path)
        return True

    def _begin(self) -> Segment:
        name = f"{int(self._wall_clock() * 1e9):020d}-{self._pod}-{secrets.token_hex(4)}"
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC
        self._file = os.open(self.path / f"{name}{_OPEN}", flags, 0o640)
        self._open = Segment(name)
        self._opened_at = self._clock()
        sync_directory(self.path)
        return self._open

    def _seal(self) -> None:
        segment = self._open
        assert segment is not None  # noqa: S101 the callers' business
        (self.path / f"{segment.name}{_OPEN}").rename(self.file(segment))
        sync_directory(self.path)
        descriptor, self._file = self._file, -1
        os.close(descriptor)
        with self._guard:
            self._open = None
            self._sealed[segment.name] = segment
            self._sealed_bytes += segment.taken
        self.on_sealed()

    def _make_room(self, needed: int) -> None:
        """Remove the oldest segments until the new bytes fit; the one that is being sent may stay."""
        with self._guard:
            needed += _BLOCK_BYTES + (self._open.taken if self._open else 0)
            if self._fits(needed):
                return
            for segment in list(self._sealed.values()):
                if self._fits(needed):
                    break
                if not segment.sending:
                    self._remove(segment)
                    self._expire(segment)

    def _fits(self, needed: int) -> bool:
        return self._sealed_bytes + needed <= self._most_bytes and len(self._sealed) < _MOST_SEGMENTS

    def _expire(self, segment: Segment) -> None:
        self.counts.expired += 1
        if self._ships:
            self._ledger.abandoned(segment.records)

    def _refuse_when_removed(self) -> None:
        if self._file >= 0 and os.fstat(self._file).st_nlink == 0:
            message = f"{self.path} was removed"
            raise FileNotFoundError(errno.ENOENT, message)

    def _let_go(self) -> None:
        """Give up the files; the next attempt looks at the directory anew."""
        for descriptor in (self._file, self._lock_file):
            if descriptor >= 0:
                with suppress(OSError):
                    os.close(descriptor)
        self._file = self._lock_file = -1


def _write_all(descriptor: int, content: memoryview) -> None:
    while content:
        content = content[os.write(descriptor, content) :]


def _length_of_whole_lines(content: bytes) -> int:
    """Return where the last whole line ends: a crash of the machine can leave garbage with newlines in it."""
    end = content.rfind(b"\n") + 1
    while end:
        start = content.rfind(b"\n", 0, end - 1) + 1
        with suppress(orjson.JSONDecodeError):
            orjson.loads(content[start:end])
            break
        end = start
    return end
