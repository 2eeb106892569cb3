"""Other projects' clients of the Open Inference Protocol, as their users run them: a process of their own."""

import json
import subprocess
from typing import Any

from tests.support.environment import python_with

DEADLINE_SECONDS = 120.0
"""How long a script may take; importing a client takes seconds."""
_PROLOGUE = """
import json, sys
url, found = sys.argv[1], {}
"""
_EPILOGUE = """
print(json.dumps(found))
"""


def run_client(script: str, url: str) -> dict[str, Any]:
    """Run a script against a server and return what it has put into ``found``.

    The script finds the server's address as ``url``, and tritonclient and kserve installed.
    """
    ended = subprocess.run(
        [python_with("clients"), "-c", _PROLOGUE + script + _EPILOGUE, url],
        capture_output=True,
        text=True,
        timeout=DEADLINE_SECONDS,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    found: dict[str, Any] = json.loads(ended.stdout.splitlines()[-1])
    return found
