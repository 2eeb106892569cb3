"""The bundle on disk: complete under its own name, or not there at all."""

import hashlib
import json
import shutil
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

from greenroom.packaging.errors import PackagingError, VersionExistsError
from greenroom_runtime.contract.bundle import BUNDLE_FILE, Bundle, BundleFile
from greenroom_runtime.models.durable import sync_directory, write_synced


def describe(files: Mapping[str, bytes]) -> tuple[BundleFile, ...]:
    """Return the files' entries for ``bundle.json``, by path."""
    return tuple(
        BundleFile(path=path, sha256=hashlib.sha256(content).hexdigest(), size=len(content))
        for path, content in sorted(files.items())
    )


def check_target(target: Path, *, overwrite: bool) -> None:
    """Refuse a version that is there already: pods may have pinned its digest."""
    if not overwrite and (target.exists() or target.is_symlink()):
        raise VersionExistsError(
            f"{target} exists already, and a version's bytes never change under its name: choose another "
            "version, or pass overwrite=True if nothing serves it yet"
        )


def write_bundle(
    target: Path,
    bundle: Bundle,
    files: Mapping[str, bytes],
    *,
    overwrite: bool,
    prove: Callable[[Path], None],
) -> None:
    """Write the bundle beside its place, prove it there, then rename it.

    PackagingError, of ``prove`` too, leaves nothing behind.
    """
    text = json.dumps(bundle.model_dump(mode="json"), indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        stage = Path(tempfile.mkdtemp(prefix=f".stage-{target.name}-", dir=target.parent))
    except OSError as error:
        raise PackagingError(
            f"cannot write to {target.parent}: {error.strerror}: choose another directory"
        ) from error
    try:
        stage.chmod(0o755)
        for path, content in {**files, BUNDLE_FILE: text.encode()}.items():
            write_synced(stage / path, content, mode="xb")
        sync_directory(stage)
        prove(stage)
        check_target(target, overwrite=overwrite)
        _move(stage, target)
        sync_directory(target.parent)
    except OSError as error:
        raise PackagingError(f"cannot write {target}: {error.strerror}: nothing was left behind") from error
    finally:
        shutil.rmtree(stage, ignore_errors=True)


def _move(stage: Path, target: Path) -> None:
    if not target.exists():
        stage.rename(target)
        return
    old = Path(tempfile.mkdtemp(prefix=f".old-{target.name}-", dir=target.parent))
    target.rename(old / target.name)
    try:
        stage.rename(target)
    except OSError:
        (old / target.name).rename(target)
        raise
    finally:
        shutil.rmtree(old, ignore_errors=True)
