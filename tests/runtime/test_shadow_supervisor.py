"""The shadow's supervisor: whatever its process does, it lives, tells, and starts the next one."""

import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import httpx2
import pytest

import greenroom_runtime
from greenroom_runtime.contract import names, shadow
from greenroom_runtime.shadow import ends, supervisor
from tests.support.plain_http import http
from tests.support.serving import DEADLINE_SECONDS
from tests.support.shadows import Supervised, misbehaving

MIB = 2**20
ROOMY = 300 * MIB
"""A container's limit under which a process has RLIMIT_DATA of 254 MiB, and is killed at 240."""


def wait_for(condition: object) -> None:
    """Poll until the condition holds."""
    deadline = time.monotonic() + DEADLINE_SECONDS
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < deadline
        time.sleep(0.01)


def first_child(supervised: Supervised) -> int:
    """Return the id of the shadow process."""
    supervisor = supervised.process.pid
    return int(Path(f"/proc/{supervisor}/task/{supervisor}/children").read_text().split()[0])


def is_alive(pid: int) -> bool:
    """Tell whether there is such a process that has not ended."""
    with suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False


def test_spells_reasons_and_version_as_the_contract_does() -> None:
    """The supervisor, which may not import pydantic, says what the contract says."""
    assert set(ends.REASONS) == set(shadow.EndReason)
    assert supervisor.SCHEMA_VERSION == shadow.SCHEMA_VERSION


@pytest.mark.parametrize(
    ("what", "argument", "told"),
    [
        ("signal", int(signal.SIGSEGV), "SIGSEGV"),
        ("signal", int(signal.SIGKILL), "SIGKILL"),
        ("exit", 0, "exit code 0"),
        ("exit", 1, "exit code 1"),
        ("exit", 2, "configuration"),
        ("raise", "", "RuntimeError: what a model may do"),
    ],
)
def test_a_crash_is_told_and_another_process_is_started(what: str, argument: object, told: str) -> None:
    """A process that ends by a signal, a code or an exception is Crashed; the next ones are started."""
    with Supervised(misbehaving(what, argument)) as supervised:
        report = supervised.wait_for_end(3)
        assert report.end is not None
        assert report.end.reason is shadow.EndReason.CRASHED
        assert told in report.end.message
        shown = supervised.metrics().splitlines()
        assert 'greenroom_shadow_ends_total{reason="Hung"} 0' in shown
        assert 'greenroom_shadow_ends_total{reason="Crashed"} 0' not in shown


def test_refused_memory_is_told_as_such() -> None:
    """The exit code of a process that was refused memory is OutOfMemory."""
    with Supervised(misbehaving("exit", ends.OUT_OF_MEMORY_CODE)) as supervised:
        report = supervised.wait_for_end()
        assert report.end is not None
        assert report.end.reason is shadow.EndReason.OUT_OF_MEMORY


@pytest.mark.parametrize("what", ["hang", "garbage", "endless", "close"])
def test_a_process_whose_heart_stops_is_killed(what: str) -> None:
    """One that hangs, writes garbage instead of reports, or closes the pipe, is Hung, and replaced."""
    with Supervised(misbehaving(what), pace={"heart": 0.2, "first_heart": 2.0}) as supervised:
        report = supervised.wait_for_end(2)
        assert report.end is not None
        assert report.end.reason is shadow.EndReason.HUNG


def test_a_process_that_is_stopped_is_killed() -> None:
    """A process that was sent SIGSTOP is Hung."""
    stopped = misbehaving("signal", int(signal.SIGSTOP))
    with Supervised(stopped, pace={"heart": 0.2, "first_heart": 0.2}) as supervised:
        report = supervised.wait_for_end()
        assert report.end is not None
        assert report.end.reason is shadow.EndReason.HUNG


def test_a_process_that_beats_lives() -> None:
    """A process that tells in time is left alone, and what it told is told."""
    with Supervised(misbehaving("well"), pace={"heart": 60.0}) as supervised:
        report = supervised.wait_until(lambda report: report.process is not None)
        assert report.running
        assert report.ends == 0
        assert report.end is None
        assert (report.pod, report.model, report.instance) == ("pod-0", "churn", "life-1")
        assert "told 1\n" in supervised.metrics()
        assert "greenroom_shadow_running 1\n" in supervised.metrics()
        assert http.get(supervised.url + names.LIVE_PATH).text == "alive\n"


def test_a_flood_of_errors_stops_nothing() -> None:
    """A process that writes to stderr without end is heard all the same, and the log keeps its measure."""
    with Supervised(misbehaving("flood"), pace={"heart": 60.0}) as supervised:
        supervised.wait_until(lambda report: report.process is not None)
        for _ in range(3):
            assert supervised.report().running
        assert supervised.stop() == 0


