"""The flag file's watcher: what is handed on, what is refused, what stays in force."""

import os
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path

import pytest

from greenroom_runtime.contract.flags import FlagStore, Rollout, dump_flags
from greenroom_runtime.routing.flag_file import FlagFile
from tests.support.serving import FlagMount, flags


def rolling(percent: int) -> FlagStore:
    """Return v1 with a rollout of v2."""
    return flags("v1", "v2", rollout=Rollout(version="v2", hundredths=100 * percent, salt="ml/churn"))


@pytest.fixture
def mount(tmp_path: Path) -> FlagMount:
    """Mount an empty flag store."""
    return FlagMount(tmp_path / "flags")


@pytest.fixture
def seen() -> list[FlagStore]:
    """Collect the documents handed on."""
    return []


@pytest.fixture
def file(mount: FlagMount, seen: list[FlagStore]) -> FlagFile:
    """Watch the mounted file."""
    return FlagFile(path=mount.path, on_document=seen.append)


def test_each_new_document_is_handed_on_once(mount: FlagMount, file: FlagFile, seen: list[FlagStore]) -> None:
    """Polling an unchanged file says nothing; the same content in a new file neither."""
    mount.write(flags("v1"))
    file.poll()
    file.poll()
    mount.write(flags("v1"))
    file.poll()
    mount.write(flags("v2"))
    file.poll()
    assert [document.production for document in seen] == ["v1", "v2"]


def test_an_older_document_is_obeyed(mount: FlagMount, file: FlagFile, seen: list[FlagStore]) -> None:
    """A swap back to an older file, with older times, is a change like any other."""
    mount.write(flags("v1"))
    file.poll()
    mount.write(flags("v2"))
    file.poll()
    mount.write(flags("v1"))
    os.utime(mount.path, (1.0, 1.0))
    file.poll()
    assert [document.production for document in seen] == ["v1", "v2", "v1"]


@pytest.mark.parametrize(
    "garbage",
    [
        b"",
        b"{}",
        b"null",
        b"\xff\xfe\x00",
        dump_flags(flags("v1")).encode()[:-9],
        dump_flags(flags("v1")).encode().replace(b"ENABLED", b"DISABLED"),
        dump_flags(flags("v1")).replace('"resident":"v1"', '"resident":"v9"').encode(),
        dump_flags(rolling(10)).replace('"!!"', '"!"').encode(),
        dump_flags(rolling(10)).replace('"targeting"', '"rollout"').encode(),
        dump_flags(rolling(10)).encode() * 2,
        b"[" * (1024 * 1024),
        b" " * (1024 * 1024 + 1),
    ],
    ids=[
        "empty",
        "no flags",
        "null",
        "no text",
        "cut",
        "disabled",
        "contradiction",
        "another operator",
        "an unknown member",
        "twice",
        "deep",
        "huge",
    ],
)
def test_the_last_good_document_stays(
    mount: FlagMount, file: FlagFile, seen: list[FlagStore], garbage: bytes
) -> None:
    """A document that is not valid as a whole is refused, once and with a reason; a good one clears it."""
    mount.write(flags("v1"))
    file.poll()
    mount.write(garbage)
    file.poll()
    file.poll()
    assert file.error
    assert file.refusals == 1
    mount.write(flags("v1"))
    file.poll()
    assert file.error == ""
    assert [document.production for document in seen] == ["v1", "v1"]


def test_a_file_that_goes_away_is_told(mount: FlagMount, file: FlagFile, seen: list[FlagStore]) -> None:
    """Without a file the last good document stays in force, and the file is taken up when it is back."""
    file.poll()
    assert "no such file" in file.error
    assert file.was_read
    mount.write(flags("v1"))
    file.poll()
    mount.path.unlink()
    file.poll()
    assert "no such file" in file.error
    mount.path.symlink_to("..data/flags.json")
    file.poll()
    assert (file.error, len(seen)) == ("", 2)


def test_a_directory_in_the_files_place_is_told(mount: FlagMount, file: FlagFile) -> None:
    """What cannot be read as a file is a refusal like any other, and the next good file ends it."""
    mount.path.mkdir()
    file.poll()
    assert "directory" in file.error
    mount.path.rmdir()
    mount.write(flags("v1"))
    file.poll()
    assert file.error == ""


def test_a_hundred_swaps_are_a_hundred_documents(
    mount: FlagMount, file: FlagFile, seen: list[FlagStore]
) -> None:
    """Up and down again, with garbage between: each valid document is obeyed, in order, none is mixed up."""
    percents = [*range(50), *range(50, 0, -1)]
    for percent in percents:
        mount.write(rolling(percent))
        file.poll()
        mount.write(b"")
        file.poll()
    assert [document.rollout.hundredths // 100 for document in seen if document.rollout] == percents
    assert file.refusals == len(percents)


def test_swaps_during_the_reading_are_never_seen_by_half(
    mount: FlagMount, file: FlagFile, seen: list[FlagStore]
) -> None:
    """While another thread swaps, documents are handed on whole and in order, and the last one is there."""
    documents = [rolling(percent) for percent in range(101)]

    def swap() -> None:
        for document in documents:
            mount.write(document)

    with ThreadPoolExecutor(1) as writer:
        writing = writer.submit(swap)
        while not writing.done():
            file.poll()
        writing.result()
    file.poll()
    assert (file.error, seen[-1]) == ("", documents[-1])
    order = [documents.index(document) for document in seen]
    assert all(one <= next_one for one, next_one in pairwise(order))
