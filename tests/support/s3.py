"""A real S3 server for tests: moto's, installed by uv into an environment of its own."""

import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import obstore
from obstore.store import S3Store

from tests.support.environment import python_with

CREDENTIALS = {
    "AWS_ACCESS_KEY_ID": "test",
    "AWS_SECRET_ACCESS_KEY": "test",
    "AWS_REGION": "us-east-1",
}
# Started through the environment's own Python, so that it can ask to die with the tests.
_SERVER = """
import ctypes, signal, sys
ctypes.CDLL(None).prctl(1, signal.SIGKILL)
from werkzeug.serving import make_server
from moto.server import DomainDispatcherApplication, create_backend_app
application = DomainDispatcherApplication(create_backend_app)
server = make_server("127.0.0.1", int(sys.argv[1]), application, threaded=True)
print(server.server_port, flush=True)
server.serve_forever()
"""


@dataclass(frozen=True, kw_only=True)
class S3Server:
    """A server that is up; buckets live as long as it does."""

    url: str

    @property
    def environment(self) -> dict[str, str]:
        """What a client needs in its environment."""
        return {**CREDENTIALS, "AWS_ENDPOINT_URL": self.url}

    def create_bucket(self, bucket: str) -> None:
        """Create an empty bucket."""
        subprocess.run(["curl", "--silent", "--fail", "--request", "PUT", f"{self.url}/{bucket}"], check=True)

    def store(self, bucket: str) -> S3Store:
        """Return a client of a bucket."""
        return S3Store(
            bucket,
            config={
                "endpoint": self.url,
                "access_key_id": CREDENTIALS["AWS_ACCESS_KEY_ID"],
                "secret_access_key": CREDENTIALS["AWS_SECRET_ACCESS_KEY"],
                "region": CREDENTIALS["AWS_REGION"],
            },
            client_options={"allow_http": True},
        )

    def upload(self, directory: Path, bucket: str, *, prefix: str = "") -> None:
        """Put every file below the directory under the prefix."""
        store = self.store(bucket)
        for path in sorted(directory.rglob("*")):
            if path.is_file():
                obstore.put(store, f"{prefix}{path.relative_to(directory)}", path.read_bytes())


@contextmanager
def s3_server(port: int = 0) -> Iterator[S3Server]:
    """Run a server on a free port, or on the given one, until the block ends."""
    process = subprocess.Popen(
        [python_with("s3"), "-c", _SERVER, str(port)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stderr is not None
    # Drained, or a full pipe would stop the server in the middle of a request.
    errors: list[str] = []
    reader = threading.Thread(target=lambda: errors.extend(process.stderr or ()), daemon=True)
    reader.start()
    try:
        announced = process.stdout.readline()
        if not announced.strip().isdigit():
            process.wait()
            reader.join()
            message = f"the S3 server did not start: {''.join(errors)}"
            raise RuntimeError(message)
        yield S3Server(url=f"http://127.0.0.1:{announced.strip()}")
    finally:
        process.kill()
        process.wait()
        reader.join()
        process.stdout.close()
        process.stderr.close()
