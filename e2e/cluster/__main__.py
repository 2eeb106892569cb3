"""The command line: `python -m e2e.cluster up|down|status|build|image|exec`."""

import argparse
import os
import sys
from collections.abc import Callable
from pathlib import Path

from e2e.cluster import debian, golang, images, providers, sweep
from e2e.cluster.embedded import Embedded
from e2e.cluster.existing import Existing
from e2e.cluster.kind import Kind
from e2e.cluster.model import ClusterError
from e2e.cluster.progress import say, step
from e2e.cluster.record import Record

NAME = "dev"


def main() -> int:
    """Do what the command line asks for; an error that a user can understand is one line."""
    arguments = parser().parse_args()
    command: Callable[[argparse.Namespace], int] = arguments.run
    try:
        return command(arguments)
    except ClusterError as failure:
        say(f"error: {failure}")
        return 1
    except KeyboardInterrupt:
        say("interrupted")
        return 130


def parser() -> argparse.ArgumentParser:
    """Return what the command line understands."""
    top = argparse.ArgumentParser(
        prog="python -m e2e.cluster", description="A real Kubernetes on this machine."
    )
    commands = top.add_subparsers(required=True, metavar="COMMAND")

    def add(name: str, run: Callable[[argparse.Namespace], int], text: str) -> argparse.ArgumentParser:
        command = commands.add_parser(name, help=text, description=text)
        command.set_defaults(run=run)
        command.add_argument("--name", default=NAME, help="the cluster's name (default: %(default)s)")
        return command

    add("up", up, "start a cluster that stays until `down`")
    add("down", down, "remove the cluster without trace").add_argument(
        "--all", action="store_true", help="remove all embedded clusters of this machine"
    )
    add("status", status, "list the embedded clusters of this machine")
    add("build", build, "install and build what a cluster needs, and start none")
    image = add("image", load, "build a Dockerfile and load the image into the cluster")
    image.add_argument("image", help="the image's name, such as localhost/greenroom/operator:dev")
    image.add_argument("dockerfile", type=Path)
    image.add_argument("--context", type=Path, help="default: the repository")
    execute = add("exec", execute_inside, "run a command in the cluster's network")
    execute.add_argument("command", nargs=argparse.REMAINDER)
    return top


def up(arguments: argparse.Namespace) -> int:
    """Start a cluster that stays, unless it is up already."""
    cluster = providers.find(arguments.name) or providers.up(arguments.name, keep=True)
    say(f"the cluster {cluster.name} is up; its logs: {cluster.logs or 'see its provider'}")
    say("use it by these two lines, which are also this command's output:")
    print(f"export KUBECONFIG={cluster.kubeconfig}")
    print(f'export PATH="{cluster.bin}:$PATH"   # kubectl, helm')
    say("then, for instance: kubectl get nodes; remove the cluster with: make cluster-down")
    return 0


def down(arguments: argparse.Namespace) -> int:
    """Remove a cluster, or all."""
    if arguments.all:
        return _down_all()
    cluster = providers.find(arguments.name)
    if isinstance(cluster, Existing):
        say("an existing cluster is not ours to remove")
        return 0
    if cluster:
        cluster.down()
    elif record := _record(arguments.name):
        with sweep.registry():
            sweep.remove(record)
    else:
        say(f"there is no cluster {arguments.name}")
        return 0
    say(f"the cluster {arguments.name} is gone")
    return 0


def status(arguments: argparse.Namespace) -> int:
    """List the embedded clusters."""
    del arguments
    for record in sweep.records():
        state = "abandoned" if record.abandoned else "up" if record.ready else "starting or failed"
        owner = f"ends with process {record.owner.pid}" if record.owner else "kept"
        print(f"{record.name}\t{state}\t{owner}\t{record.directory / 'kubeconfig'}")
    return 0


def build(arguments: argparse.Namespace) -> int:
    """Build what is slow to build, so that a later `up` takes seconds."""
    del arguments
    debian.install((*debian.NODE, *debian.IMAGES))
    binaries = golang.tools()
    images.base()
    say(f"all is built: {binaries}")
    return 0


def load(arguments: argparse.Namespace) -> int:
    """Build an image and load it."""
    _running(arguments.name).build_and_load(arguments.image, arguments.dockerfile, arguments.context)
    return 0


def execute_inside(arguments: argparse.Namespace) -> int:
    """Become the command."""
    cluster = _running(arguments.name)
    command = [*cluster.exec_prefix, *(arguments.command or ["/bin/bash"])]
    os.environ["KUBECONFIG"] = str(cluster.kubeconfig)
    os.environ["PATH"] = f"{cluster.bin}:{os.environ['PATH']}"
    os.execvp(command[0], command)  # noqa: S606 - the user asked for this very command


def _running(name: str) -> Existing | Kind | Embedded:
    cluster = providers.find(name)
    if cluster is None:
        raise ClusterError(f"there is no cluster {name}; start it with: make cluster")
    return cluster


def _record(name: str) -> Record | None:
    return next((record for record in sweep.records() if record.name == name), None)


def _down_all() -> int:
    for record in list(sweep.records()):
        with sweep.registry(), step(f"removing {record.name}"):
            sweep.remove(record)
    return 0


if __name__ == "__main__":
    sys.exit(main())
