"""A shadow that only reads, in a process of its own, and what it has read.

``python -m tests.support.frame_reader ADDRESS FILE PAUSE`` listens, prints ``listening``, and appends each
whole frame to FILE; it waits for PAUSE seconds after each read.
"""

import os
import selectors
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import mkdtemp
from typing import Self

from greenroom_runtime.shadow.frame import LENGTH_BYTES, MAX_PACKET, Frame, decode_frames
from tests.support.serving import DEADLINE_SECONDS


class FrameReader:
    """The process; ended when the block ends."""

    def __init__(self, address: str, *, pause: float = 0.0) -> None:
        self.address = address
        self._pause = pause
        self._file = Path(mkdtemp(prefix="frames-")) / "frames"
        self.process: subprocess.Popen[str]

    def __enter__(self) -> Self:
        command = [sys.executable, "-m", "tests.support.frame_reader", self.address, str(self._file)]
        self.process = subprocess.Popen([*command, str(self._pause)], stdout=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == "listening\n"
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()
        self._file.unlink()
        self._file.parent.rmdir()

    def kill(self) -> None:
        """End it at once."""
        self.process.kill()
        self.process.wait()
        assert self.process.stdout is not None
        self.process.stdout.close()

    def stop(self) -> None:
        """Let it hang."""
        self.process.send_signal(signal.SIGSTOP)

    def go_on(self) -> None:
        """Let it read again."""
        self.process.send_signal(signal.SIGCONT)

    def frames(self) -> list[Frame]:
        """Return what has arrived; what is being written is not there yet."""
        content = self._file.read_bytes()
        whole = 0
        while len(content) - whole >= LENGTH_BYTES:
            end = whole + LENGTH_BYTES + int.from_bytes(content[whole : whole + LENGTH_BYTES], "big")
            if end > len(content):
                break
            whole = end
        return list(decode_frames(content[:whole]))

    def wait_for(self, condition: Callable[[Sequence[Frame]], bool]) -> list[Frame]:
        """Wait until what has arrived fulfils the condition."""
        deadline = time.monotonic() + DEADLINE_SECONDS
        while not condition(frames := self.frames()):
            assert time.monotonic() < deadline, f"{len(frames)} frames have arrived; the last: {frames[-1:]}"
            time.sleep(0.02)
        return frames


def listen(address: str) -> socket.socket:
    """Listen on ``unix:PATH``, replaced in one step, or on ``tcp:HOST:PORT``, which others may hold."""
    kind, _, place = address.partition(":")
    if kind == "unix":
        listening = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        listening.bind(f"{place}.{os.getpid()}")
        listening.listen()
        Path(f"{place}.{os.getpid()}").rename(place)
        return listening
    host, _, port = place.partition(":")
    listening = socket.socket()
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    # Small, so that whoever is slow here is felt there.
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, MAX_PACKET)
    listening.bind((host, int(port)))
    listening.listen()
    return listening


def reserve_port() -> socket.socket:
    """Return a socket that keeps a port of 127.0.0.1 for who listens with `listen`; itself it refuses."""
    reserved = socket.socket()
    reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    reserved.bind(("127.0.0.1", 0))
    return reserved


def _read(listening: socket.socket, file: Path, pause: float) -> None:
    with selectors.DefaultSelector() as selector, file.open("ab", buffering=0) as output:
        selector.register(listening, selectors.EVENT_READ)
        parts: dict[socket.socket, bytes] = {}
        while True:
            for key, _ in selector.select():
                connection = key.fileobj
                assert isinstance(connection, socket.socket)
                if connection is listening:
                    made, _ = listening.accept()
                    parts[made] = b""
                    selector.register(made, selectors.EVENT_READ)
                    continue
                data = connection.recv(MAX_PACKET)
                if not data:
                    selector.unregister(connection)
                    connection.close()
                    continue
                parts[connection] = _write_whole(parts[connection] + data, output.write)
                time.sleep(pause)


def _write_whole(content: bytes, write: Callable[[bytes], object]) -> bytes:
    """Write the whole frames, and return the rest."""
    start = 0
    while len(content) - start >= LENGTH_BYTES:
        end = start + LENGTH_BYTES + int.from_bytes(content[start : start + LENGTH_BYTES], "big")
        if end > len(content):
            break
        start = end
    write(content[:start])
    return content[start:]


if __name__ == "__main__":
    Path(sys.argv[2]).touch()
    LISTENING = listen(sys.argv[1])
    sys.stdout.write("listening\n")
    sys.stdout.flush()
    _read(LISTENING, Path(sys.argv[2]), float(sys.argv[3]))
