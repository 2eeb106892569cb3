"""Models in an S3 server inside the cluster."""

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
from obstore.store import S3Store

from e2e.cluster import Cluster, ClusterError
from e2e.terminal import ROOT, Terminal

HERE = ROOT / "e2e" / "s3"
IMAGE = "localhost/greenroom/s3:dev"
PORT = 9000
REGION = "us-east-1"
ACCESS_KEY, SECRET_KEY = "greenroom", "only-for-demonstrations"
SECONDS = 180.0
"""How long kube-proxy may take to route to a pod that is ready."""


@dataclass(frozen=True)
class ModelStore:
    """The S3 server of one namespace, with one bucket."""

    terminal: Terminal
    namespace: str
    bucket: str = "models"

    @classmethod
    def deploy(cls, cluster: Cluster, terminal: Terminal, *, namespace: str) -> "ModelStore":
        """Build and start the server in a namespace that exists, with an empty bucket."""
        cluster.build_and_load(IMAGE, HERE / "Dockerfile")
        terminal.kubectl(namespace, "apply", "--filename", str(HERE.relative_to(ROOT) / "s3.yaml"))
        terminal.kubectl(namespace, "rollout", "status", "deployment/s3", "--timeout=2m")
        store = cls(terminal=terminal, namespace=namespace)
        with store._reached() as endpoint:
            _make_bucket(f"{endpoint}/{store.bucket}")
        return store

    @property
    def environment(self) -> dict[str, str]:
        """What a pod of any namespace needs in its environment to read the bucket."""
        return {
            "AWS_ENDPOINT_URL": f"http://s3.{self.namespace}.svc:{PORT}",
            "AWS_ACCESS_KEY_ID": ACCESS_KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
            "AWS_REGION": REGION,
        }

    def secret(self, name: str) -> dict[str, Any]:
        """Return the Secret to which a ModelDeployment's `spec.source.secretRef` points."""
        return {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": name},
            "stringData": self.environment,
        }

    def upload(self, directory: Path, *, prefix: str) -> int:
        """Put every file below a directory under a prefix of the bucket; return how many there were."""
        files = sorted(path for path in directory.rglob("*") if path.is_file())
        with self._reached() as endpoint:
            bucket = S3Store(
                self.bucket,
                endpoint=endpoint,
                access_key_id=ACCESS_KEY,
                secret_access_key=SECRET_KEY,
                region=REGION,
                client_options={"allow_http": True},
            )
            for path in files:
                bucket.put(f"{prefix}/{path.relative_to(directory).as_posix()}", path)
        return len(files)

    def _reached(self) -> Any:
        return self.terminal.reach(self.namespace, "s3", port=PORT)


def _make_bucket(url: str) -> None:
    """Make the bucket, as soon as the Service's address leads to the pod."""
    deadline = time.monotonic() + SECONDS
    while True:
        try:
            with httpx2.Client(trust_env=False, timeout=10) as client:
                client.put(url).raise_for_status()
        except httpx2.TransportError as failure:
            if time.monotonic() > deadline:
                raise ClusterError(f"the S3 server does not answer at {url}: {failure}") from failure
            time.sleep(0.1)
        else:
            return
