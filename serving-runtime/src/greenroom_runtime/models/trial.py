"""The trial: a process of its own that loads a version, warms it and replays its golden samples.

``python -m greenroom_runtime.models.trial --bundle DIR`` prints one JSON line, a :class:`TrialResult`.
Whatever an unproven model does to its process, it does here.
"""

import argparse
import os
import resource
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict

from greenroom_runtime.contract.bundle import BUNDLE_FILE, GOLDEN_FILE, MODEL_FILE, Bundle
from greenroom_runtime.contract.report import Failure, FailureReason
from greenroom_runtime.models.failures import VersionError

ALLOCATION_FAILURES = ("bad_alloc", "allocate memory", "Failed to allocate", "out of memory")


class TrialResult(BaseModel):
    """What the trial found: a failure, or what it measured."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    failure: Failure | None = None
    golden: Literal["", "Passed", "Absent"] = ""
    samples: int = 0
    """Golden samples replayed."""
    memory_bytes: int = 0
    """What the model added to the process at its peak."""


def main() -> None:
    """Prove one bundle and print the result."""
    parser = argparse.ArgumentParser(prog="python -m greenroom_runtime.models.trial")
    parser.add_argument("--bundle", type=Path, required=True)
    parser.add_argument("--golden", choices=("Optional", "Required"), default="Optional")
    parser.add_argument("--memory-bytes", type=int, default=None)
    arguments = parser.parse_args()
    results = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # libraries that print must not garble the result
    if arguments.memory_bytes is not None:
        resource.setrlimit(resource.RLIMIT_DATA, (arguments.memory_bytes, arguments.memory_bytes))
    try:
        result = _prove(arguments.bundle, golden_required=arguments.golden == "Required")
    except MemoryError:
        result = TrialResult(failure=_out_of_memory("the model needs more than is left"))
    results.write(result.model_dump_json() + "\n")
    results.flush()


def _prove(directory: Path, *, golden_required: bool) -> TrialResult:
    bundle = Bundle.model_validate_json((directory / BUNDLE_FILE).read_bytes())
    try:
        result = _load_and_replay(directory, bundle)
    except VersionError as error:
        if any(text in error.failure.message for text in ALLOCATION_FAILURES):
            return TrialResult(failure=_out_of_memory(error.failure.message))
        return TrialResult(failure=error.failure)
    if golden_required and result.golden == "Absent":
        message = f"the bundle has no samples in {GOLDEN_FILE}, and verification.golden is Required: add them"
        failure = Failure(reason=FailureReason.GOLDEN_ABSENT, message=message, file=GOLDEN_FILE)
        return TrialResult(failure=failure)
    return result


def _load_and_replay(directory: Path, bundle: Bundle) -> TrialResult:
    # Imported under the limit: numpy and onnxruntime are part of what must fit.
    from greenroom_runtime.models.onnx_file import refuse_external_data  # noqa: PLC0415
    from greenroom_runtime.models.session import ModelSession  # noqa: PLC0415
    from greenroom_runtime.models.verification import replay  # noqa: PLC0415

    before = _status_bytes("VmRSS")
    refuse_external_data(directory / MODEL_FILE)
    session = ModelSession(directory, bundle=bundle)
    session.warm_up()
    golden = any(file.path == GOLDEN_FILE for file in bundle.files)
    samples = replay(session, directory) if golden else 0
    return TrialResult(
        golden="Passed" if samples else "Absent",
        samples=samples,
        memory_bytes=max(0, _status_bytes("VmHWM") - before),
    )


def _out_of_memory(detail: str) -> Failure:
    message = f"out of memory: {detail}; raise resources.limits.memory or use a smaller model"
    return Failure(reason=FailureReason.OUT_OF_MEMORY, message=message[:2048])


def _status_bytes(field: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) * 1024
    return 0


if __name__ == "__main__":
    main()
