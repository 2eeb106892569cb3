"""A bundle into an object store: file by file, ``bundle.json`` last, and never over other bytes.

Until ``bundle.json`` is there no pod takes the version for a bundle; and beside ``golden.jsonl``, which comes
first, none takes its model for one without a bundle.
"""

import hashlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Final

import obstore
from obstore.exceptions import AlreadyExistsError, BaseError
from obstore.store import ObjectStore
from pydantic import ValidationError

from greenroom.packaging.errors import PublishError, VersionExistsError
from greenroom.progress import counting
from greenroom.stores import RemoteVersion, explain, is_absent
from greenroom_runtime.contract.bundle import BUNDLE_FILE, GOLDEN_FILE, MODEL_FILE, Bundle, BundleFile
from greenroom_runtime.models.clouds import CLOUD_SCHEMES, open_store
from greenroom_runtime.models.manifest import digest_of

_LONGEST: Final = timedelta(minutes=5)
"""One request: a part of a large file, not the whole of it."""
_CHUNK_BYTES: Final = 1024 * 1024
_STORE_ERRORS: Final = (BaseError, OSError, ValueError)


@dataclass(frozen=True, kw_only=True)
class Publication:
    """A version's place in an object store."""

    remote: RemoteVersion
    store: ObjectStore
    overwrite: bool = False

    @classmethod
    def open(
        cls, source: str, version: str, *, overwrite: bool, environment: Mapping[str, str]
    ) -> "Publication":
        """Return the place ``source/version``; PublishError where it cannot be reached.

        So that nobody packages for an hour to be told that there are no credentials.
        """
        if source.partition("://")[0] not in CLOUD_SCHEMES:
            raise PublishError(
                f"{source} cannot be written to: name a directory, s3://BUCKET/PREFIX, gs://BUCKET/PREFIX or "
                "az://CONTAINER/PREFIX"
            )
        remote = RemoteVersion(source=source.rstrip("/"), version=version)
        try:
            store = open_store(source, environment=environment, longest=_LONGEST)
        except ValueError as error:
            raise PublishError(f"{source} cannot be opened: {explain(error, uri=source)}") from error
        found = cls(remote=remote, store=store, overwrite=overwrite)
        found._read(BUNDLE_FILE)
        return found

    def publish(self, directory: Path) -> bytes:
        """Write a bundle's directory there and return its ``bundle.json``.

        Where the same bundle is there already, but for its date, nothing is written, and that one's is
        returned. What a publication that was cut has left is gone on with, as far as it has the same bytes.
        VersionExistsError where the version has others, unless ``overwrite``; else PublishError.
        """
        raw = (directory / BUNDLE_FILE).read_bytes()
        bundle = Bundle.model_validate_json(raw)
        published = self._read(BUNDLE_FILE)
        if published is not None and not self.overwrite:
            self._refuse_other(published, bundle, raw)
            return published
        if published is not None:
            self._delete(BUNDLE_FILE)  # or pods would take half of the one for a spoilt other
        files = sorted(bundle.files, key=_turn)
        with counting(f"publishing {self.remote.uri}", sum(file.size for file in files)) as count:
            for file in files:
                self._put(file, directory / file.path, count)
            self._claim(BUNDLE_FILE, raw)
        return raw

    def _refuse_other(self, published: bytes, bundle: Bundle, raw: bytes) -> None:
        try:
            found = Bundle.model_validate_json(published)
            same = found.model_copy(update={"created": bundle.created}) == bundle
        except ValidationError:
            same = False
        if not same:
            raise VersionExistsError(
                f"{self.remote.uri} is there already with other bytes ({digest_of(published)}, not "
                f"{digest_of(raw)}), and a version's bytes never change under its name: choose another "
                "version, or --overwrite if nothing serves it yet"
            )

    def _put(self, file: BundleFile, path: Path, count: Callable[[int], None]) -> None:
        if not self.overwrite and self._holds(file):
            count(file.size)
        elif file.path == GOLDEN_FILE:
            self._claim(file.path, path.read_bytes())
            count(file.size)
        else:
            try:
                obstore.put(self.store, self._key(file.path), _chunks(path, count))
            except _STORE_ERRORS as error:
                raise self._failed(file.path, error) from error

    def _holds(self, file: BundleFile) -> bool:
        """Tell whether the file is there; PublishError where it is with other bytes."""
        try:
            digest = hashlib.sha256()
            for chunk in obstore.get(self.store, self._key(file.path)).stream(min_chunk_size=_CHUNK_BYTES):
                digest.update(chunk)
        except _STORE_ERRORS as error:
            if isinstance(error, FileNotFoundError) and not is_absent(error):
                return False
            raise self._failed(file.path, error) from error
        if digest.hexdigest() != file.sha256:
            raise VersionExistsError(
                f"{self.remote.uri} has another {file.path} and no {BUNDLE_FILE}: it is a version without a "
                "bundle, or another publication that is under way or was cut; choose another version, or "
                "--overwrite if nothing serves it"
            )
        return True

    def _claim(self, path: str, content: bytes) -> None:
        """Put a small file that nobody else may have put meanwhile: of two that publish, one goes on."""
        mode = "overwrite" if self.overwrite else "create"
        try:
            obstore.put(self.store, self._key(path), content, mode=mode, use_multipart=False)  # type: ignore[arg-type]
        except AlreadyExistsError as error:
            raise VersionExistsError(
                f"{self.remote.uri}: somebody else publishes this version just now: choose another one"
            ) from error
        except _STORE_ERRORS as error:
            raise self._failed(path, error) from error

    def _read(self, path: str) -> bytes | None:
        try:
            return bytes(obstore.get(self.store, self._key(path)).bytes())
        except _STORE_ERRORS as error:
            if isinstance(error, FileNotFoundError) and not is_absent(error):
                return None
            told = explain(error, uri=self.remote.uri)
            raise PublishError(f"{self.remote.source} cannot be used: {told}") from error

    def _delete(self, path: str) -> None:
        try:
            obstore.delete(self.store, self._key(path))
        except _STORE_ERRORS as error:
            raise self._failed(path, error) from error

    def _failed(self, path: str, error: Exception) -> PublishError:
        return PublishError(
            f"{self.remote.uri}/{path} cannot be written: {explain(error, uri=self.remote.uri)}; without "
            f"{BUNDLE_FILE} no pod takes the version"
        )

    def _key(self, path: str) -> str:
        return f"{self.remote.version}/{path}"


def _turn(file: BundleFile) -> tuple[bool, bool, str]:
    """Golden samples first, the model last."""
    return (file.path != GOLDEN_FILE, file.path == MODEL_FILE, file.path)


def _chunks(path: Path, count: Callable[[int], None]) -> Iterator[bytes]:
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            yield chunk
            count(len(chunk))
