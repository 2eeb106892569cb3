"""Why a pipeline was not packaged; each message ends with the remedy."""

from dataclasses import dataclass

from greenroom_runtime.contract.bundle import Value


class PackagingError(ValueError):
    """The pipeline was not packaged and nothing was written."""


class FrameError(PackagingError):
    """The training frame cannot be described as a signature."""


class ExportError(PackagingError):
    """A part of the pipeline has no equal in ONNX."""


class VersionExistsError(PackagingError):
    """The version is already there, with other bytes."""


class PublishError(PackagingError):
    """The bundle could not be put into a store: pods see the version as it was, or not at all."""


@dataclass(frozen=True, kw_only=True)
class Difference:
    """One row for which the exported graph answers otherwise than the training pipeline."""

    kind: str
    """What makes the row hostile: ``null``, ``unseen category``, ``threshold`` …"""
    features: dict[str, Value]
    expected: Value
    found: Value
    error: float
    """Largest difference of a score; infinite where one side has no number."""
    label_differs: bool


class ParityError(PackagingError):
    """The export and the training pipeline disagree; ``differences`` has every row, the worst first."""

    def __init__(self, message: str, *, differences: tuple[Difference, ...]) -> None:
        super().__init__(message)
        self.differences = differences
