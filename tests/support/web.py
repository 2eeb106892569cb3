"""A real web server for tests: plain files with ranges and ETags, over TLS if asked, with faults to order."""

import hashlib
import ssl
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote

_PUBLISHED = "Sun, 01 Nov 2026 00:00:00 GMT"


@dataclass(kw_only=True)
class Faults:
    """What is wrong with a server; changed while it runs."""

    cut_after: int | None = None
    """Bytes of a body after which the connection is cut."""
    hang_after: int | None = None
    """Bytes of a body after which nothing more comes."""
    ranges: bool = True
    lengths: bool = True
    """Whether a body's length is told before it; of a HEAD it always is."""
    etags: bool = True
    """And dates: what tells one file from another."""
    etag: str = ""
    """One for all files, whatever they hold."""
    redirect_to: str = ""
    """Where every request is sent, its path appended."""


@dataclass(kw_only=True)
class WebServer:
    """A server that is up."""

    directory: Path
    url: str = ""
    faults: Faults = field(default_factory=Faults)
    requests: list[tuple[str, str, str]] = field(default_factory=list)
    """Method, path and Range header of each request, in order."""
    released: threading.Event = field(default_factory=threading.Event)
    """Set at the end, so that nothing hangs longer than its test."""

    def ranges_asked(self, name: str) -> list[str]:
        """Return the Range headers of the downloads of one file; empty for a whole one."""
        return [asked for method, path, asked in self.requests if method == "GET" and path.endswith(name)]


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    web: WebServer

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def do_GET(self) -> None:
        self._answer(body=True)

    def _answer(self, *, body: bool) -> None:
        faults, path = self.web.faults, unquote(self.path)
        self.web.requests.append((self.command, path, self.headers.get("Range", "")))
        if faults.redirect_to and not path.startswith("/moved/"):
            self._head(302, {"Location": faults.redirect_to + self.path, "Content-Length": "0"})
            return
        file = self.web.directory / path.removeprefix("/moved").lstrip("/")
        if not file.is_file():
            self._head(404, {"Content-Length": "0"})
            return
        content = file.read_bytes()
        etag = faults.etag or hashlib.sha256(content).hexdigest()
        headers = {"ETag": f'"{etag}"', "Last-Modified": _PUBLISHED} if faults.etags else {}
        asked = self.headers.get("Range", "") if faults.ranges else ""
        status, size = 200, len(content)
        if asked:
            first, _, last = asked.removeprefix("bytes=").partition("-")
            end = min(int(last) + 1, size) if last else size
            headers["Content-Range"] = f"bytes {first}-{end - 1}/{size}"
            status, content = 206, content[int(first) : end]
        length = {"Content-Length": str(len(content))} if faults.lengths or not body else {}
        self._head(status, {**headers, **length})
        if body:
            self._send(content)
            self.close_connection |= not faults.lengths

    def _head(self, status: int, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()

    def _send(self, content: bytes) -> None:
        faults = self.web.faults
        limits = [limit for limit in (faults.cut_after, faults.hang_after) if limit is not None]
        sent = min([*limits, len(content)])
        self.wfile.write(content[:sent])
        self.wfile.flush()
        if sent < len(content):
            if faults.hang_after is not None:
                self.web.released.wait()
            self.close_connection = True

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


class _Server(ThreadingHTTPServer):
    def handle_error(self, *_: Any) -> None:
        """Say nothing: clients are cut off and killed here."""


@contextmanager
def web_server(directory: Path, *, tls: Path | None = None) -> Iterator[WebServer]:
    """Serve a directory on a free port until the block ends; over TLS with a file of certificate and key."""
    web = WebServer(directory=directory)
    server = _Server(("127.0.0.1", 0), type("Handler", (_Handler,), {"web": web}))
    if tls is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(tls)
        server.socket = context.wrap_socket(server.socket, server_side=True)
    web.url = f"{'https' if tls else 'http'}://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield web
    finally:
        web.released.set()
        server.shutdown()
        thread.join()
        server.server_close()


def write_certificate(path: Path) -> Path:
    """Write a private authority's certificate for 127.0.0.1, and its key, into one file."""
    key = path.with_suffix(".key")
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
    subject = ["-subj", "/CN=greenroom test", "-addext", "subjectAltName=IP:127.0.0.1", "-days", "2"]
    subprocess.run([*command, *subject, "-keyout", key, "-out", path], check=True, capture_output=True)
    path.write_bytes(path.read_bytes() + key.read_bytes())
    return path
