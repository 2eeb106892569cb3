"""The OpenAPI document is true: what it promises and what it forbids is tried on a running server."""

import subprocess
import sys
from pathlib import Path

from tests.support.bundles import write_classifier
from tests.support.serving import ServingProcess, flags

CHECK_SECONDS = 240
CHECKS = """
[checks]
positive_data_acceptance.enabled = false
negative_data_rejection.expected-statuses = [400, 404, 405, 413, 415, 422]
"""


def test_the_server_keeps_its_documents_promises(tmp_path: Path) -> None:
    """Hundreds of requests made from the document, valid and not: no server error, nothing undocumented.

    That all valid ones are answered is not asked for: a JSON Schema cannot say that 1.0 is no integer, that
    columns are of one length, or that a tensor has as many values as its shape says.
    """
    (tmp_path / "schemathesis.toml").write_text(CHECKS)
    write_classifier(tmp_path / "source", "v1")
    with ServingProcess(tmp_path / "pod", source_uri=(tmp_path / "source").as_uri()) as pod:
        pod.flags.write(flags("v1"))
        pod.wait_ready("v1")
        told = subprocess.run(
            [
                *(
                    sys.executable,
                    "-m",
                    "schemathesis.cli",
                    "--config-file",
                    "schemathesis.toml",
                    "run",
                    f"{pod.url}/openapi.json",
                ),
                *("--max-examples", "40", "--seed", "7", "--workers", "1", "--no-color"),
                *("--generation-database", "none"),
            ],
            capture_output=True,
            text=True,
            timeout=CHECK_SECONDS,
            cwd=tmp_path,
            check=False,
        )
        assert told.returncode == 0, told.stdout[-8000:] + told.stderr[-2000:]
        assert "Tested: 12" in told.stdout  # every operation, those of the Open Inference Protocol included
        assert pod.report().errors == 0
