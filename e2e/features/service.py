"""Features by entity from a file: ``GET /{entity}``. It runs on the standard library alone, in a pod."""

import json
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote


class Service(BaseHTTPRequestHandler):
    """Answers one request after another on a connection."""

    protocol_version = "HTTP/1.1"
    known: dict[str, object] = {}  # noqa: RUF012 set once, before it serves

    def do_GET(self) -> None:
        """Tell an entity's features; ``/`` says that it is up."""
        entity = unquote(self.path.removeprefix("/"))
        found = {} if not entity else self.known.get(entity)
        body = json.dumps(found).encode()
        self.send_response(200 if found is not None else 404)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


if __name__ == "__main__":
    Service.known = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    # By default six connections may wait to be taken; of more the kernel lets each wait for a second.
    ThreadingHTTPServer.request_queue_size = 128
    ThreadingHTTPServer(("", 8000), Service).serve_forever()
