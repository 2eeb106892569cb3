"""Commands as a user types them at a terminal whose kubectl and helm mean one cluster."""

import shlex
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from e2e.cluster import Cluster, ClusterError, environment

ROOT = Path(__file__).resolve().parents[1]
"""Where the commands are typed: the clone's own directory."""
FORWARDED = "Forwarding from 127.0.0.1:"


@dataclass(frozen=True)
class Terminal:
    """Runs commands; with ``echo`` prints each one and what it says, as a terminal would show it."""

    env: Mapping[str, str]
    routed: bool
    """Whether ClusterIPs answer from here."""
    echo: bool = False

    @classmethod
    def of(cls, cluster: Cluster, *, echo: bool = False) -> "Terminal":
        """Open a terminal on a cluster."""
        return cls(env=environment(cluster), routed=cluster.routed, echo=echo)

    def run(self, *command: str, stdin: str | None = None, timeout: float = 300) -> str:
        """Run a command to its end and return its standard output; ClusterError with what it said."""
        self.show(f"$ {shlex.join(command)}" + ("" if stdin is None else f" <<'EOF'\n{stdin.rstrip()}\nEOF"))
        done = subprocess.run(
            command,
            cwd=ROOT,
            env=self.env,
            input=stdin,
            capture_output=True,
            text=True,
            check=False,
            timeout=timeout,
        )
        self.show(done.stdout.rstrip())
        if done.returncode:
            said = (done.stderr.strip() or done.stdout.strip())[-4000:]
            raise ClusterError(f"`{shlex.join(command)}` ended with code {done.returncode}: {said}")
        return done.stdout

    def kubectl(self, namespace: str, *arguments: str, stdin: str | None = None) -> str:
        """Run kubectl in a namespace."""
        return self.run("kubectl", "--namespace", namespace, *arguments, stdin=stdin)

    def show(self, text: str) -> None:
        """Print a line, if this terminal is one that people look at."""
        if self.echo and text:
            sys.stdout.write(f"{text}\n")
            sys.stdout.flush()

    @contextmanager
    def reach(self, namespace: str, service: str, *, port: int) -> Iterator[str]:
        """Give a URL by which this machine reaches a Service: its ClusterIP, or else a forwarded port.

        A forwarded port ends at one pod; only the ClusterIP spreads over all of them.
        """
        if self.routed:
            address = self.kubectl(
                namespace, "get", "service", service, "--output=jsonpath={.spec.clusterIP}"
            )
            yield f"http://{address}:{port}"
            return
        command = ("kubectl", "--namespace", namespace, "port-forward", f"service/{service}", f":{port}")
        self.show(f"$ {shlex.join(command)} &")
        with subprocess.Popen(command, env=self.env, stdout=subprocess.PIPE, text=True) as forward:
            assert forward.stdout is not None
            try:
                said = forward.stdout.readline()
                if not said.startswith(FORWARDED):
                    raise ClusterError(
                        f"`{shlex.join(command)}` forwards nothing: {said.strip() or 'see above'}"
                    )
                self.show(said.rstrip())
                yield f"http://127.0.0.1:{said.removeprefix(FORWARDED).split()[0]}"
            finally:
                forward.terminate()
