"""A server as the machine sees it: a tree of processes pinned to one core, its CPU time and its memory."""

import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.serving.load import SERVER_CORE

_TICK = os.sysconf("SC_CLK_TCK")
_STOP_SECONDS = 20.0
_MIB = 1024**2


class ServerError(Exception):
    """A server did not start, or answered what the model does not say."""


@dataclass(frozen=True, kw_only=True)
class Memory:
    """Of a whole process tree, in MiB."""

    rss: float
    """The sum over its processes: pages that they share count in each."""
    pss: float
    """The same with shared pages divided among their holders."""


@dataclass(frozen=True, kw_only=True)
class Tree:
    """A started server with its children."""

    pid: int
    log: Path

    def pids(self) -> list[int]:
        """Return the server's process and all that come from it."""
        children: dict[int, list[int]] = {}
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit() and (fields := _stat(int(entry.name))):
                children.setdefault(int(fields[1]), []).append(int(entry.name))
        found = [self.pid]
        for pid in found:
            found += children.get(pid, [])
        return found

    def cpu_seconds(self) -> float:
        """Return user and system time of all threads of the tree, of ended and reaped children too."""
        ticks = [sum(map(int, fields[11:15])) for pid in self.pids() if (fields := _stat(pid))]
        return sum(ticks) / _TICK

    def memory(self) -> Memory:
        """Return what the tree holds now."""
        rss = pss = 0
        for pid in self.pids():
            try:
                lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
            except OSError:  # it has just ended
                continue
            sizes = {line.split(":")[0]: int(line.split()[1]) * 1024 for line in lines[1:]}
            rss, pss = rss + sizes["Rss"], pss + sizes["Pss"]
        return Memory(rss=rss / _MIB, pss=pss / _MIB)

    def last_words(self) -> str:
        """Return the end of the server's log."""
        return self.log.read_text(errors="replace")[-600:]


def _stat(pid: int) -> list[str]:
    """Return the fields of ``/proc/PID/stat`` after the command's name (state, ppid, …); none if it ended."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []


@contextmanager
def started(
    command: Sequence[str], *, environment: Mapping[str, str], cwd: Path, log: Path
) -> Iterator[Tree]:
    """Run a server on its core; end it, and whatever it has started, with the block."""
    with log.open("wb") as output:
        process = subprocess.Popen(
            ["taskset", "--cpu-list", str(SERVER_CORE), *command],
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**os.environ, **environment},
            cwd=cwd,
            start_new_session=True,
        )
    tree = Tree(pid=process.pid, log=log)
    try:
        yield tree
    finally:
        members = {pid: _begun(pid) for pid in tree.pids()}
        process.terminate()
        try:
            process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        for pid, begun in members.items():  # what has outlived the server
            if begun and _begun(pid) == begun:
                os.kill(pid, signal.SIGKILL)


def _begun(pid: int) -> str:
    """Return when the process began, which tells it from a later one of its number; empty if it ended."""
    fields = _stat(pid)
    return fields[19] if fields else ""


def free_ports(count: int) -> list[int]:
    """Return ports that nobody listens on now."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports: list[int] = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


@dataclass(frozen=True, kw_only=True)
class Response:
    """One answer as it came over the wire."""

    status: int
    headers: Mapping[str, str]
    body: bytes


def ask(port: int, raw: bytes, *, timeout: float = 10.0) -> Response:
    """Send one prepared request on a connection of its own; OSError where nobody answers."""
    with socket.create_connection(("127.0.0.1", port), timeout=timeout) as connection:
        connection.sendall(raw)
        return read_response(connection)


def read_response(connection: socket.socket) -> Response:
    """Read one answer, which must have a Content-Length."""
    received = b""
    while b"\r\n\r\n" not in received:
        received += _more(connection)
    head, _, body = received.partition(b"\r\n\r\n")
    status, *lines = head.decode("latin-1").split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    if "content-length" not in headers:
        raise ServerError(f"an answer without Content-Length: {head!r}")
    while len(body) < int(headers["content-length"]):
        body += _more(connection)
    return Response(status=int(status.split()[1]), headers=headers, body=body)


def _more(connection: socket.socket) -> bytes:
    data = connection.recv(65536)
    if not data:
        raise ConnectionError("the server closed the connection within an answer")
    return data


def wait_ready(tree: Tree, port: int, raw: bytes, *, since: float, seconds: float = 60.0) -> float:
    """Return the seconds from ``since`` to the first 200; ServerError where there is none."""
    while (waited := time.monotonic() - since) < seconds:
        try:
            response = ask(port, raw)
        except OSError:
            response = None
        if response is not None and response.status == 200:
            return time.monotonic() - since
        if not _stat(tree.pid) or _stat(tree.pid)[0] == "Z":
            raise ServerError(f"it ended: {tree.last_words()}")
        time.sleep(0.01)
    said = f"; its last answer: {response.status} {response.body[:300]!r}" if response else ""
    raise ServerError(f"no 200 within {waited:.0f} s{said}: {tree.last_words()}")
