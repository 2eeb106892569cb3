"""The real kubectl, as a user calls it."""

import json
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any


class KubectlError(AssertionError):
    """kubectl ended with an error; the message is what the user reads."""


@dataclass(frozen=True)
class Kubectl:
    """One kubectl with one kubeconfig, its discovery cache out of the way of the user's own."""

    program: Path
    kubeconfig: Path
    cache: Path

    def run(
        self, *arguments: str, document: Any = None, timeout: float = 180
    ) -> subprocess.CompletedProcess[str]:
        """Run it and return what came back, unjudged; a document goes to standard input as JSON."""
        return subprocess.run(
            [self.program, f"--kubeconfig={self.kubeconfig}", f"--cache-dir={self.cache}", *arguments],
            input=None if document is None else json.dumps(document),
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )

    def __call__(self, *arguments: str, document: Any = None) -> str:
        """Run it and return standard output; KubectlError when it fails."""
        done = self.run(*arguments, document=document)
        if done.returncode:
            message = f"kubectl {' '.join(arguments)} ended with {done.returncode}:\n{done.stderr}"
            raise KubectlError(message)
        return done.stdout

    def get(self, *arguments: str) -> Any:
        """Return what ``kubectl get`` finds, as the API server sends it."""
        return json.loads(self("get", "--output=json", *arguments))
