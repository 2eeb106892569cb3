"""What ModelDeployments become; ``python -m tests.support.rendering`` rewrites the golden manifests."""

from pathlib import Path
from typing import Any

import yaml

from greenroom_operator.api.modeldeployment import ModelDeployment
from greenroom_operator.controller.promotion import PromotionInput, plan_promotion
from greenroom_operator.resources import build_children
from tests.support.builders import NOW

Manifest = dict[str, Any]

GOLDEN = Path(__file__).resolve().parents[1] / "golden"
CASES = ("claim-source", "file-source", "full", "minimal", "shadow-deployment", "shadow-sidecar")
IMAGE = "registry.example.com/greenroom-runtime:default"


def read_case(case: str) -> ModelDeployment:
    """Return the ModelDeployment of a case."""
    text = (GOLDEN / case / "modeldeployment.yaml").read_text(encoding="utf-8")
    return ModelDeployment.model_validate(yaml.safe_load(text))


def render(deployment: ModelDeployment) -> list[Manifest]:
    """Return the children of a ModelDeployment that is new, in the order of their application."""
    plan = plan_promotion(PromotionInput(target=deployment.spec.version, flags=None, promotion=None), now=NOW)
    return build_children(deployment, flags=plan.flags, default_image=IMAGE)


def file_name(manifest: Manifest) -> str:
    """Return the name of a golden file: the hash in a configuration's name is no part of it."""
    kind, name = manifest["kind"].lower(), manifest["metadata"]["name"]
    if kind == "configmap":
        return "flags.yaml" if name.endswith("-flags") else "config.yaml"
    return f"{kind}-shadow.yaml" if name.endswith("-shadow") else f"{kind}.yaml"


def rewrite(case: str) -> None:
    """Replace the golden manifests of a case."""
    expected = GOLDEN / case / "expected"
    expected.mkdir(exist_ok=True)
    for old in expected.glob("*.yaml"):
        old.unlink()
    for manifest in render(read_case(case)):
        text = yaml.safe_dump(manifest, sort_keys=False, width=110)
        (expected / file_name(manifest)).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    for name in CASES:
        rewrite(name)
