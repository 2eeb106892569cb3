"""A cluster of one node, on this machine, in namespaces and control groups of its own."""

import json
import os
import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Self

from e2e.cluster import cgroups, debian, golang, images, network, paths, sweep
from e2e.cluster.control_plane import ControlPlane, Ports, fetch
from e2e.cluster.guard import Guard
from e2e.cluster.model import ClusterError
from e2e.cluster.node import DNS_READY, PRIVATE, PROXY_READY, RUN, Node, pause_archive
from e2e.cluster.process import Component, Components, Identity, wait_until
from e2e.cluster.progress import say, step
from e2e.cluster.record import HOLDER, Kind, Record
from e2e.cluster.shell import run

NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,30}[a-z0-9])?")
NODE = "node"


class Embedded:
    """A running embedded cluster."""

    def __init__(self, record: Record, binaries: Path) -> None:
        self._record = record
        self.bin = binaries
        self._guard: Guard | None = None
        self.components = Components(self.logs, self._started)

    @classmethod
    def up(cls, name: str, *, keep: bool = False) -> Self:
        """Start a cluster that ends with this process, or, kept, with `down`."""
        _check(name)
        debian.install(debian.NODE)
        binaries = golang.tools()
        cluster = cls(_register(name), binaries)
        try:
            with step(f"starting the cluster {name}", "10 s"):
                cluster._boot()
        except BaseException:
            sweep.keep_logs(cluster._record, paths.cache() / "logs")
            say(f"the logs of the cluster that failed are in {paths.cache() / 'logs' / name}")
            cluster.down()
            raise
        if keep:
            cluster._save(replace(cluster._record, owner=None))
            cluster._dismiss_guard()
        return cluster

    @classmethod
    def find(cls, name: str) -> Self | None:
        """Return the running cluster of that name, whoever started it."""
        record = Record.load(paths.clusters() / name)
        if record is None or record.abandoned or not record.ready or not record.processes[HOLDER].alive:
            return None
        return cls(record, golang.tools())

    def down(self) -> None:
        """End the cluster and remove all that it left on this machine."""
        with sweep.registry():
            self._dismiss_guard()
            sweep.remove(self._record)
        self.components.reap()

    @property
    def name(self) -> str:
        """The name under which `down` finds it."""
        return self._record.name

    @property
    def kubeconfig(self) -> Path:
        """An administrator's kubeconfig that works from this machine's ordinary network."""
        return self._record.directory / "kubeconfig"

    @property
    def logs(self) -> Path:
        """Where the components write their logs."""
        return self._record.directory / "logs"

    @property
    def exec_prefix(self) -> list[str]:
        """Put before a command, runs it in the cluster's network."""
        return network.inside(self._holder)

    @property
    def routed(self) -> bool:
        """Whether ClusterIPs and pod addresses answer in this machine's ordinary network too: they do."""
        return True

    def load_image(self, archive: Path) -> None:
        """Make the image of a docker-archive known to the node."""
        with (
            step(f"loading {archive.name} ({archive.stat().st_size / 1e6:.0f} MB)"),
            archive.open("rb") as content,
        ):
            run(self._node().ctr("images", "import", "-"), stdin=content)

    def build_and_load(self, image: str, dockerfile: Path, context: Path | None = None) -> None:
        """Build a Dockerfile of ours as `image` and load it, unless the node has exactly that already."""
        built = images.build(image, dockerfile, context or paths.REPOSITORY)
        mark = self._record.directory / "images" / images.file_name(image)
        if not mark.exists() or mark.read_text() != built.identity:
            self.load_image(built.archive)
            mark.parent.mkdir(exist_ok=True)
            mark.write_text(built.identity)

    def wait_ready(self) -> None:
        """Wait until the API server and the node work, after a component was restarted for instance."""
        plane = self._node().plane
        wait_until(plane.ready, "the API server", self.components)
        wait_until(lambda: _works(plane), "the node", self.components)

    @property
    def _holder(self) -> int:
        return self._record.processes[HOLDER].pid

    def _boot(self) -> None:
        self._guard = Guard(self._record.directory)
        group = cgroups.create(self.name)
        self._hold(group)
        net = self._connect()
        # All enter the same group and namespaces: with the last of them everything is gone.
        place = ["nsenter", f"--target={self._holder}", "--net", "--mount", "--"]
        prefix = (*cgroups.enter(group), *place)
        plane = self._plane(net, prefix)
        plane.prepare(str(net.api))
        node = self._node(net, prefix)
        node.prepare()
        for component in (plane.etcd(), plane.api_server(), node.containerd()):
            self.components.start(component)
        self._load_pause(node)
        wait_until(plane.ready, "the API server", self.components)
        for component in (plane.controllers(), plane.scheduler(), node.kubelet(), node.proxy(), node.dns()):
            self.components.start(component)
        wait_until(lambda: _works(plane), "the node", self.components)
        self._save(replace(self._record, ready=True))

    def _hold(self, group: Path) -> None:
        """Start the process that holds the cluster's namespaces open."""
        ready = self._record.directory / "held"
        mounts = [f"mount -t tmpfs -o mode=755 tmpfs {RUN}"]
        for name, path in PRIVATE.items():
            own = self._record.directory / "private" / name
            own.mkdir(parents=True)
            mounts += [f"mkdir -p {path}", f"mount --bind {own} {path}"]
        script = " && ".join(
            [*mounts, "mount --make-rshared /", f"touch {ready}", f"exec {self.bin / 'pause'}"]
        )
        # A slave: what is mounted here is not seen outside, and what this machine unmounts is not kept busy
        # here. Shared within itself, as pods' volumes may ask for.
        unshare = ("unshare", "--net", "--mount", "--propagation=slave", "/bin/sh", "-c", script)
        self.components.start(Component(HOLDER, (*cgroups.enter(group), *unshare)))
        wait_until(ready.exists, "the namespaces", self.components)

    def _connect(self) -> network.Network:
        net = network.connect(self._holder)
        self._save(replace(self._record, network=net.index))
        return net

    def _plane(self, net: network.Network, prefix: tuple[str, ...]) -> ControlPlane:
        flags = ("--bind-address=0.0.0.0", f"--advertise-address={net.node}")
        directory = self._record.directory
        return ControlPlane(directory, self.bin, str(net.node), Ports(), str(net.services), flags, prefix)

    def _node(self, net: network.Network | None = None, prefix: tuple[str, ...] = ()) -> Node:
        if net is None:
            assert self._record.network is not None
            net = network.NETWORKS[self._record.network]
            prefix = ("nsenter", f"--target={self._holder}", "--net", "--mount", "--")
        return Node(NODE, self._record.directory, self.bin, net, self._plane(net, prefix), prefix)

    def _load_pause(self, node: Node) -> None:
        archive = self._record.directory / "pause.tar"
        pause_archive(self.bin / "pause", archive)
        wait_until(lambda: _answers(node.ctr("version")), "containerd", self.components)
        with archive.open("rb") as content:
            run(node.ctr("images", "import", "-"), stdin=content)

    def _dismiss_guard(self) -> None:
        if self._guard is not None:
            self._guard.dismiss()
            self._guard = None

    def _started(self, name: str, identity: Identity) -> None:
        self._save(self._record.with_process(name, identity))

    def _save(self, record: Record) -> None:
        self._record = record
        record.save()


