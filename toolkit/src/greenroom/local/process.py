"""The processes of one model on this machine: the real runtime and the real shadow, in a state directory."""

import http.client
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
from collections import deque
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final, Self, TypeVar

from pydantic import BaseModel, ValidationError

from greenroom.local import tied
from greenroom.local.errors import LocalError
from greenroom_runtime.contract import names
from greenroom_runtime.contract.bundle import BUNDLE_FILE, Value
from greenroom_runtime.contract.config import RuntimeConfig
from greenroom_runtime.contract.flags import FlagStore, dump_flags
from greenroom_runtime.contract.report import MAX_BYTES, PodReport
from greenroom_runtime.contract.shadow import ShadowReport

HOST = "127.0.0.1"
POD = "local"
_ANSWER_SECONDS = 2.0
_LAST_LINES = 15
_PACKAGES = (
    "aiohttp",
    "httptools",
    "mmh3",
    "msgspec",
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
_SOCKET_PATH_BYTES: Final = 90
"""What the path of a Unix socket may have, less what the shadow adds to it until it listens."""
Report = TypeVar("Report", bound=BaseModel)


class LocalProcess:
    """One process: in a terminal group of its own, so that Ctrl-C reaches us alone; it ends when we do."""

    def __init__(self, output: Path) -> None:
        self.output = output
        """What the process prints."""
        self._process: subprocess.Popen[bytes] | None = None

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
        """End the process, if it has not ended: politely, then not."""
        if self._process is None:
            return
        if self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(tied.END_SECONDS)
            except (subprocess.TimeoutExpired, KeyboardInterrupt):
                self._process.kill()
                self._process.wait()
        if self._process.stdin is not None:
            self._process.stdin.close()

    def _run(self, command: Sequence[str], *, environment: Mapping[str, str]) -> None:
        self.stop()
        with self.output.open("wb") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", tied.__name__, *command],
                stdin=subprocess.PIPE,  # its end tells of ours
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                env={**os.environ, **environment, names.ENV_POD_NAME: POD},
            )


class LocalRuntime(LocalProcess):
    """Starts, asks and stops the runtime. Its directory is removed when the ``with`` block ends."""

    def __init__(self, *, port: int, admin_port: int) -> None:
        for package in _PACKAGES:
            if find_spec(package) is None:
                raise LocalError(f"{package} is missing: pip install 'greenroom[toolkit]'")
        self.port = _usable(port, option="--port")
        self.admin_port = _usable(admin_port, option="--admin-port", apart_from=self.port)
        self.state = Path(tempfile.mkdtemp(prefix="greenroom-"))  # last: whatever is refused leaves nothing
        """All files of the processes."""
        super().__init__(self.state / "runtime.log")
        self._flags = self.state / "flags"
        self.predictions = self.state / "predictions"
        """The prediction log's segments."""

    def __enter__(self) -> Self:
        self._flags.mkdir()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.stop()
        shutil.rmtree(self.state, ignore_errors=True)

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
                "models_dir": str(self.state / "models"),
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
        """Start the process."""
        path = self.state / names.CONFIG_FILE
        path.write_text(config.to_json(), encoding="utf-8")
        self._run(["greenroom_runtime", "--config", str(path)], environment=environment)

    def report(self) -> PodReport | None:
        """Return what the process says of itself, None while it does not answer."""
        return _ask(self.admin_port, PodReport)

    def example_features(self, version: str) -> dict[str, Value]:
        """Return features that the version was trained with, to try it; empty where it names none."""
        try:
            path = self.state / "models" / version / BUNDLE_FILE
            bundle: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
            rows = bundle.get("warmup") or [{}]
            return dict(rows[0])
        except (OSError, ValueError):
            return {}


class LocalShadow(LocalProcess):
    """Starts, asks and stops the shadow's supervisor, which looks after the process with the version."""

    def __init__(self, state: Path) -> None:
        """Keep all files below ``state``, whose owner removes them."""
        super().__init__(state / "shadow.log")
        self._state = state
        self._frames_port = _usable(0, option="")
        self.port = _usable(0, option="")
        """Where it reports."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.stop()

    @property
    def url(self) -> str:
        """Where it says how it is."""
        return f"http://{HOST}:{self.port}"

    @property
    def predictions(self) -> Path:
        """Its prediction log's segments."""
        return self._state / "shadow-predictions"

    def localize(self, config: RuntimeConfig) -> RuntimeConfig:
        """Return the serving process's configuration with this machine's way to the shadow, if it has one."""
        if config.shadow is None:
            return config
        path = self._state / "frames.sock"
        beside = config.shadow.address.startswith("unix:") and len(os.fsencode(path)) <= _SOCKET_PATH_BYTES
        address = f"unix:{path}" if beside else f"tcp:{HOST}:{self._frames_port}"
        places = {"address": address, "predictions_dir": str(self.predictions)}
        return config.model_copy(update={"shadow": config.shadow.model_copy(update=places)})

    def start(self, config: RuntimeConfig, *, memory_bytes: int, environment: Mapping[str, str]) -> None:
        """Start the supervisor with the serving process's configuration, and with models of its own."""
        own = config.model_copy(update={"models_dir": str(self._state / "shadow-models")})
        path = self._state / "shadow.json"
        path.write_text(own.to_json(), encoding="utf-8")
        ports = ["--port", str(self.port), "--frames-port", str(self._frames_port)]
        self._run(
            ["greenroom_runtime.shadow", "--config", str(path), *ports],
            environment={**environment, names.ENV_MEMORY_LIMIT: str(memory_bytes)},
        )

    def report(self) -> ShadowReport | None:
        """Return what the supervisor says, None while it does not answer."""
        return _ask(self.port, ShadowReport)


def _ask(port: int, kind: type[Report]) -> Report | None:
    connection = http.client.HTTPConnection(HOST, port, timeout=_ANSWER_SECONDS)
    try:
        connection.request("GET", names.REPORT_PATH)
        return kind.model_validate_json(connection.getresponse().read(MAX_BYTES + 1))
    except (OSError, http.client.HTTPException, ValidationError):
        return None
    finally:
        connection.close()


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
