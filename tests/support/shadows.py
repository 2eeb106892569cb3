"""A real shadow for tests: its supervisor, its process, and what a serving process would send it."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import Any, Self

import msgspec

from greenroom_runtime.contract import names
from greenroom_runtime.contract.config import RuntimeConfig
from greenroom_runtime.contract.flags import FlagStore, Shadow
from greenroom_runtime.contract.report import VersionState
from greenroom_runtime.contract.shadow import ProcessReport, ShadowReport
from greenroom_runtime.shadow.frame import Frame, encode_frame
from tests.support.bundles import regress
from tests.support.plain_http import http
from tests.support.serving import DEADLINE_SECONDS, FlagMount, parse_log

HERE = Path(__file__).parent
QUICK = {"poll": 0.01, "container": 0.02, "first_wait": 0.01, "longest_wait": 0.05, "end": 5.0}
"""Of the supervisor's intervals."""


def misbehaving(what: str, *arguments: object) -> list[str]:
    """Return the command of a process that does one wrong thing."""
    return [sys.executable, str(HERE / "misbehaving.py"), what, *map(str, arguments)]


class Supervised:
    """A supervisor in a process of its own, ended when the block ends."""

    def __init__(
        self,
        command: Sequence[str],
        *,
        limit: int | None = None,
        cgroup: Path | None = None,
        pace: Mapping[str, float] = MappingProxyType({}),
        heard: bool = True,
        arguments: Sequence[str] = (),
    ) -> None:
        """Read nothing of its stdout and stderr once it has begun where it is not to be ``heard``.

        ``arguments`` are another supervisor's own command.
        """
        self._heard = heard
        self._leave = threading.Event()
        told = {"command": list(command), "limit": limit, "cgroup": cgroup and str(cgroup)}
        ours = [sys.executable, str(HERE / "supervised.py"), json.dumps({**told, "pace": {**QUICK, **pace}})]
        self._arguments = [*arguments] or ours
        self.log: list[dict[str, Any]] = []
        self.errors = bytearray()
        self.process: subprocess.Popen[bytes]
        self.url = ""

    def __enter__(self) -> Self:
        self.process = subprocess.Popen(self._arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        self._readers = [
            threading.Thread(target=read, daemon=True) for read in (self._read_log, self._read_errors)
        ]
        for reader in self._readers:
            reader.start()
        self.url = f"http://127.0.0.1:{self.wait_for_log('supervising')['port']}"
        return self

    def __exit__(self, *_: object) -> None:
        self._leave.set()
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        for reader in self._readers:
            reader.join()

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Send a signal, wait for the end and return the exit code."""
        self.process.send_signal(number)
        return self.process.wait(DEADLINE_SECONDS)

    def raw_report(self) -> dict[str, Any]:
        """Return what the operator would be told, as it is."""
        told: dict[str, Any] = http.get(self.url + names.REPORT_PATH).json()
        return told

    def report(self) -> ShadowReport:
        """Return what the operator is told."""
        return ShadowReport.model_validate(self.raw_report())

    def metrics(self) -> str:
        """Return what Prometheus scrapes."""
        return http.get(self.url + names.METRICS_PATH).text

    def wait_until(self, condition: Callable[[ShadowReport], object]) -> ShadowReport:
        """Poll the report until the condition holds."""
        deadline = time.monotonic() + DEADLINE_SECONDS
        while not condition(report := self.report()):
            assert time.monotonic() < deadline, f"not before the deadline; the last report: {report!r}"
            time.sleep(0.02)
        return report

    def wait_for_end(self, number: int = 1) -> ShadowReport:
        """Wait until so many processes have ended that should not have."""
        return self.wait_until(lambda report: report.ends >= number)

    def wait_for_log(self, event: str) -> dict[str, Any]:
        """Wait for a log line with this event and return it."""
        deadline = time.monotonic() + DEADLINE_SECONDS
        while True:
            for line in list(self.log):
                if line.get("event") == event:
                    return line
            assert self.process.poll() is None, f"it ended before it logged {event!r}: {self.log}"
            assert time.monotonic() < deadline, f"{event!r} was not logged: {self.log}"
            time.sleep(0.01)

    def _read_log(self) -> None:
        assert self.process.stdout is not None
        with self.process.stdout as stdout:
            for line in stdout:
                parsed = parse_log(line)
                self.log.append(parsed)
                if not self._heard and parsed["event"] == "supervising":
                    self._leave.wait()

    def _read_errors(self) -> None:
        assert self.process.stderr is not None
        if not self._heard:
            self._leave.wait()
        with self.process.stderr as stderr:
            for line in stderr:
                self.errors += line
                del self.errors[:-65536]


class Sender:
    """What the serving process does: packets of frames over SEQPACKET, or over TCP."""

    def __init__(self, address: Path | tuple[str, int]) -> None:
        self._address = address
        self._socket: socket.socket | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def send(self, *frames: Frame) -> None:
        """Send frames in one packet."""
        self.send_bytes(b"".join(map(encode_frame, frames)))

    def send_bytes(self, content: bytes) -> None:
        """Send whatever bytes."""
        self.connect().sendall(content)

    def connect(self) -> socket.socket:
        """Return a connection, as soon as there is somebody to connect to."""
        deadline = time.monotonic() + DEADLINE_SECONDS
        while self._socket is None:
            try:
                self._socket = self._dial()
            except OSError:
                assert time.monotonic() < deadline, f"nobody listens at {self._address}"
                time.sleep(0.02)
        return self._socket

    def close(self) -> None:
        """End the connection; the next packet makes another one."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _dial(self) -> socket.socket:
        if isinstance(self._address, tuple):
            return socket.create_connection(self._address, timeout=DEADLINE_SECONDS)
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        connection.settimeout(DEADLINE_SECONDS)
        try:
            connection.connect(str(self._address))
        except OSError:
            connection.close()
            raise
        return connection


class ShadowPod:
    """A supervised shadow process with its files: configuration, flag store, models, socket, log."""

    def __init__(
        self,
        root: Path,
        *,
        source: Path,
        limit: int | None = None,
        address: str = "",
        frames_port: int = 0,
        row: float = 10.0,
        pace: Mapping[str, float] = MappingProxyType({"heart": 60.0}),
        **config: Any,
    ) -> None:
        self.socket = root / "run" / "frames.sock"
        self.flags = FlagMount(root / "flags")
        self.models = root / "models"
        self.predictions = root / "shadow-predictions"
        shadow = {"address": address or f"unix:{self.socket}", "predictions_dir": str(self.predictions)}
        settings = {
            "name": "churn",
            "source_uri": source.as_uri(),
            "models_dir": str(self.models),
            "flags_path": str(self.flags.path),
            "host": "127.0.0.1",
            "shadow": shadow | config.pop("shadow", {}),
        }
        root.mkdir(parents=True, exist_ok=True)
        path = root / names.CONFIG_FILE
        path.write_text(RuntimeConfig.model_validate(settings | config).to_json())
        process_pace = json.dumps({"tell": 0.02, "metrics": 0.05, "row": row})
        command = [sys.executable, str(HERE / "quick_shadow.py"), process_pace, "--config", str(path)]
        command += ["--frames-port", str(frames_port)]
        self.supervised = Supervised(command, limit=limit, pace=pace)

    def __enter__(self) -> Self:
        self.supervised.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        self.supervised.__exit__(*error)

    def told(self) -> ProcessReport:
        """Return what the process told last; nothing before it has."""
        return self.supervised.report().process or ProcessReport()

    def wait_until(self, condition: Callable[[ProcessReport], object]) -> ProcessReport:
        """Poll until what the process tells fulfils the condition."""
        report = self.supervised.wait_until(
            lambda report: report.process is not None and condition(report.process)
        )
        assert report.process is not None
        return report.process

    def wait_state(self, version: str, state: VersionState) -> ProcessReport:
        """Wait until the version is in this state."""
        return self.wait_until(
            lambda told: (
                told.version is not None and (told.version.name, told.version.state) == (version, state)
            )
        )

    def process_id(self) -> int:
        """Return the id of the shadow process that there is now."""
        supervisor = self.supervised.process.pid
        return int(Path(f"/proc/{supervisor}/task/{supervisor}/children").read_text().split()[0])

    def kill_process(self) -> None:
        """End the shadow process by force."""
        os.kill(self.process_id(), signal.SIGKILL)

    @contextmanager
    def restarted(self) -> Iterator[None]:
        """Wait at the block's end until another process than at its begin has told something."""
        before = self._begun()
        yield
        self.supervised.wait_until(lambda _: self._begun() not in ("", before))

    def _begun(self) -> str:
        """Return when the process began that told metrics last, as they say it; empty before the first."""
        name = "process_start_time_seconds "
        lines = self.supervised.metrics().splitlines()
        return next((line for line in lines if line.startswith(name)), "")

    def wait_for_metric(self, line: str) -> None:
        """Wait until a scrape shows this line."""
        self.supervised.wait_until(lambda _: line in self.supervised.metrics().splitlines())

    def wait_received(self, number: int) -> ProcessReport:
        """Wait until so many frames are accounted for."""
        return self.wait_until(lambda told: told.counts.received >= number)


def shadowing(
    version: str = "v2",
    *,
    production: str = "v1",
    epoch: str = "e1",
    digest: str = "",
    attempt: str = "",
    latency_ratio: float = 2.0,
    segments: tuple[tuple[str, str], ...] = (),
) -> FlagStore:
    """Return a flag store whose shadow is this version."""
    shadow = Shadow(
        version=version,
        hundredths=10_000,
        salt="ml/churn",
        epoch=epoch,
        latency_ratio=latency_ratio,
        segments=segments,
    )
    digests = {version: digest} if digest else {}
    return FlagStore(
        production=production, resident=(production,), shadow=shadow, digests=digests, attempt=attempt
    )


def frame(number: int = 0, **changes: Any) -> Frame:
    """Return production's answer to one of the regressor's rows."""
    row = {"x1": 1.0, "x2": float(number % 7), "member": True}
    known = Frame(
        epoch="e1",
        id=f"r{number}",
        key=f"user-{number}",
        time=1_795_000_000.25 + number,
        version="v1",
        features=dict(row),
        prediction=regress(row, 0.0),
        probabilities=None,
        classes=None,
        error="",
        seconds=0.5,
        segments=[],
    )
    return msgspec.structs.replace(known, **changes)
