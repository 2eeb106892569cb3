"""Render the chart with the real Helm; ``python -m tests.chart.rendering`` rewrites the golden manifests."""

import subprocess
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from e2e.cluster import golang

Manifest = dict[str, Any]

ROOT = Path(__file__).resolve().parents[2]
CHART = ROOT / "charts" / "greenroom"
GOLDEN = Path(__file__).resolve().parent / "golden"
RELEASE = "gr"
NAMESPACE = "ml"
KUBERNETES = ".".join(map(str, golang.KUBERNETES))


@cache
def helm() -> Path:
    """Return the Helm that the project builds, building it where nobody has yet (minutes, once a machine)."""
    return golang.build(golang.HELM) / "helm"


def run_helm(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Run Helm and return what it said, however it ended."""
    command = [str(helm()), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)


def render(*arguments: str | Path, release: str = RELEASE, namespace: str = NAMESPACE) -> list[Manifest]:
    """Return the objects that an installation with these arguments applies; AssertionError if refused."""
    place = ("--namespace", namespace, "--kube-version", KUBERNETES)
    done = run_helm("template", release, CHART, *place, *arguments)
    assert done.returncode == 0, done.stderr
    return [document for document in yaml.safe_load_all(done.stdout) if document]


def refusal(*arguments: str | Path) -> str:
    """Return why an installation with these arguments is refused; AssertionError when it is not."""
    done = run_helm("template", RELEASE, CHART, "--kube-version", KUBERNETES, *arguments)
    assert done.returncode != 0, "it was rendered"
    return done.stderr


def only(manifests: Iterable[Manifest], kind: str, name: str | None = None) -> Manifest:
    """Return the one object of a kind (and a name)."""
    found = [
        manifest
        for manifest in manifests
        if manifest["kind"] == kind and name in (None, manifest["metadata"]["name"])
    ]
    assert len(found) == 1, f"{len(found)} objects are {kind} {name or ''}"
    return found[0]


def golden_cases() -> list[str]:
    """Return the names of the value sets whose rendering is kept."""
    return sorted(directory.name for directory in GOLDEN.iterdir() if directory.is_dir())


def golden_text(case: str) -> str:
    """Return the rendering of a value set as text, without the CRDs: their source is committed already."""
    manifests = render("--values", GOLDEN / case / "values.yaml")
    kept = [manifest for manifest in manifests if manifest["kind"] != "CustomResourceDefinition"]
    kept.sort(
        key=lambda manifest: (
            manifest["kind"],
            manifest["metadata"].get("namespace", ""),
            manifest["metadata"]["name"],
        )
    )
    return yaml.safe_dump_all(kept, sort_keys=False)


if __name__ == "__main__":
    for name in golden_cases():
        (GOLDEN / name / "expected.yaml").write_text(golden_text(name), encoding="utf-8")