def test_nobody_reads_the_supervisors_output() -> None:
    """A supervisor whose stdout and stderr are full goes on guarding."""
    with Supervised(misbehaving("flood"), heard=False) as supervised:
        supervised.wait_until(lambda report: report.process is not None)
        os.kill(first_child(supervised), signal.SIGKILL)
        supervised.wait_until(lambda report: report.ends == 1 and report.running)
        assert supervised.stop() == 0


def test_memory_is_refused_before_the_container_has_none() -> None:
    """Under RLIMIT_DATA a process that takes ever more is refused it, or killed: both are OutOfMemory."""
    with Supervised(misbehaving("hoard"), limit=ROOMY, pace={"heart": 60.0}) as supervised:
        report = supervised.wait_for_end(2)
        assert report.end is not None
        assert report.end.reason is shadow.EndReason.OUT_OF_MEMORY
        assert "300 MiB" in report.end.message or "MemoryError" in report.end.message


def test_what_a_grandchild_takes_counts(tmp_path: Path) -> None:
    """Memory of what the shadow process started, in a session of its own, is guarded, and ended with it."""
    command = misbehaving("delegate", tmp_path / "pid")
    with Supervised(command, limit=ROOMY, pace={"heart": 60.0}) as supervised:
        report = supervised.wait_for_end()
        assert report.end is not None
        assert report.end.reason is shadow.EndReason.OUT_OF_MEMORY
        assert supervised.stop() == 0
        assert not is_alive(int((tmp_path / "pid").read_text()))


@pytest.mark.parametrize("seconds", [0.2, 3600.0])
def test_a_process_may_ask_for_patience(seconds: float) -> None:
    """A process that is going to say nothing for long, as it loads a model, is given that time in bounds."""
    with Supervised(misbehaving("patient", seconds), pace={"heart": 0.1, "longest_heart": 1.0}) as supervised:
        report = supervised.wait_for_end()
        assert report.end is not None
        assert report.end.reason is shadow.EndReason.HUNG
        assert f"nothing for {min(seconds, 1.0):g} s" in report.end.message


def test_what_a_process_leaves_behind_is_ended(tmp_path: Path) -> None:
    """A process that outlives the shadow process which started it is killed and reaped."""
    with Supervised(
        misbehaving("orphan", tmp_path / "pid"), pace={"longest_wait": 60, "first_wait": 60}
    ) as supervised:
        supervised.wait_for_end()
        pid = int((tmp_path / "pid").read_text())
        wait_for(lambda: not Path(f"/proc/{pid}").exists())


def test_a_container_near_its_limit_costs_the_process(tmp_path: Path) -> None:
    """Where the container's memory, files in memory included, comes near its limit, the process is killed."""
    (tmp_path / "memory.max").write_text(f"{ROOMY}\n")
    (tmp_path / "memory.stat").write_text(f"inactive_file {100 * MIB}\nactive_file {50 * MIB}\n")
    (tmp_path / "memory.current").write_text(f"{ROOMY}\n")
    with Supervised(misbehaving("well"), limit=ROOMY, cgroup=tmp_path, pace={"heart": 60.0}) as supervised:
        assert supervised.wait_until(lambda report: report.process is not None).ends == 0
        (tmp_path / "memory.stat").write_text("inactive_file 0\nactive_file 0\n")
        report = supervised.wait_for_end()
        assert report.end is not None
        assert report.end.reason is shadow.EndReason.OUT_OF_MEMORY
        assert "files in memory included" in report.end.message


def test_a_kill_by_the_kernel_is_told(tmp_path: Path) -> None:
    """A SIGKILL that came with an ``oom_kill`` of the container is OutOfMemory; the count is a metric."""
    (tmp_path / "memory.events").write_text("oom 1\noom_kill 0\n")
    with Supervised(misbehaving("well"), cgroup=tmp_path, pace={"heart": 60.0}) as supervised:
        supervised.wait_until(lambda report: report.process is not None)
        (tmp_path / "memory.events").write_text("oom 1\noom_kill 1\n")
        os.kill(first_child(supervised), signal.SIGKILL)
        report = supervised.wait_for_end()
        assert report.end is not None
        assert report.end.reason is shadow.EndReason.OUT_OF_MEMORY
        assert "greenroom_shadow_oom_kills_total 1\n" in supervised.metrics()


def test_a_limit_that_is_too_small_is_told() -> None:
    """Under a limit that no process fits in none is started, and the report says what is needed."""
    with Supervised(misbehaving("well"), limit=64 * MIB) as supervised:
        report = supervised.wait_for_end()
        assert not report.running
        assert report.end is not None
        assert report.end.reason is shadow.EndReason.OUT_OF_MEMORY
        assert "too small" in report.end.message
        assert supervised.stop() == 0


