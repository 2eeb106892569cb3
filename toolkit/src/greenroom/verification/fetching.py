"""A bundle from an object store or a web server, on this machine for as long as it is looked at."""

import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import aclosing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from greenroom.stores import RemoteVersion, explain, local_path, split_version
from greenroom.verification.errors import UnverifiableError
from greenroom.verification.running import run_async
from greenroom_runtime.contract.bundle import BUNDLE_FILE, GOLDEN_FILE, MODEL_FILE
from greenroom_runtime.models.failures import (
    ChangedInSourceError,
    NotInSourceError,
    SourceUnreachableError,
    VersionError,
)
from greenroom_runtime.models.manifest import parse_manifest
from greenroom_runtime.models.source import FileStat, Source, open_source

_MANIFEST_BYTES: Final = 16 * 1024 * 1024
_MEGABYTE: Final = 1_000_000


@contextmanager
def fetched(
    place: str | Path, *, environment: Mapping[str, str], say: Callable[[str], None]
) -> Iterator[Path]:
    """Yield the bundle's directory: itself where it lies on this machine, else a copy that goes afterwards.

    Of a URI, ``bundle.json`` and what it lists are read, as a pod reads them; a file that is not there is not
    in the copy either. UnverifiableError where there is no bundle, or it cannot be read.
    """
    if (directory := local_path(place)) is not None:
        yield directory
        return
    try:
        remote = split_version(str(place))
        source = open_source(remote.source, environment=environment)
    except ValueError as error:  # an UnsupportedSourceError too
        raise UnverifiableError(f"{place} cannot be read: {explain(error, uri=str(place))}") from error
    with tempfile.TemporaryDirectory(prefix="greenroom-") as copies:
        copy = _Copy(source=source, remote=remote, to=Path(copies) / remote.version, say=say)
        run_async(copy.fetch())
        yield copy.to


@dataclass(frozen=True, kw_only=True)
class _Copy:
    """One version on its way into a directory."""

    source: Source
    remote: RemoteVersion
    to: Path
    say: Callable[[str], None]

    async def fetch(self) -> None:
        """Write the bundle; UnverifiableError says what is in the way."""
        uri, version = self.remote.uri, self.remote.version
        try:
            raw = await self._manifest()
            bundle = parse_manifest(raw, version=version)
            found = {}
            for file in bundle.files:
                if (stat := await self._stat(file.path)) is not None:
                    found[file.path] = stat
            self._refuse_when_full(sum(stat.size for stat in found.values()))
            for path, stat in found.items():
                await self._copy(path, stat)
        except VersionError as error:
            raise UnverifiableError(f"{uri}: {error.failure.message}: package the model again") from error
        except SourceUnreachableError as error:
            raise UnverifiableError(f"{uri} cannot be read: {explain(error, uri=uri)}") from error
        except (ChangedInSourceError, NotInSourceError) as error:
            raise UnverifiableError(
                f"{uri} was changed while it was read ({error}): verify it again"
            ) from error
        except OSError as error:
            raise UnverifiableError(
                f"{uri} cannot be copied to {self.to.parent} ({error.strerror or error}): set TMPDIR to "
                "another directory"
            ) from error

    async def _manifest(self) -> bytes:
        stat = await self._stat(BUNDLE_FILE)
        if stat is None:
            raise UnverifiableError(await self._explain_absence())
        if stat.size > _MANIFEST_BYTES:
            raise UnverifiableError(
                f"{self.remote.uri}/{BUNDLE_FILE} has {stat.size} bytes, and is no bundle's"
            )
        await self._copy(BUNDLE_FILE, stat)
        return (self.to / BUNDLE_FILE).read_bytes()

    async def _explain_absence(self) -> str:
        there = [path for path in (GOLDEN_FILE, MODEL_FILE) if await self._stat(path) is not None]
        if GOLDEN_FILE in there:
            return (
                f"{self.remote.uri} has {GOLDEN_FILE} and no {BUNDLE_FILE}, which comes last: its "
                "publication is under way or was cut; publish it whole"
            )
        if there:
            return (
                f"{self.remote.uri} has {MODEL_FILE} and no {BUNDLE_FILE}: nobody has recorded how it should "
                "answer, so there is nothing to verify; package the model with greenroom.package"
            )
        return (
            f"{self.remote.uri} holds no {BUNDLE_FILE}: name a version's URI, such as "
            "s3://models/churn/v3, as it was published"
        )

    async def _stat(self, path: str) -> FileStat | None:
        try:
            return await self.source.stat(self.remote.version, path)
        except NotInSourceError:
            return None

    def _refuse_when_full(self, needed: int) -> None:
        free = shutil.disk_usage(self.to).free
        if needed > free:
            raise UnverifiableError(
                f"{self.remote.uri} has {needed} bytes, and {self.to.parent} has room for {free}: set TMPDIR "
                "to a directory with more"
            )

    async def _copy(self, path: str, stat: FileStat) -> None:
        target = self.to / path
        target.parent.mkdir(parents=True, exist_ok=True)
        held = 0
        with target.open("wb") as file:
            if stat.size:
                stream = self.source.stream(self.remote.version, path, start=0, begun=stat)
                async with aclosing(stream) as chunks:
                    async for chunk in chunks:
                        held += file.write(chunk)
                        self.say(f"fetching {path}, {held / _MEGABYTE:.1f} of {stat.size / _MEGABYTE:.1f} MB")
        if held != stat.size:
            raise SourceUnreachableError(f"{path} ended after {held} of {stat.size} bytes")
