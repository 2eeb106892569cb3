"""One serving process on this machine: the real runtime, in a state directory of its own."""

import http.client
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
from collections import deque
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Self

from pydantic import ValidationError

from greenroom.local.errors import LocalError
from greenroom_runtime.contract import names
from greenroom_runtime.contract.bundle import BUNDLE_FILE, Value
from greenroom_runtime.contract.config import RuntimeConfig
from greenroom_runtime.contract.flags import FlagStore, dump_flags
from greenroom_runtime.contract.report import MAX_BYTES, PodReport

HOST = "127.0.0.1"
POD = "local"
_ANSWER_SECONDS = 2.0
_STOP_SECONDS = 20.0
"""Longer than the prediction log may take to hand over its last records."""
_LAST_LINES = 15
_PACKAGES = (
    "aiohttp",
    "httptools",
    "mmh3",
    "numpy",
    "obstore",
    "onnxruntime",
    "orjson",
    "redis",
    "starlette",
    "uvicorn",
    "uvloop",
)
"""What the runtime needs beyond a plain installation."""


class LocalRuntime:
    """Starts, asks and stops the runtime. Its directory is removed when the ``with`` block ends."""

    def __init__(self, *, port: int, admin_port: int) -> None:
        for package in _PACKAGES:
            if find_spec(package) is None:
                raise LocalError(f"{package} is missing: pip install 'greenroom[toolkit]'")
        self.port = _usable(port, option="--port")
        self.admin_port = _usable(admin_port, option="--admin-port", apart_from=self.port)
        self._state = Path(tempfile.mkdtemp(prefix="greenroom-"))  # last: whatever is refused leaves nothing
        self._flags = self._state / "flags"
        self.output = self._state / "runtime.log"
        """What the process prints."""
        self.predictions = self._state / "predictions"
        """The prediction log's segments."""
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self._flags.mkdir()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.stop()
        shutil.rmtree(self._state, ignore_errors=True)

    @property
    def url(self) -> str:
        """Where predictions are asked for."""
        return f"http://{HOST}:{self.port}"

    @property
    def pid(self) -> int | None:
        """The serving process, None while there is none."""
        return self._process.pid if self._process else None

    def localize(self, config: RuntimeConfig) -> RuntimeConfig:
        """Return the configuration with this machine's places; there is no Service to drain for."""
        log = config.prediction_log
        return config.model_copy(
            update={
                "prediction_log": log and log.model_copy(update={"directory": str(self.predictions)}),
                "models_dir": str(self._state / "models"),
                "flags_path": str(self._flags / names.FLAGS_FILE),
                "host": HOST,
                "http_port": self.port,
                "admin_port": self.admin_port,
                "drain_seconds": 0.0,
            }
        )

    def write_flags(self, flags: FlagStore) -> None:
        """Replace the flag store in one step, as kubelet does."""
        new = self._flags / f".{names.FLAGS_FILE}.new"
        new.write_text(dump_flags(flags), encoding="utf-8")
        new.replace(self._flags / names.FLAGS_FILE)

    def start(self, config: RuntimeConfig, *, environment: Mapping[str, str]) -> None:
        """Start the process; its own terminal group, so that Ctrl-C reaches us alone."""
        path = self._state / names.CONFIG_FILE
        path.write_text(config.to_json(), encoding="utf-8")
        command = [sys.executable, "-m", "greenroom_runtime", "--config", str(path)]
        with self.output.open("wb") as log:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                env={**os.environ, **environment, names.ENV_POD_NAME: POD},
            )

    def exit_code(self) -> int | None:
        """Return the code that the process ended with, None while it runs."""
        return self._process.poll() if self._process else None

    def last_lines(self) -> list[str]:
        """Return the end of its log."""
        try:
            with self.output.open(encoding="utf-8", errors="replace") as log:
                return [line.rstrip() for line in deque(log, maxlen=_LAST_LINES)]
        except OSError:
            return []

    def stop(self) -> None:
        """End the process: politely, then not."""
        if self._process is None or self._process.poll() is not None:
            return
        self._process.terminate()
        try:
            self._process.wait(_STOP_SECONDS)
        except (subprocess.TimeoutExpired, KeyboardInterrupt):
            self._process.kill()
            self._process.wait()

    def report(self) -> PodReport | None:
        """Return what the process says of itself, None while it does not answer."""
        connection = http.client.HTTPConnection(HOST, self.admin_port, timeout=_ANSWER_SECONDS)
        try:
            connection.request("GET", names.REPORT_PATH)
            return PodReport.model_validate_json(connection.getresponse().read(MAX_BYTES + 1))
        except (OSError, http.client.HTTPException, ValidationError):
            return None
        finally:
            connection.close()

    def example_features(self, version: str) -> dict[str, Value]:
        """Return features that the version was trained with, to try it; empty where it names none."""
        try:
            path = self._state / "models" / version / BUNDLE_FILE
            bundle: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
            rows = bundle.get("warmup") or [{}]
            return dict(rows[0])
        except (OSError, ValueError):
            return {}


def curl_line(url: str, features: Mapping[str, Value]) -> str:
    """Return a command that asks for a prediction, ready to paste into a shell."""
    body = json.dumps({"features": features}, ensure_ascii=False).replace("'", "'\\''")
    return f"curl -s {url}/predict -H 'Content-Type: application/json' -d '{body}'"


def _usable(port: int, *, option: str, apart_from: int = 0) -> int:
    """Return the port, or a free one for 0; LocalError when somebody has it."""
    if port and port == apart_from:
        raise LocalError(f"{option} {port} is also the other port: choose another")
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError as error:
            raise LocalError(
                f"port {port} of {HOST} cannot be used ({error.strerror}): choose another with {option}, "
                f"or {option} 0 for any"
            ) from error
        return int(probe.getsockname()[1])
