"""What keeps a bundle from being verified; that it differs is none of it."""

from greenroom.errors import UNABLE, CommandError


class UnverifiableError(CommandError):
    """There is no bundle to verify, or none with golden samples; the exit code is 2."""

    def __init__(self, message: str) -> None:
        super().__init__(message, exit_code=UNABLE)


class SubjectError(CommandError):
    """What was to be verified against cannot be loaded or does not answer; the exit code is 2."""

    def __init__(self, message: str) -> None:
        super().__init__(message, exit_code=UNABLE)
