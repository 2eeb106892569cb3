"""``bundle.json`` as a document that nobody has to be trusted with: parsed strictly, or one clear refusal."""

import hashlib
from collections.abc import Iterable
from functools import partial
from pathlib import PurePosixPath

from pydantic import ValidationError

from greenroom_runtime.contract.bundle import BUNDLE_FILE, MODEL_FILE, SCHEMA_VERSION, Bundle, BundleFile
from greenroom_runtime.contract.canonical import canonical_json
from greenroom_runtime.contract.report import FailureReason
from greenroom_runtime.models.failures import VersionError

_MOST_FILES = 1000
"""Each costs the disk a wait of its own."""
_NAME_BYTES = 255
_PATH_BYTES = 1024
"""What file systems take, and object stores too."""


def parse_manifest(raw: bytes, *, version: str) -> Bundle:
    """Return the bundle that ``bundle.json`` describes; VersionError(InvalidBundle) says what is wrong."""
    invalid = partial(VersionError, FailureReason.INVALID_BUNDLE, file=BUNDLE_FILE)
    try:
        bundle = Bundle.model_validate_json(raw)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"])) or "document"
        raise invalid(f"{BUNDLE_FILE}: {place}: {first['msg']}") from error
    if bundle.schema_version > SCHEMA_VERSION:
        message = (
            f"{BUNDLE_FILE} has schema version {bundle.schema_version}, this runtime reads up to "
            f"{SCHEMA_VERSION}: use a newer runtime image"
        )
        raise invalid(message, expected=str(SCHEMA_VERSION), found=str(bundle.schema_version))
    if bundle.version != version:
        message = (
            f"{BUNDLE_FILE} says that it is version {bundle.version!r}, not {version!r}: "
            f"package it under the name that it is published as"
        )
        raise invalid(message, expected=version, found=bundle.version)
    if len(bundle.files) > _MOST_FILES:
        message = (
            f"{BUNDLE_FILE} lists {len(bundle.files)} files, more than {_MOST_FILES}: pack them together"
        )
        raise invalid(message, expected=f"at most {_MOST_FILES}", found=str(len(bundle.files)))
    paths = [file.path for file in bundle.files]
    if MODEL_FILE not in paths or len(set(paths)) != len(paths) or BUNDLE_FILE in paths:
        message = f"{BUNDLE_FILE} must list {MODEL_FILE}, each file once, and not itself"
        raise invalid(message, found=", ".join(paths))
    _refuse_impossible_paths(paths)
    return bundle


def _refuse_impossible_paths(paths: Iterable[str]) -> None:
    """Refuse what no directory can hold, which would else look like a passing fault of the disk."""
    directories = {
        str(parent): path for path in (*paths, BUNDLE_FILE) for parent in PurePosixPath(path).parents
    }
    for path in (*paths, BUNDLE_FILE):
        if path in directories:
            problem = f"is a file and, for {directories[path]}, a directory"
        elif len(path) > _PATH_BYTES or max(map(len, path.split("/"))) > _NAME_BYTES:
            problem = f"is longer than {_NAME_BYTES} bytes a name or {_PATH_BYTES} in all"
        else:
            continue
        message = f"{BUNDLE_FILE} lists {path[:256]!r}, which {problem}: package it under another name"
        raise VersionError(FailureReason.INVALID_BUNDLE, message, file=path)


def digest_of(raw: bytes) -> str:
    """Return ``sha256:…`` of a ``bundle.json``: it lists the digest of every file, so it stands for all."""
    return f"sha256:{hashlib.sha256(raw).hexdigest()}"


def digest_of_files(files: Iterable[BundleFile]) -> str:
    """Return ``sha256:…`` of a version that came without ``bundle.json``.

    From the published bytes alone, not from what this release makes of them: so a pin outlives an upgrade.
    """
    listed = sorted((file.path, file.sha256) for file in files)
    return digest_of(canonical_json(listed).encode())
