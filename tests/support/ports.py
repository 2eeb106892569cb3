"""Ports for what is told on which one to listen, or where nobody is to listen."""

import random
import socket

_RANGE = range(10_000, 20_000)
"""Below those that the kernel gives to whoever asks for any port, and to outgoing connections."""


def free_port() -> int:
    """Return a port of 127.0.0.1 that nobody has now, and that nobody else gets by chance while a test runs.

    Tests run beside each other: a port of the kernel's choosing would be another's a moment later.
    """
    while True:
        port = random.choice(_RANGE)  # noqa: S311 nobody's secret
        with socket.socket() as probe:
            # As servers do: a connection of an earlier one that lingers does not matter.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        return port
