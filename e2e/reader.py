"""What the API server has, read over one connection."""

import json
from pathlib import Path
from typing import Any

from kubernetes import config

_SECONDS = 60.0
"""How long an answer may take; only ever reached on failure."""


class Reader:
    """For what is looked at again and again: a `kubectl` for each look would take much of a core."""

    def __init__(self, kubeconfig: Path) -> None:
        self._api = config.new_client_from_config(str(kubeconfig), persist_config=False)

    def read(self, path: str, **query: str) -> bytes:
        """Return what is at a path; LookupError with the API server's words where it answers no 200."""
        call = self._api.param_serialize(
            "GET", path, query_params=[*query.items()], auth_settings=["BearerToken"]
        )
        answer = self._api.call_api(*call, _request_timeout=_SECONDS)
        content: bytes = answer.read()
        if answer.status != 200:
            message = f"GET {path}: {answer.status}: {content.decode(errors='replace')}"
            raise LookupError(message)
        return content

    def get(self, path: str, **query: str) -> Any:
        """Return the JSON that is at a path; LookupError as above."""
        return json.loads(self.read(path, **query))
