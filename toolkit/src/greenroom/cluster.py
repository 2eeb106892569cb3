"""The only module of the toolkit that talks to a cluster: as its user, through the user's own kubectl.

``kubectl proxy`` on a socket that nobody else can open: so each way to log in works that works for kubectl
(exec plugins, OIDC, client certificates, proxies), with exactly its rights, and no client is to be installed
beside it.
"""

import http.client
import json
import os
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self
from urllib.parse import quote

from greenroom.errors import CommandError
from greenroom_operator.kinds import KINDS, MODEL_DEPLOYMENT, POD, Kind
from greenroom_runtime.contract import names

_ANSWER_SECONDS: Final = 20.0
_PATH_BYTES: Final = 100
"""What the path of a Unix socket may have, and a bit less."""
_PLAIN: Final = "text/plain; charset=utf-8"
_MERGE: Final = "application/merge-patch+json"


class ClusterError(CommandError):
    """The cluster cannot be reached, or does not do what was asked."""


@dataclass(frozen=True, kw_only=True)
class Reply:
    """What was answered to one request."""

    status: int
    headers: Mapping[str, str]
    """By name in lower case."""
    body: bytes

    def json(self) -> Any:
        """Return the body as JSON; ClusterError where it is none."""
        try:
            return json.loads(self.body)
        except ValueError as error:
            raise ClusterError(f"the answer is no JSON: {_short(self.body)}") from error


class _SocketConnection(http.client.HTTPConnection):
    """HTTP through a Unix socket."""

    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=_ANSWER_SECONDS)
        self._path = str(path)

    def connect(self) -> None:
        """Connect to the socket."""
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


