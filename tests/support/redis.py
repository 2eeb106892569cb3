"""A real Redis for tests: Debian's ``redis-server``, which can be killed, frozen and begun anew."""

import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import redis

from e2e.cluster import debian
from e2e.cluster.debian import Package
from tests.support.ports import free_port

DEADLINE_SECONDS = 30.0
"""How long a server may take to come up; only ever reached on failure."""
PACKAGE = Package("redis-server", "redis-server")


@dataclass(kw_only=True)
class RedisServer:
    """A server on one port, which it keeps over its restarts; nothing of it is on disk."""

    port: int
    arguments: tuple[str, ...] = ()
    password: str = ""
    tls: Path | None = None
    directory: str = ""
    _process: "subprocess.Popen[bytes] | None" = field(default=None)

    @property
    def url(self) -> str:
        """What ``features.redis.url`` is for it."""
        return f"{'rediss' if self.tls else 'redis'}://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Start it, empty, and wait until it answers."""
        listening = ["--port", str(self.port)]
        if self.tls is not None:
            tls = ["--tls-port", str(self.port), "--tls-auth-clients", "no"]
            files = [f"--tls-{name}-file" for name in ("cert", "key", "ca-cert")]
            listening = ["--port", "0", *tls, *(part for name in files for part in (name, str(self.tls)))]
        secret = ["--requirepass", self.password] if self.password else []
        quiet = ["--save", "", "--appendonly", "no", "--dir", self.directory, "--bind", "127.0.0.1"]
        self._process = subprocess.Popen(
            ["redis-server", *self.arguments, *listening, *secret, *quiet], stdout=subprocess.DEVNULL
        )
        deadline = time.monotonic() + DEADLINE_SECONDS
        while not self._answers():
            assert self._process.poll() is None, "redis-server has ended"
            assert time.monotonic() < deadline, "redis-server does not answer"
            time.sleep(0.01)

    def kill(self) -> None:
        """End it at once."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def freeze(self) -> None:
        """Let it hang: connections are taken, and nothing is answered."""
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let it go on."""
        self._signal(signal.SIGCONT)

    def client(self, *, text: bool = True) -> Any:
        """Return a client of the tests' own, which takes values for ``text``."""
        return redis.Redis(
            port=self.port,
            password=self.password or None,
            ssl=self.tls is not None,
            ssl_cert_reqs="none",
            decode_responses=text,
        )

    def commands(self, name: str) -> int:
        """Return how often it has carried out a command, such as ``mget``."""
        with self.client() as client:
            stats: dict[str, Any] = client.info("commandstats")
        return int(stats.get(f"cmdstat_{name}", {"calls": 0})["calls"])

    def _answers(self) -> bool:
        try:
            with self.client() as client:
                return bool(client.ping())
        except redis.RedisError:
            return False

    def _signal(self, number: signal.Signals) -> None:
        assert self._process is not None
        self._process.send_signal(number)


@contextmanager
def redis_server(
    *arguments: str, password: str = "", tls: Path | None = None, port: int = 0
) -> Iterator[RedisServer]:
    """Run a server until the block ends; ClusterError says how to install one where there is none."""
    debian.install((PACKAGE,))
    with TemporaryDirectory() as directory:
        server = RedisServer(
            port=port or free_port(), arguments=arguments, password=password, tls=tls, directory=directory
        )
        server.start()
        try:
            yield server
        finally:
            server.kill()
