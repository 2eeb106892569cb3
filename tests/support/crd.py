"""The CRDs on a real API server."""

import time
from pathlib import Path

from tests.support.kubectl import Kubectl

CRDS = Path(__file__).parents[2] / "crds"
NAME = "modeldeployments.greenroom.dev"


def install(kubectl: Kubectl, *, seconds: float = 60) -> str:
    """Apply `crds/` as a user does; return the ModelDeployment's CRD's name, once Established.

    ``kubectl wait`` ends with an error where the CRD is so new that it has no conditions yet.
    """
    kubectl("apply", "--filename", str(CRDS))
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        conditions = kubectl.get("crd", NAME).get("status", {}).get("conditions") or []
        if any(each["type"] == "Established" and each["status"] == "True" for each in conditions):
            return NAME
        time.sleep(0.1)
    raise AssertionError(f"{NAME} was not Established within {seconds:g} s")