def test_a_container_without_a_limit_is_told() -> None:
    """Without a limit nothing is guarded, and the log says so."""
    with Supervised(misbehaving("well")) as supervised:
        assert supervised.wait_for_log(
            "the container has no memory limit, so the shadow's memory is not guarded"
        )


def test_a_command_that_does_not_exist_is_told() -> None:
    """What cannot be started is tried again, and told."""
    with Supervised(["/nothing/there"]) as supervised:
        report = supervised.wait_for_end(2)
        assert report.end is not None
        assert "/nothing/there" in report.end.message


def test_the_next_process_gets_what_the_last_one_told() -> None:
    """Counts outlive processes: each goes on from what was told last."""
    with Supervised(misbehaving("resume")) as supervised:
        supervised.wait_for_end(4)
        told = supervised.raw_report()
        assert told["process"]["number"] >= told["ends"] - 1 >= 3


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("what", ["well", "deaf", "silent", "hang", "flood", "garbage"])
def test_it_ends_in_order_whatever_the_process_does(what: str, number: signal.Signals) -> None:
    """SIGTERM and SIGINT end the process, by force where it does not listen, and then the supervisor."""
    with Supervised(misbehaving(what), pace={"end": 0.3}) as supervised:
        wait_for(lambda: supervised.report().running)
        assert supervised.stop(number) == 0


def test_it_ends_while_there_is_no_process() -> None:
    """SIGTERM between two processes ends the supervisor at once."""
    with Supervised(misbehaving("exit", 1), pace={"first_wait": 3600, "longest_wait": 3600}) as supervised:
        supervised.wait_for_end()
        assert supervised.stop() == 0


def test_it_takes_its_process_along() -> None:
    """A process does not outlive a supervisor that was killed."""
    with Supervised(misbehaving("well")) as supervised:
        supervised.wait_until(lambda report: report.process is not None)
        pid = first_child(supervised)
        supervised.process.kill()
        supervised.process.wait()
        wait_for(lambda: not is_alive(pid))


@pytest.mark.parametrize(
    ("request_bytes", "status"),
    [
        (b"GET /nothing HTTP/1.1\r\n\r\n", b"404"),
        (b"POST /report HTTP/1.1\r\n\r\n", b"405"),
        (b"\x00\xff\r\n\r\n", b"405"),
        (b"GET /report HTTP/1.1\r\n" + b"x: y\r\n" * 101 + b"\r\n", b"431"),
        (b"GET /report?a=b HTTP/1.0\r\n\r\n", b"200"),
        (b"GET /report HTTP/1.1", b"200"),
    ],
)
def test_bad_requests_are_answered(request_bytes: bytes, status: bytes) -> None:
    """Whatever comes to the port is answered and closed."""
    with Supervised(misbehaving("well")) as supervised:
        host, port = supervised.url.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port)), timeout=DEADLINE_SECONDS) as connection:
            connection.sendall(request_bytes)
            connection.shutdown(socket.SHUT_WR)
            assert connection.recv(64).split()[1] == status
        assert supervised.report().running in (True, False)


def test_idle_connections_do_not_keep_others_out() -> None:
    """Connections that say nothing have their time, and then another one has their place."""
    with Supervised(misbehaving("well")) as supervised:
        host, port = supervised.url.removeprefix("http://").split(":")
        idle = [socket.create_connection((host, int(port))) for _ in range(20)]
        try:
            wait_for(lambda: _answers(supervised))
        finally:
            for connection in idle:
                connection.close()


def _answers(supervised: Supervised) -> bool:
    with suppress(httpx2.HTTPError):
        return bool(supervised.report().pod)
    return False


def test_the_command_itself(tmp_path: Path) -> None:
    """``python -m greenroom_runtime.shadow`` supervises, tells, and ends, also without a configuration."""
    nowhere = str(tmp_path / "nowhere.json")
    command = [sys.executable, "-m", "greenroom_runtime.shadow", "--config", nowhere, "--port", "0"]
    with Supervised([], arguments=command) as supervised:
        report = supervised.wait_for_end(2)
        assert report.model == ""
        assert len(report.instance) == 16
        assert report.end is not None
        assert "nowhere.json" in report.end.message
        assert supervised.stop() == 0


def test_the_supervisor_imports_the_standard_library_only() -> None:
    """No library is in its memory, whose import could fail or would take its room."""
    code = (
        "import sys, greenroom_runtime.shadow.__main__\n"
        "print({name.partition('.')[0] for name in sys.modules} - sys.stdlib_module_names - {'__main__'})"
    )
    done = subprocess.run(
        [sys.executable, "-S", "-c", code],
        check=True,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(Path(greenroom_runtime.__path__[0]).parent)},
    )
    assert done.stdout.strip() == "{'greenroom_runtime'}"
