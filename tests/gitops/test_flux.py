"""What Flux, and whatever else reads kstatus, makes of a ModelDeployment."""

from typing import Any

import cel
import pytest
import yaml

from greenroom_operator.controller.conditions import TRUTH_TABLE, Situation, Verdict, build_conditions
from tests.support.argocd import ROOT
from tests.support.builders import NOW, stored_deployment
from tests.support.kstatus import KStatus, compute_kstatus

STEADY = build_conditions(
    Verdict(situation=Situation.STEADY, message="v1 serves on 1 pod"), before=(), generation=1, now=NOW
)


def in_situation(situation: Situation, *, generation: int = 1) -> dict[str, Any]:
    """Return a ModelDeployment that was ready, and then came into a situation."""
    conditions = build_conditions(
        Verdict(situation=situation, message="why"), before=STEADY, generation=1, now=NOW
    )
    told = [condition.model_dump(mode="json", by_alias=True) for condition in conditions]
    return stored_deployment(generation=generation, status={"observedGeneration": 1, "conditions": told})


def documented() -> dict[str, str]:
    """Return the column kstatus of the truth table in docs/conditions.md, by situation."""
    page = (ROOT / "docs" / "conditions.md").read_text(encoding="utf-8")
    rows = page.partition("## Truth table")[2].partition("## ")[0].splitlines()
    cells = [[cell.strip() for cell in row.split("|")] for row in rows if row.startswith("| ")]
    return {row[1]: row[-2] for row in cells[1:]}


def expressions() -> dict[str, str]:
    """Return the expressions that docs/gitops.md gives to a Kustomization."""
    page = (ROOT / "docs" / "gitops.md").read_text(encoding="utf-8")
    block = next(part for part in page.split("```yaml")[1:] if "healthCheckExprs" in part).partition("```")[0]
    (found,) = yaml.safe_load(block)["healthCheckExprs"]
    assert (found["apiVersion"], found["kind"]) == ("greenroom.dev/v1alpha1", "ModelDeployment")
    return {name: found[name] for name in ("inProgress", "failed", "current")}


def evaluate(found: dict[str, Any]) -> KStatus:
    """Return a status as Flux does it by expressions: the generation first, then the first that holds."""
    if found["status"].get("observedGeneration") != found["metadata"]["generation"]:
        return KStatus.IN_PROGRESS
    outcomes = {"inProgress": KStatus.IN_PROGRESS, "failed": KStatus.FAILED, "current": KStatus.CURRENT}
    for name, expression in expressions().items():
        if cel.evaluate(expression, {key: found[key] for key in ("metadata", "spec", "status")}):
            return outcomes[name]
    return KStatus.IN_PROGRESS


@pytest.mark.parametrize("situation", list(Situation))
def test_the_column_kstatus(situation: Situation) -> None:
    """The column of the truth table in docs/conditions.md is what kstatus' rules make of each row."""
    assert compute_kstatus(in_situation(situation)) == documented()[situation.value]


@pytest.mark.parametrize("situation", list(Situation))
def test_a_spec_that_is_not_observed_is_in_progress(situation: Situation) -> None:
    """After a commit nothing that was said of the spec before counts."""
    assert compute_kstatus(in_situation(situation, generation=2)) is KStatus.IN_PROGRESS


def test_an_object_that_nobody_has_looked_at_is_in_progress() -> None:
    """Without a status it would be taken for done; the one that the API server gives it says otherwise."""
    new = stored_deployment()

    assert compute_kstatus(new) is KStatus.CURRENT
    assert compute_kstatus(new | {"status": {"observedGeneration": -1}}) is KStatus.IN_PROGRESS


def test_an_object_on_its_way_out_is_terminating() -> None:
    """Nothing that its status still says counts."""
    found = in_situation(Situation.PROMOTION_REFUSED)
    found["metadata"]["deletionTimestamp"] = "2026-11-03T09:30:00Z"

    assert compute_kstatus(found) is KStatus.TERMINATING


@pytest.mark.parametrize("situation", list(Situation))
def test_flux_s_expressions(situation: Situation) -> None:
    """The expressions of docs/gitops.md change two things: zero replicas are done, and Degraded fails."""
    by_rule = compute_kstatus(in_situation(situation))
    if situation is Situation.SCALED_TO_ZERO:
        by_rule = KStatus.CURRENT
    elif TRUTH_TABLE[situation].degraded:
        by_rule = KStatus.FAILED

    assert evaluate(in_situation(situation)) is by_rule


def test_flux_s_expressions_wait_for_the_operator() -> None:
    """An expression is not even asked while the newest spec is not observed."""
    assert evaluate(in_situation(Situation.STEADY, generation=2)) is KStatus.IN_PROGRESS
    assert evaluate(stored_deployment(status={"observedGeneration": -1})) is KStatus.IN_PROGRESS
