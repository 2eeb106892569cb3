"""What a person at a terminal should read instead of a traceback."""

FAILED, UNABLE = 1, 2
"""Exit codes: what was asked for is not so, or could not be found out (as for a command that is mistyped)."""


class CommandError(Exception):
    """One line, or a few, that say what is wrong and what to do; the command ends with ``exit_code``."""

    def __init__(self, message: str, *, exit_code: int = FAILED) -> None:
        super().__init__(message)
        self.exit_code = exit_code
