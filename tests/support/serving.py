"""A real serving process for tests, with its flag store mounted the way kubelet mounts a ConfigMap."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from tempfile import mkdtemp
from typing import Any, Self

import httpx2

from greenroom_runtime.contract import names
from greenroom_runtime.contract.config import RuntimeConfig
from greenroom_runtime.contract.flags import FlagStore, dump_flags
from greenroom_runtime.contract.report import FailureReason, PodReport, VersionState
from tests.support.plain_http import http

DEADLINE_SECONDS = 60.0
"""How long a test waits for what must come; only ever reached on failure."""


class FlagMount:
    """A directory mount of a ConfigMap: ``flags.json`` -> ``..data/flags.json``, ``..data`` swapped whole."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        directory.mkdir(parents=True, exist_ok=True)
        self.path = directory / names.FLAGS_FILE

    def write(self, content: FlagStore | str | bytes) -> None:
        """Publish a document in one step, as kubelet's atomic writer does."""
        text = dump_flags(content) if isinstance(content, FlagStore) else content
        data = text.encode() if isinstance(text, str) else text
        generation = Path(mkdtemp(prefix="..2026_", dir=self._directory))
        (generation / names.FLAGS_FILE).write_bytes(data)
        link = self._directory / "..data_tmp"
        link.symlink_to(generation.name)
        before = self._directory / "..data"
        old = before.resolve() if before.is_symlink() else None
        link.replace(before)
        if not self.path.is_symlink():
            self.path.symlink_to(f"..data/{names.FLAGS_FILE}")
        if old is not None:
            (old / names.FLAGS_FILE).unlink()
            old.rmdir()


def flags(production: str, *others: str, **changes: Any) -> FlagStore:
    """Return a flag store with these versions resident."""
    return FlagStore(production=production, resident=(production, *others), **changes)


def parse_log(line: bytes) -> dict[str, Any]:
    """Return a log line's members; what is no JSON is an event of its own."""
    try:
        parsed: dict[str, Any] = json.loads(line)
    except ValueError:
        return {"event": line.decode(errors="replace").rstrip()}
    return parsed


class ServingProcess:
    """``python -m greenroom_runtime`` on free ports; ended when the block ends."""

    def __init__(
        self,
        root: Path,
        *,
        source_uri: str,
        pod: str = "pod-0",
        environment: Mapping[str, str] | None = None,
        **config: Any,
    ) -> None:
        root.mkdir(parents=True, exist_ok=True)
        self.models = root / "models"
        self.flags = FlagMount(root / "flags")
        self.log: list[dict[str, Any]] = []
        self._config_path = root / names.CONFIG_FILE
        settings = {
            "name": "churn",
            "source_uri": source_uri,
            "models_dir": str(self.models),
            "flags_path": str(self.flags.path),
            "host": "127.0.0.1",
            "http_port": 0,
            "admin_port": 0,
            "drain_seconds": 0.0,
        }
        self._config_path.write_text(RuntimeConfig.model_validate(settings | config).to_json())
        self._environment = {**os.environ, names.ENV_POD_NAME: pod, **(environment or {})}
        self.process: subprocess.Popen[bytes]
        self.url = self.admin_url = ""

    def __enter__(self) -> Self:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "greenroom_runtime", "--config", str(self._config_path)],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=self._environment,
        )
        self._reader = threading.Thread(target=self._read_log, daemon=True)
        self._reader.start()
        serving = self.wait_for_log("serving")
        self.url = f"http://127.0.0.1:{serving['http_port']}"
        self.admin_url = f"http://127.0.0.1:{serving['admin_port']}"
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        self._reader.join()

    def stop(self) -> int:
        """Send SIGTERM, wait for the end and return the exit code."""
        self.process.send_signal(signal.SIGTERM)
        code = self.process.wait(DEADLINE_SECONDS)
        self._reader.join()
        return code

    def report(self) -> PodReport:
        """Return what the process tells the operator."""
        return PodReport.model_validate_json(http.get(self.admin_url + names.REPORT_PATH).content)

    def wait_until(self, condition: Callable[[PodReport], bool]) -> PodReport:
        """Poll the report until the condition holds."""
        deadline = time.monotonic() + DEADLINE_SECONDS
        while not condition(report := self.report()):
            assert time.monotonic() < deadline, f"not before the deadline; the last report: {report!r}"
            time.sleep(0.02)
        return report

    def wait_ready(self, version: str) -> PodReport:
        """Wait until the version answers as production and the document that says so is obeyed."""
        return self.wait_until(lambda report: report.ready and report.production == version)

    def wait_settled(self) -> PodReport:
        """Wait until every resident version is Ready or Failed."""
        final = (VersionState.READY, VersionState.FAILED)
        return self.wait_until(
            lambda report: bool(report.versions) and all(one.state in final for one in report.versions)
        )

    def wait_mirroring(self, *, ask: Callable[[], object]) -> None:
        """Ask again and again until one more answer has been sent to the shadow."""
        before = self.report().mirror
        sent = 0 if before is None else before.sent

        def arrived(report: PodReport) -> bool:
            ask()
            return report.mirror is not None and report.mirror.sent > sent

        self.wait_until(arrived)

    def wait_state(self, version: str, state: VersionState) -> PodReport:
        """Wait until the version is in this state."""

        def reached(report: PodReport) -> bool:
            told = report.version(version)
            return told is not None and told.state is state

        return self.wait_until(reached)

    def wait_failed(self, version: str, reason: FailureReason) -> PodReport:
        """Wait until the version has failed for this reason."""

        def failed(report: PodReport) -> bool:
            told = report.version(version)
            return told is not None and told.failure is not None and told.failure.reason is reason

        return self.wait_until(failed)

    def wait_for_log(self, event: str) -> dict[str, Any]:
        """Wait for a log line with this event and return it."""
        deadline = time.monotonic() + DEADLINE_SECONDS
        while True:
            for line in list(self.log):
                if line.get("event") == event:
                    return line
            ended = self.process.poll() is not None and not self._reader.is_alive()
            assert not ended, f"the process ended before it logged {event!r}: {self.log}"
            assert time.monotonic() < deadline, f"{event!r} was not logged: {self.log}"
            time.sleep(0.01)

    def predict(self, features: Mapping[str, object], **request: Any) -> httpx2.Response:
        """Send one prediction request."""
        return http.post(self.url + "/predict", json={"features": features, **request})

    def _read_log(self) -> None:
        assert self.process.stdout is not None
        with self.process.stdout as stdout:
            for line in stdout:
                self.log.append(parse_log(line))
