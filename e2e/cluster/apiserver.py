"""An API server alone: etcd and kube-apiserver on loopback, in seconds, without root."""

import random
import socket
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Self

from e2e.cluster import debian, golang, sweep
from e2e.cluster.control_plane import LOOPBACK, ControlPlane, Ports
from e2e.cluster.guard import Guard
from e2e.cluster.model import ClusterError
from e2e.cluster.process import Components, Identity, wait_until
from e2e.cluster.record import Kind, Record

ATTEMPTS = 5
PORTS = range(20000, 32000)
"""Below the range from which the kernel takes the ports of outgoing connections."""


class ApiServer:
    """A context manager: a Kubernetes API without nodes, on ports of its own.

    With `controllers`, the controller manager runs beside it (garbage collection, Deployments,
    service accounts' root certificates); without, an object stays as it was written.
    """

    def __init__(self, *, controllers: bool = False, flags: tuple[str, ...] = ()) -> None:
        self._controllers = controllers
        self._flags = flags
        self._guard: Guard | None = None
        self._record: Record
        self._plane: ControlPlane
        self._components: Components

    @property
    def kubeconfig(self) -> Path:
        """An administrator's kubeconfig."""
        return self._plane.kubeconfig

    @property
    def url(self) -> str:
        """Where it listens; it does not change when it is restarted."""
        return self._plane.url

    @property
    def token(self) -> str:
        """An administrator's bearer token."""
        return self._plane.token

    @property
    def ca(self) -> Path:
        """The certificate authority by which its certificate is checked."""
        return self._plane.keys.ca

    @property
    def bin(self) -> Path:
        """The directory of its `kubectl`."""
        return self._plane.binaries

    @property
    def logs(self) -> Path:
        """Where its components write."""
        return self._record.directory / "logs"

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def start(self) -> None:
        """Start everything and wait until the API server is ready."""
        debian.install(debian.API_SERVER)
        binaries = golang.build(golang.NODE)
        sweep.remove_abandoned_api_servers()
        for attempt in range(1, ATTEMPTS + 1):
            try:
                self._start(binaries)
            except BaseException as failure:
                taken = isinstance(failure, ClusterError) and "address already in use" in str(failure)
                self.close()
                if not taken or attempt == ATTEMPTS:
                    raise
            else:
                return

    def close(self) -> None:
        """End everything and remove its files."""
        if self._guard is not None:
            self._guard.dismiss()
            self._guard = None
        sweep.remove(self._record)
        self._components.reap()

    def kill(self) -> None:
        """End the API server as a crash would; what it stored stays."""
        self._components.kill("kube-apiserver")

    def stop(self) -> None:
        """End the API server in order; what it stored stays."""
        self._components.stop("kube-apiserver")

    def restart(self) -> None:
        """Start the API server again, on the same port with the same objects, ending it first if it runs."""
        self._components.restart("kube-apiserver")
        self._wait()

    def _start(self, binaries: Path) -> None:
        directory = Path(tempfile.mkdtemp(prefix=sweep.API_SERVER_PREFIX))
        self._record = Record(Kind.API_SERVER, directory.name, directory, Identity.mine())
        self._record.save()
        self._components = Components(directory / "logs", self._started)
        self._plane = ControlPlane(
            directory, binaries, LOOPBACK, _ports(), "10.0.0.0/12", self._api_server_flags()
        )
        self._plane.prepare()
        self._guard = Guard(directory)
        self._components.start(self._plane.etcd())
        self._components.start(self._plane.api_server())
        self._wait()
        if self._controllers:
            self._components.start(self._plane.controllers(f"--bind-address={LOOPBACK}"))

    def _api_server_flags(self) -> tuple[str, ...]:
        return (
            f"--bind-address={LOOPBACK}",
            # It refuses to advertise loopback; without the reconciler nobody reads this address.
            "--advertise-address=198.18.0.1",
            "--endpoint-reconciler-type=none",
            *self._flags,
        )

    def _wait(self) -> None:
        wait_until(self._plane.ready, "the API server", self._components)

    def _started(self, name: str, identity: Identity) -> None:
        self._record = self._record.with_process(name, identity)
        self._record.save()


def _ports() -> Ports:
    free: set[int] = set()
    while len(free) < len(Ports.__dataclass_fields__):
        port = random.choice(PORTS)  # noqa: S311 - nobody's secret
        with socket.socket() as probe:
            # As Go's servers do: a connection of an earlier server that lingers does not matter.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((LOOPBACK, port))
            except OSError:
                continue
        free.add(port)
    return Ports(*free)
