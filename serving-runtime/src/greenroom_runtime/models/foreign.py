"""A version that was not packaged for us: what its own files say of it.

``python -m greenroom_runtime.models.foreign --directory DIR`` reads ``model.onnx``, and MLflow's ``MLmodel``
beside it, and prints one JSON line. In a process of its own, since nobody has vouched for these files yet.
"""

import argparse
import resource
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from greenroom_runtime.contract.bundle import MODEL_FILE, Batching, Signature
from greenroom_runtime.contract.report import Failure, FailureReason
from greenroom_runtime.models.apart import run_apart
from greenroom_runtime.models.failures import VersionError

MLMODEL_FILE = "MLmodel"
MLMODEL_BYTES = 256 * 1024
"""Largest one that is read; MLflow writes some kilobytes."""
_READ_SECONDS = 60.0
_MEMORY_BYTES = 96 * 1024 * 1024
"""Of data; enough for 200,000 operators. The file itself is mapped and does not count."""
_OUTPUT_BYTES = 16 * 1024 * 1024


class Description(BaseModel):
    """The part of a bundle that is read from a foreign version's files."""

    model_config = ConfigDict(frozen=True)

    name: str
    created: str
    """RFC 3339, UTC; empty where the files do not say."""
    framework: str
    signature: Signature
    batching: Batching


class _Result(BaseModel):
    description: Description | None = None
    failure: Failure | None = None


async def describe(directory: Path) -> Description:
    """Return what the directory's files say; VersionError where they cannot be served."""
    try:
        ended = await run_apart(
            __name__, ("--directory", str(directory)), seconds=_READ_SECONDS, output_bytes=_OUTPUT_BYTES
        )
    except TimeoutError:
        message = (
            f"{MODEL_FILE} could not be read within {_READ_SECONDS:g} s: it is no model, or far too large"
        )
        raise VersionError(FailureReason.NOT_LOADABLE, message, file=MODEL_FILE) from None
    try:
        result = _Result.model_validate_json(ended.output)
    except ValidationError:
        message = f"{MODEL_FILE} could not be read; the reader's last words: {ended.errors[-500:] or 'none'}"
        raise VersionError(FailureReason.NOT_LOADABLE, message, file=MODEL_FILE) from None
    if result.failure is not None:
        raise VersionError.of(result.failure)
    if result.description is None:
        message = "the reader of foreign versions says nothing"
        raise VersionError(FailureReason.NOT_LOADABLE, message)
    return result.description


def main() -> None:
    """Read one directory and print the result."""
    parser = argparse.ArgumentParser(prog="python -m greenroom_runtime.models.foreign")
    parser.add_argument("--directory", type=Path, required=True)
    arguments = parser.parse_args()
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    most = _MEMORY_BYTES if hard == resource.RLIM_INFINITY else min(_MEMORY_BYTES, hard)
    resource.setrlimit(resource.RLIMIT_DATA, (most, hard))
    try:
        result = _Result(description=_read(arguments.directory))
    except VersionError as error:
        result = _Result(failure=error.failure)
    except MemoryError:
        message = f"{MODEL_FILE} takes more than {most} bytes only to be looked at: it is no model"
        failure = Failure(reason=FailureReason.NOT_LOADABLE, message=message, file=MODEL_FILE)
        result = _Result(failure=failure)
    print(result.model_dump_json(), flush=True)  # noqa: T201 the result


def _read(directory: Path) -> Description:
    # Imported here: the serving process itself needs none of it.
    from greenroom_runtime.models.graph_signature import signature_of  # noqa: PLC0415
    from greenroom_runtime.models.mlmodel import read_mlmodel  # noqa: PLC0415
    from greenroom_runtime.models.onnx_file import read_outline  # noqa: PLC0415

    mlmodel = read_mlmodel(directory / MLMODEL_FILE) if (directory / MLMODEL_FILE).exists() else None
    if not (directory / MODEL_FILE).exists():
        message = f"{MODEL_FILE} is missing beside {MLMODEL_FILE}: publish the version again, whole"
        raise VersionError(FailureReason.INVALID_BUNDLE, message, file=MODEL_FILE)
    outline = read_outline(directory / MODEL_FILE)
    signature, batching = signature_of(outline, given=mlmodel.inputs if mlmodel else None)
    return Description(
        name=outline.name[:256] or "model",
        created=mlmodel.created if mlmodel else "",
        framework=", ".join(filter(None, (outline.producer, mlmodel.writer if mlmodel else ""))),
        signature=signature,
        batching=batching,
    )


if __name__ == "__main__":
    main()
