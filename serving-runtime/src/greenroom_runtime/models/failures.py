"""What can go wrong with a version, as one typed error."""

from greenroom_runtime.contract.report import Failure, FailureReason


class VersionError(Exception):
    """This version cannot be served; carries the failure that the pod reports."""

    def __init__(
        self,
        reason: FailureReason,
        message: str,
        *,
        file: str = "",
        sample: int | None = None,
        expected: str = "",
        found: str = "",
    ) -> None:
        super().__init__(f"{reason}: {message}")
        self.failure = Failure(
            reason=reason,
            message=message[:2048],
            file=file[:256],
            sample=sample,
            expected=expected[:512],
            found=found[:512],
        )

    @classmethod
    def of(cls, failure: Failure) -> "VersionError":
        """Raise again what another process has reported."""
        return cls(
            failure.reason,
            failure.message,
            file=failure.file,
            sample=failure.sample,
            expected=failure.expected,
            found=failure.found,
        )


class SourceUnreachableError(Exception):
    """The source does not answer, or not to us: nothing is known about the version, so it is asked again."""


class NotInSourceError(Exception):
    """The source answers, and has no such file."""


class NotARegularFileError(Exception):
    """The path is a link that leaves the bundle, a directory or a device."""


class ChangedInSourceError(Exception):
    """The source has other bytes under this name than when the file was begun."""