def _check(name: str) -> None:
    if not NAME.fullmatch(name):
        raise ClusterError(
            f"{name!r} is no name for a cluster: lower-case letters, digits and dashes, at most 32"
        )
    if os.geteuid() != 0:
        raise ClusterError("the embedded cluster needs root: it makes namespaces, mounts and control groups")


def _register(name: str) -> Record:
    with sweep.registry():
        sweep.remove_abandoned_clusters()
        directory = paths.clusters() / name
        if existing := Record.load(directory):
            by = f"process {existing.owner.pid}" if existing.owner else "an `up` that keeps it"
            raise ClusterError(f"there is a cluster {name} already, started by {by}")
        shutil.rmtree(directory, ignore_errors=True)
        record = Record(Kind.EMBEDDED, name, directory, Identity.mine())
        record.save()
        return record


def _answers(command: list[str]) -> bool:
    try:
        run(command)
    except ClusterError:
        return False
    return True


def _works(plane: ControlPlane) -> bool:
    """Whether a pod that is made now will run: node, names, Services, and its service account are there."""
    try:
        node = json.loads(plane.request(f"/api/v1/nodes/{NODE}"))
        plane.request("/api/v1/namespaces/default/serviceaccounts/default")
        for part in (DNS_READY, PROXY_READY):
            fetch(f"http://{plane.address}:{part}")
    except OSError:
        return False
    return any(each["type"] == "Ready" and each["status"] == "True" for each in node["status"]["conditions"])
