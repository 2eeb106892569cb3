"""The supervisor's HTTP: three paths that are read, in threads that are few and patient for seconds only."""

import socket
import socketserver
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from http import HTTPStatus
from typing import Any, Final

from greenroom_runtime.contract import names
from greenroom_runtime.shadow.told import tell

Page = Callable[[], tuple[str, bytes]]
"""Returns a content type and the content."""

_MOST_CONNECTIONS: Final = 8
_READ_SECONDS: Final = 5.0
_OLD_SECONDS: Final = 5.0
"""The age of a connection from which on another one may have its place."""
_BIND_AGAIN_SECONDS: Final = 1.0
_MOST_LINE: Final = 8192
_MOST_LINES: Final = 100


def pages(*, report: Callable[[], bytes], metrics: Callable[[], bytes]) -> dict[str, Page]:
    """Return what is shown under which path."""
    return {
        names.REPORT_PATH: lambda: ("application/json", report()),
        names.METRICS_PATH: lambda: ("text/plain; version=0.0.4; charset=utf-8", metrics()),
        names.LIVE_PATH: lambda: ("text/plain; charset=utf-8", b"alive\n"),
    }


def open_window(host: str, port: int, shown: Mapping[str, Page]) -> None:
    """Serve the pages in threads for as long as the process lives; a port in use is tried again and again."""
    threading.Thread(target=_serve, args=(host, port, shown), name="window", daemon=True).start()


def _serve(host: str, port: int, shown: Mapping[str, Page]) -> None:
    complained = False
    while True:
        try:
            with _Server(host, port, shown) as server:
                tell("supervising", port=server.server_address[1])
                complained = False
                server.serve_forever(poll_interval=3600)
        except Exception as error:  # noqa: BLE001 whatever it is, the shadow is supervised all the same
            if not complained:
                tell("the report cannot be asked for", level="warning", port=port, error=str(error))
            complained = True
        time.sleep(_BIND_AGAIN_SECONDS)


class _Server(socketserver.ThreadingMixIn, socketserver.TCPServer):
    daemon_threads = True
    block_on_close = False
    allow_reuse_address = True
    request_queue_size = 16

    def __init__(self, host: str, port: int, shown: Mapping[str, Page]) -> None:
        self.address_family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self.shown = shown
        self._guard = threading.Lock()
        self._open: dict[Any, float] = {}
        super().__init__((host, port), _Exchange)

    def process_request(self, request: Any, client_address: Any) -> None:
        """Begin an exchange where there is room for one more; who has had its time makes room."""
        now = time.monotonic()
        with self._guard:
            if len(self._open) >= _MOST_CONNECTIONS:
                oldest, began = next(iter(self._open.items()))
                if now - began < _OLD_SECONDS:
                    request.close()
                    return
                del self._open[oldest]
                with suppress(OSError):
                    oldest.shutdown(socket.SHUT_RDWR)
            self._open[request] = now
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        """Close the connection."""
        with self._guard:
            self._open.pop(request, None)
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing: a client that is gone is no news."""


class _Exchange(socketserver.StreamRequestHandler):
    """One request and its answer.

    The standard library's own HTTP server would take as much memory as all the rest of the process.
    """

    timeout = _READ_SECONDS
    server: _Server

    def handle(self) -> None:
        """Read the request, of which only the first line matters, and answer."""
        status, kind, content = self._answer()
        head = (
            f"HTTP/1.1 {status.value} {status.phrase}\r\nContent-Type: {kind}\r\n"
            f"Content-Length: {len(content)}\r\nConnection: close\r\n\r\n"
        )
        self.wfile.write(head.encode() + (b"" if self._method == b"HEAD" else content))

    def _answer(self) -> tuple[HTTPStatus, str, bytes]:
        text = "text/plain; charset=utf-8"
        self._method, _, rest = self.rfile.readline(_MOST_LINE).partition(b" ")
        path = rest.split(b" ")[0].split(b"?")[0].decode(errors="replace")
        for _ in range(_MOST_LINES):
            line = self.rfile.readline(_MOST_LINE)
            if not line.strip():
                break
        else:
            return HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, text, b"too many headers\n"
        if self._method not in (b"GET", b"HEAD"):
            return HTTPStatus.METHOD_NOT_ALLOWED, text, b"only GET\n"
        page = self.server.shown.get(path)
        if page is None:
            return HTTPStatus.NOT_FOUND, text, f"there is only {', '.join(self.server.shown)}\n".encode()
        return HTTPStatus.OK, *page()
