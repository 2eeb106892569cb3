"""Greenroom in a cluster, by the one way there is: our images and the chart."""

import json
from collections.abc import Mapping
from typing import Any

import yaml

from e2e.cluster import Cluster, ClusterError
from e2e.terminal import ROOT, Terminal

CHART = ROOT / "charts" / "greenroom"
RELEASE = "greenroom"
NAMESPACE = "greenroom-system"
DOCKERFILES = {
    "image": ROOT / "operator" / "Dockerfile",
    "runtimeImage": ROOT / "serving-runtime" / "Dockerfile",
}
"""By the chart's value that names the image."""


def images() -> dict[str, str]:
    """Return the names that the chart gives to its images when nobody names others."""
    values = yaml.safe_load((CHART / "values.yaml").read_text(encoding="utf-8"))
    version = yaml.safe_load((CHART / "Chart.yaml").read_text(encoding="utf-8"))["appVersion"]
    return {
        value: f"{values[value]['repository']}:{values[value]['tag'] or version}" for value in DOCKERFILES
    }


def load_images(cluster: Cluster) -> None:
    """Build the images from our own Dockerfiles and make them known to the cluster's node."""
    for value, image in images().items():
        cluster.build_and_load(image, DOCKERFILES[value])


def install(terminal: Terminal, *, values: Mapping[str, Any]) -> None:
    """Install the chart with these values, or upgrade to them, and wait until the operator is ready."""
    known = _is_installed(terminal)
    settings = [
        word for name, value in values.items() for word in ("--set-json", f"{name}={json.dumps(value)}")
    ]
    chart = CHART.relative_to(ROOT)
    try:
        terminal.run(
            *("helm", "upgrade", "--install", RELEASE, f"./{chart}"),
            *("--namespace", NAMESPACE, "--create-namespace", *settings, "--wait", "--timeout", "3m"),
        )
        if known:
            # An image built anew under its old name changes nothing that Helm sees.
            terminal.kubectl(NAMESPACE, "rollout", "restart", f"deployment/{RELEASE}")
            terminal.kubectl(NAMESPACE, "rollout", "status", f"deployment/{RELEASE}", "--timeout=3m")
    except ClusterError as failure:
        raise ClusterError(f"{failure}\n{diagnosis(terminal)}") from failure


def diagnosis(terminal: Terminal) -> str:
    """Return what the operator's pods and their logs say, for a person who wonders why it is not ready."""
    quiet = Terminal(env=terminal.env, routed=terminal.routed)
    said = []
    for arguments in (("describe", "pods"), ("logs", f"deployment/{RELEASE}", "--tail=40")):
        try:
            said.append(quiet.kubectl(NAMESPACE, *arguments)[-4000:])
        except ClusterError as failure:
            said.append(str(failure))
    return "\n".join(said)


def _is_installed(terminal: Terminal) -> bool:
    quiet = Terminal(env=terminal.env, routed=terminal.routed)
    return RELEASE in json.loads(
        quiet.run("helm", "list", "--namespace", NAMESPACE, "--short", "--output=json")
    )