class Cluster:
    """A context manager: the API server, while kubectl's proxy runs."""

    def __init__(self, *, context: str | None = None, namespace: str | None = None) -> None:
        """ClusterError where there is no kubectl; ``namespace`` defaults to the context's."""
        program = shutil.which("kubectl")
        if program is None:
            raise ClusterError(
                "kubectl is not on PATH, and greenroom asks the cluster through it: install kubectl, and see "
                "that `kubectl get modeldeployments` works"
            )
        self._kubectl = [program, *(["--context", context] if context else [])]
        self._namespace = namespace
        self._directory: Path | None = None
        self._process: subprocess.Popen[str] | None = None

    def __enter__(self) -> Self:
        """Start the proxy and wait until it serves; ClusterError says what kubectl complains of."""
        try:
            self._start()
        except BaseException:
            self._close()
            raise
        return self

    def _start(self) -> None:
        self._directory = Path(tempfile.mkdtemp(prefix="greenroom-"))
        path = self._directory / "kubectl.sock"
        if len(str(path).encode()) > _PATH_BYTES:
            raise ClusterError(f"{path} is too long for a socket: set TMPDIR to a shorter directory")
        self._process = subprocess.Popen(
            [*self._kubectl, "proxy", f"--unix-socket={path}"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,  # Ctrl-C is for us to hear
        )
        if not (self._process.stdout and self._process.stdout.readline()):  # it says where it serves
            _, told = self._process.communicate()
            raise ClusterError(f"kubectl cannot be used: {told.strip().removeprefix('error: ')}")

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End the proxy and remove its socket."""
        self._close()

    def _close(self) -> None:
        if self._process is not None:
            self._process.kill()  # it holds nothing
            self._process.communicate()
        if self._directory is not None:
            shutil.rmtree(self._directory, ignore_errors=True)

    @property
    def namespace(self) -> str:
        """The namespace that was asked for, or the context's."""
        if self._namespace is None:
            told = subprocess.run(
                [*self._kubectl, "config", "view", "--minify", "--output=jsonpath={..namespace}"],
                capture_output=True,
                text=True,
                check=False,
            )
            self._namespace = told.stdout.strip() or "default"
        return self._namespace

    def _place(self, kind: Kind, name: str = "", subresource: str = "") -> str:
        """Return a path in the namespace; what a person has mistyped stays one part of it."""
        return kind.path(quote(self.namespace, safe=""), quote(name, safe=":"), subresource)

    def get_deployment(self, name: str) -> dict[str, Any]:
        """Return a ModelDeployment; ClusterError where there is none, or no such right."""
        reply = self._ask("GET", self._place(MODEL_DEPLOYMENT, name))
        if reply.status == http.HTTPStatus.NOT_FOUND:
            raise ClusterError(
                f"there is no ModelDeployment {name} in the namespace {self.namespace}, or no Greenroom in "
                "this cluster: see `kubectl get modeldeployments --all-namespaces`, and choose with "
                "--namespace and --context"
            )
        return self._object(reply)

    def patch_deployment(self, name: str, patch: Mapping[str, Any]) -> dict[str, Any]:
        """Merge a change into a ModelDeployment and return it; ClusterError where it is refused."""
        path = self._place(MODEL_DEPLOYMENT, name) + "?fieldManager=greenroom-command"
        body = json.dumps(patch).encode()
        return self._object(self._ask("PATCH", path, body=body, headers={"Content-Type": _MERGE}))

    def get_config_map(self, name: str) -> dict[str, Any]:
        """Return a ConfigMap; ClusterError where there is none, or no such right."""
        return self._object(self._ask("GET", self._place(KINDS["ConfigMap"], name)))

    def list_pods(self, deployment: str) -> list[dict[str, Any]]:
        """Return a ModelDeployment's pods, by name."""
        path = f"{self._place(POD)}?labelSelector={names.LABEL_DEPLOYMENT}%3D{quote(deployment, safe='')}"
        pods: list[dict[str, Any]] = self._object(self._ask("GET", path))["items"]
        return sorted(pods, key=lambda pod: str(pod["metadata"]["name"]))

    def ask_pod(self, pod: str, *, port: int, path: str) -> Reply:
        """Ask a pod through the API server; that needs the right to get ``pods/proxy``."""
        return self._ask("GET", self._place(POD, f"{pod}:{port}", "proxy") + path)

    def ask_service(self, service: str, *, method: str, path: str, body: bytes | None = None) -> Reply:
        """Ask a Service's port ``http`` through the API server; that needs a right on ``services/proxy``."""
        place = self._place(KINDS["Service"], f"{service}:http", "proxy") + path
        return self._ask(method, place, body=body, headers={"Content-Type": "application/json"})

    def _object(self, reply: Reply) -> dict[str, Any]:
        if reply.status >= http.HTTPStatus.BAD_REQUEST:
            raise ClusterError(f"the cluster refuses: {complaint(reply)}")
        found: dict[str, Any] = reply.json()
        return found

    def _ask(
        self, method: str, path: str, *, body: bytes | None = None, headers: Mapping[str, str] | None = None
    ) -> Reply:
        if self._directory is None:
            raise ClusterError("the cluster is used outside of its `with` block")
        connection = _SocketConnection(self._directory / "kubectl.sock")
        try:
            connection.request(method, path, body, dict(headers or {}))
            response = connection.getresponse()
            told = {name.lower(): value for name, value in response.getheaders()}
            reply = Reply(status=response.status, headers=told, body=response.read())
        except (OSError, http.client.HTTPException) as error:
            raise ClusterError(
                f"the API server does not answer ({type(error).__name__}: {error}): does "
                "`kubectl get pods` work?"
            ) from error
        finally:
            connection.close()
        if reply.status >= http.HTTPStatus.INTERNAL_SERVER_ERROR and told.get("content-type", "") == _PLAIN:
            raise ClusterError(  # kubectl's own words: what the API server says is JSON
                f"the API server does not answer ({_short(reply.body)}): does `kubectl get pods` work?"
            )
        return reply


def peek(arguments: Sequence[str], *, context: str | None, namespace: str | None, seconds: float) -> str:
    """Return what ``kubectl get`` prints of ModelDeployments; empty where it fails or takes longer.

    For whoever completes a word: it asks nobody for a password, and no process of it is left.
    """
    options = {"--context": context, "--namespace": namespace}
    given = [f"{name}={value}" for name, value in options.items() if value]
    try:
        process = subprocess.Popen(
            ["kubectl", "get", MODEL_DEPLOYMENT.resource, *arguments, *given],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            errors="replace",
            start_new_session=True,  # what it starts to log in ends with it, and finds no terminal to ask
        )
    except OSError:
        return ""
    with process:
        try:
            told, _ = process.communicate(timeout=seconds)
        except BaseException as error:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            if isinstance(error, subprocess.TimeoutExpired):
                return ""
            raise
        return told if process.returncode == 0 else ""


def complaint(reply: Reply) -> str:
    """Return what an answer complains of, in its own words."""
    try:
        document = json.loads(reply.body)
        told = document.get("message") or document.get("detail") or ""
    except (ValueError, AttributeError):
        told = ""
    return told or f"{reply.status}: {_short(reply.body)}"


def _short(body: bytes) -> str:
    return " ".join(body.decode(errors="replace").split())[:300] or "an empty answer"
