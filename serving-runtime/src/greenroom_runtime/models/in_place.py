"""Files of a mounted source that are loaded where they lie, and may change under our hands.

Hashed before, such a file could be another one by the time onnxruntime reads it; kept in memory as well, it
would take its size twice. So it is opened once, loaded through that very file, hashed *after* the load, and
its change time compared: an overwritten file stays overwritten, and nobody can turn a change time back.
"""

import hashlib
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from io import BufferedReader
from pathlib import Path

from greenroom_runtime.contract.bundle import BundleFile
from greenroom_runtime.contract.report import FailureReason
from greenroom_runtime.models.failures import NotARegularFileError, VersionError


def open_regular(path: Path) -> BufferedReader:
    """Open a file for reading; NotARegularFileError for what may never begin or never end, as a pipe."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        message = f"{path} is no regular file"
        raise NotARegularFileError(message)
    return os.fdopen(descriptor, "rb")


@contextmanager
def proven_after(path: Path, *, file: BundleFile) -> Iterator[Path]:
    """Yield the path to load the file by; VersionError afterwards where it is not what its digest says.

    Only links are looked at again: what lies in the store itself is changed by nobody else.
    """
    if not path.is_symlink():
        yield path
        return
    with open_regular(path) as opened:
        before = os.fstat(opened.fileno())
        yield Path(f"/proc/self/fd/{opened.fileno()}")
        sha256 = hashlib.file_digest(opened, "sha256").hexdigest()
        after = os.fstat(opened.fileno())
    still = (before.st_mtime_ns, before.st_ctime_ns) == (after.st_mtime_ns, after.st_ctime_ns)
    if sha256 != file.sha256 or not still:
        message = (
            f"{file.path} was changed in {path.resolve().parent} while it was loaded: a version's bytes "
            f"never change under its name, publish others as another version"
        )
        raise VersionError(
            FailureReason.DIGEST_MISMATCH, message, file=file.path, expected=file.sha256, found=sha256
        )
