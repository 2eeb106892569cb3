import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from e2e.cluster.model import ClusterError
from e2e.cluster.process import Component, Components, Identity, boot_id, wait_until
from e2e.cluster.record import HOLDER, Kind, Record

SLEEP = [sys.executable, "-c", "import time; time.sleep(600)"]


@pytest.fixture
def sleeper() -> Iterator["subprocess.Popen[bytes]"]:
    """Give a process that does nothing."""
    with subprocess.Popen(SLEEP) as process:
        yield process
        process.kill()


def test_identity_kills_its_process(sleeper: "subprocess.Popen[bytes]") -> None:
    """A process that is still the recorded one is killed."""
    identity = Identity.of(sleeper.pid)
    assert identity.alive
    identity.kill()
    sleeper.wait()
    assert not identity.alive


def test_identity_spares_a_stranger(sleeper: "subprocess.Popen[bytes]") -> None:
    """A process that got the id of one that ended is not killed."""
    former = Identity(sleeper.pid, Identity.of(sleeper.pid).began - 1)
    assert not former.alive
    former.kill()
    assert sleeper.poll() is None


def test_zombie_is_not_alive() -> None:
    """A process that ended is not alive, even if its parent has not asked for its end."""
    with subprocess.Popen(SLEEP) as process:
        identity = Identity.of(process.pid)
        identity.kill()
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        assert not identity.alive


def test_component_that_ends_shows_its_log(tmp_path: Path) -> None:
    """Waiting for a component that has ended fails at once, with the end of what it said."""
    components = Components(tmp_path, lambda _name, _identity: None)
    components.start(Component("talker", (sys.executable, "-c", "import sys; sys.exit('out of cheese')")))
    with pytest.raises(ClusterError, match="out of cheese"):
        wait_until(lambda: False, "the talker", components)


def test_component_restarts_as_it_was(tmp_path: Path) -> None:
    """A component that was killed is started again by the same command, as another process."""
    components = Components(tmp_path, lambda _name, _identity: None)
    first = components.start(Component("sleeper", tuple(SLEEP)))
    components.kill("sleeper")
    second = components.restart("sleeper")
    assert not first.alive
    assert second.alive
    components.kill("sleeper")
    assert not second.alive


def test_record_survives_its_file(tmp_path: Path) -> None:
    """What is saved is what is loaded."""
    record = Record(Kind.EMBEDDED, "one", tmp_path, Identity.mine(), network=3).with_process(
        "etcd", Identity(7, 8)
    )
    record.save()
    assert Record.load(tmp_path) == record


def test_directory_without_record_is_no_cluster(tmp_path: Path) -> None:
    """A directory without a record is not taken for a cluster."""
    assert Record.load(tmp_path) is None


def test_owner_alive_or_dead(tmp_path: Path) -> None:
    """A cluster is abandoned when its owner has died, not while the owner lives."""
    assert not Record(Kind.EMBEDDED, "mine", tmp_path, Identity.mine()).abandoned
    dead = Identity(os.getpid(), Identity.mine().began - 1)
    assert Record(Kind.EMBEDDED, "orphan", tmp_path, dead).abandoned


def test_kept_cluster_is_not_abandoned_until_reboot(tmp_path: Path) -> None:
    """A cluster without an owner stays; after a restart of the machine, only its files are left to remove."""
    assert not Record(Kind.EMBEDDED, "kept", tmp_path, owner=None).abandoned
    assert Record(Kind.EMBEDDED, "kept", tmp_path, owner=None, boot=f"not {boot_id()}").abandoned


def test_kept_cluster_without_namespaces_is_abandoned(tmp_path: Path) -> None:
    """A kept cluster whose namespaces are gone is of no use, and may be replaced."""
    dead = Identity(os.getpid(), Identity.mine().began - 1)
    assert Record(Kind.EMBEDDED, "kept", tmp_path, None, processes={HOLDER: dead}).abandoned
