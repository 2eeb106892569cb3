"""The prediction log's files: what a crash, a full disk or a vanished directory costs."""

import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import orjson
import pytest

from greenroom_runtime.predictions import segments
from greenroom_runtime.predictions.batch import Batch
from greenroom_runtime.predictions.ledger import Counts, Ledger
from greenroom_runtime.predictions.log import Bounds
from greenroom_runtime.predictions.segments import SegmentDirectory
from tests.support.predictions import (
    QUICK,
    lines,
    number_of,
    prediction_log,
    record,
    total,
    wait_until,
)

# Logs as fast as it can and says again and again how many records are synced; ends only when it is killed.
_LOGGING = """
import sys
from pathlib import Path
from tests.support.predictions import Bounds, prediction_log, record, total
bounds = Bounds(sync_seconds=0.01, segment_bytes=256 * 1024)
with prediction_log(Path(sys.argv[1]), bounds=bounds) as log:
    number = 0
    while True:
        for number in range(number, number + 500):
            log.write(record(number))
        number += 1
        counts = total(log)
        print(counts.logged, counts.dropped, number, flush=True)
"""
_SMALL_DISK_BYTES = 1024 * 1024
mounts = pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount a small disk")


@contextmanager
def small_disk(path: Path) -> Iterator[Path]:
    """Mount a file system of one MiB."""
    path.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={_SMALL_DISK_BYTES}", "tmpfs", str(path)]
    subprocess.run(mount, check=True)
    try:
        yield path
    finally:
        subprocess.run(["umount", "--lazy", str(path)], check=True)


def fill(disk: Path) -> Path:
    """Leave no space; return the file that takes it."""
    filler = disk / "filler"
    with suppress(OSError), filler.open("wb", buffering=0) as file:
        while True:
            file.write(bytes(4096))
    return filler


