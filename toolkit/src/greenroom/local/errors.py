"""What goes wrong with serving on this machine."""

from greenroom.errors import CommandError


class LocalError(CommandError):
    """The command ends, or keeps the last good state."""
