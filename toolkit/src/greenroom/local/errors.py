"""What a person at a terminal should read instead of a traceback."""


class LocalError(Exception):
    """One line that says what is wrong and what to do; the command ends, or keeps the last good state."""