@pytest.mark.parametrize("synced", [1, 2000, 9000])
def test_a_killed_process_loses_nothing_that_was_synced(tmp_path: Path, synced: int) -> None:
    """After SIGKILL every record that was reported as logged is there, once, and no line is torn."""
    with subprocess.Popen(
        [sys.executable, "-c", _LOGGING, str(tmp_path)], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        told = next(line for line in process.stdout if int(line.split()[0]) >= synced)
        process.send_signal(signal.SIGKILL)
        told = [told, *process.stdout][-1]
    logged, dropped, written = (int(word) for word in told.split())
    with prediction_log(tmp_path) as log:
        wait_until(lambda: not list(tmp_path.glob("*.open")))
    ids = [line["id"] for line in lines(tmp_path)]
    assert len(ids) >= logged
    assert len(set(ids)) == len(ids)
    if not dropped:
        assert ids == [f"request-{number}" for number in range(len(ids))]
    assert len(ids) <= written + 500
    assert total(log) == Counts()


def test_what_a_crash_left_is_adopted(tmp_path: Path) -> None:
    """A torn last line is cut and counted, garbage behind it too; whole lines stay, empty files go."""
    whole = b'{"id":"a"}\n{"id":"b"}\n'
    name = "01795000000000000000-pod-0-0000000"
    for number, content in enumerate((whole, whole + b'{"id":"c', whole + b"\0\0\n\0", b"", b'{"id"')):
        (tmp_path / f"{name}{number}.open").write_bytes(content)
    (tmp_path / "notes.open").write_bytes(b"not ours")
    with prediction_log(tmp_path) as log:
        wait_until(lambda: not list(tmp_path.glob("0*.open")), told=log.report)
        assert log.torn_lines == 3
    kept = {path.name: path.read_bytes() for path in tmp_path.glob("*.jsonl")}
    assert kept == {f"{name}{number}.jsonl": whole for number in range(3)}
    assert (tmp_path / "notes.open").read_bytes() == b"not ours"


@mounts
def test_a_full_disk_is_survived(tmp_path: Path) -> None:
    """While there is no space records wait, then are dropped and counted; with space it goes on by itself."""
    bounds = Bounds(sync_seconds=0.01, queue_records=500, segment_bytes=64 * 1024)
    with small_disk(tmp_path / "disk") as disk:
        with prediction_log(disk / "log", bounds=bounds) as log:
            log.write(record(0))
            wait_until(lambda: total(log).logged == 1)
            filler = fill(disk)
            number = 0
            while not total(log).dropped:
                number += 1
                log.write(record(number))
            wait_until(lambda: "No space" in log.report().error)
            filler.unlink()
            wait_until(lambda: not log.report().error and not total(log).pending, told=log.report)
            log.write(record(number + 1))
        ids = [line["id"] for line in lines(disk / "log")]
    assert (ids[0], ids[-1]) == ("request-0", f"request-{number + 1}")
    assert len(set(ids)) == len(ids) == total(log).logged
    assert number_of(total(log)) == number + 2
    assert total(log).pending == 0


@mounts
def test_a_disk_that_stays_full_is_no_hindrance(tmp_path: Path) -> None:
    """The process ends in bounded time all the same, and what found no place is counted as dropped."""
    with small_disk(tmp_path / "disk") as disk:
        (disk / "log").mkdir()
        fill(disk)
        with prediction_log(disk / "log") as log:
            for number in range(100):
                log.write(record(number))
            wait_until(lambda: log.report().error)
            log.close(0.1)
            assert total(log) == Counts(dropped=100)
            assert "No space" in log.report().error


def test_a_directory_that_cannot_be_used_is_waited_for(tmp_path: Path) -> None:
    """A file in its place, a read-only mount: the log says so, and begins when it is put right."""
    place = tmp_path / "log"
    place.write_text("a file")
    with prediction_log(place) as log:
        log.write(record(0))
        wait_until(lambda: log.report().error)
        assert str(place) in log.report().error
        assert total(log) == Counts(pending=1)
        place.unlink()
        wait_until(lambda: total(log).logged == 1 and not log.report().error, told=log.report)


@mounts
def test_a_read_only_disk_is_told(tmp_path: Path) -> None:
    """A disk that may not be written is told as such, and used as soon as it may."""
    with small_disk(tmp_path / "disk") as disk:
        subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
        with prediction_log(disk) as log:
            log.write(record(0))
            wait_until(lambda: "Read-only" in log.report().error, told=log.report)
            subprocess.run(["mount", "-o", "remount,rw", str(disk)], check=True)
            wait_until(lambda: total(log).logged == 1, told=log.report)
        assert [line["id"] for line in lines(disk)] == ["request-0"]


def test_a_removed_directory_is_made_anew(tmp_path: Path) -> None:
    """When somebody removes the directory the next records go into a new one."""
    directory = tmp_path / "log"
    with prediction_log(directory) as log:
        log.write(record(0))
        wait_until(lambda: total(log).logged == 1)
        for path in directory.iterdir():
            path.unlink()
        directory.rmdir()
        log.write(record(1))
        wait_until(lambda: total(log).logged == 2, told=log.report)
    assert [line["id"] for line in lines(directory)] == ["request-1"]


def test_two_processes_take_turns(tmp_path: Path) -> None:
    """A log on a directory that another one still uses waits for it, and loses nothing meanwhile."""
    with prediction_log(tmp_path, pod="old") as old:
        old.write(record(0))
        wait_until(lambda: total(old).logged == 1)
        with prediction_log(tmp_path, pod="new") as new:
            new.write(record(1))
            wait_until(lambda: new.report().error)
            assert new.report().error.endswith("is in use by another process")
            old.write(record(2))
            old.close(60)
            wait_until(lambda: total(new).logged == 1, told=new.report)
    assert Counter(line["id"] for line in lines(tmp_path)) == Counter(["request-0", "request-1", "request-2"])
    assert total(old) == Counts(logged=2)


def test_the_oldest_segments_make_room(tmp_path: Path) -> None:
    """Files never take more than their share of the disk; the newest records are those that stay."""
    share = 1024 * 1024
    bounds = Bounds(sync_seconds=0.01, batch_bytes=16 * 1024, line_bytes=16 * 1024)
    with prediction_log(tmp_path, max_disk_bytes=share, bounds=bounds) as log:
        for number in range(10_000):
            log.write(record(number))
            if number % 1000 == 999:
                wait_until(lambda: total(log).pending == 0, told=log.report)
                taken = sum(path.stat().st_blocks * 512 for path in tmp_path.iterdir())
                assert taken <= share
    assert total(log) == Counts(logged=10_000)
    assert log.expired_segments > 0
    ids = [line["id"] for line in lines(tmp_path)]
    assert ids == [f"request-{number}" for number in range(10_000 - len(ids), 10_000)]
    assert len(ids) > 1000


def test_a_share_too_small_for_a_line_still_takes_short_ones(tmp_path: Path) -> None:
    """The smallest share holds some segments; a record that is too long for it goes without its features."""
    with prediction_log(tmp_path, max_disk_bytes=1) as log:
        log.write(record(0, features={"text": "x" * 100_000}))
        log.write(record(1))
    assert [line["features"] is None for line in lines(tmp_path)] == [True, False]


def test_segments_are_sealed_by_age(tmp_path: Path) -> None:
    """A reader gets records without waiting for the segment to be full, and never a torn line."""
    with prediction_log(tmp_path, bounds=Bounds(sync_seconds=0.01, segment_seconds=0.0)) as log:
        for number in range(3):
            log.write(record(number))
            wait_until(lambda number=number: len(lines(tmp_path)) == number + 1, told=log.report)  # type: ignore[misc]
        assert len(list(tmp_path.glob("*.jsonl"))) == 3
    names = sorted(path.name for path in tmp_path.glob("*.jsonl"))
    assert all(name.split("-", 1)[1].startswith("pod-0-") for name in names)


def test_other_users_files_are_left_alone(tmp_path: Path) -> None:
    """What is not one of the log's segments is neither counted nor removed."""
    (tmp_path / "labels.jsonl").write_bytes(orjson.dumps({"id": "x"}) + b"\n")
    with prediction_log(tmp_path, bounds=QUICK, max_disk_bytes=1) as log:
        for number in range(3000):
            log.write(record(number))
    assert log.expired_segments > 0
    assert (tmp_path / "labels.jsonl").exists()
    assert os.access(tmp_path / "labels.jsonl", os.R_OK)


def test_what_is_sent_during_a_look_at_the_directory_is_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A segment that is sent and removed while the writer adopts is not taken for one that is there."""
    ledger = Ledger()
    directory = SegmentDirectory(
        tmp_path,
        pod="pod-0",
        most_bytes=1024 * 1024,
        segment_bytes=64 * 1024,
        segment_seconds=0.0,
        idle_seconds=0.0,
        purpose="Ship",
        ledger=ledger,
        wall_clock=iter(range(1, 10)).__next__,
        clock=lambda: 0.0,
    )

    def store() -> None:
        account = ledger.account("v1", "production")
        account.requests += 1
        batch = Batch(100)
        batch.add(b"{}\n", account)
        assert directory.append(batch) == 1

    store()
    directory.tidy()
    sent = directory.next_unsent()
    assert sent is not None
    store()
    directory._let_go()  # as after a write that failed

    def send(_: Path) -> None:
        if directory.remove(sent):
            ledger.sent(sent.records)

    monkeypatch.setattr(segments, "sync_directory", send)
    directory.tidy()
    left = directory.next_unsent()
    assert left is not None
    assert left is not sent
    assert ledger.total() == Counts(logged=1, pending=1)
