"""The flag file's watcher: what is handed on, what is refused, what stays in force."""

import os
from pathlib import Path

import pytest

from greenroom_runtime.contract.flags import FlagStore, dump_flags
from greenroom_runtime.routing.flag_file import FlagFile
from tests.support.serving import FlagMount, flags


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
        b" " * (1024 * 1024 + 1),
    ],
    ids=["empty", "no flags", "null", "no text", "cut", "disabled", "contradiction", "huge"],
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
