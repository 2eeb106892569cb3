"""What Argo CD shows of a ModelDeployment."""

import re
from typing import Any

import jsonschema_rs
import pytest
import yaml

from greenroom_operator.api import crdgen
from greenroom_operator.api.modeldeployment import ModelDeployment
from greenroom_operator.controller.conditions import TRUTH_TABLE, Situation, Verdict, build_conditions
from tests.support.argocd import ACTIONS, KIND, ROOT, Health, judge
from tests.support.builders import NOW, stored_deployment

TESTS = yaml.safe_load((KIND / "health_test.yaml").read_text(encoding="utf-8"))["tests"]
OBJECTS = sorted(
    str(path.relative_to(KIND)) for folder in (KIND, ACTIONS) for path in (folder / "testdata").iterdir()
)
"""All of the folder's, those of its actions included."""
ROLLOUTS = ({"version": "v3", "steps": [{"percent": 10, "hold": "1h"}]}, {"version": "v3", "percent": 10})
STEADY = build_conditions(
    Verdict(situation=Situation.STEADY, message="v1 serves on 1 pod"), before=(), generation=1, now=NOW
)


def read(path: str) -> dict[str, Any]:
    """Return an object of the folder's own tests."""
    document: dict[str, Any] = yaml.safe_load((KIND / path).read_text(encoding="utf-8"))
    return document


def in_situation(situation: Situation, **parts: Any) -> dict[str, Any]:
    """Return a ModelDeployment that was ready, and then came into a situation."""
    verdict = Verdict(situation=situation, message="why")
    conditions = build_conditions(verdict, before=STEADY, generation=1, now=NOW)
    if situation is Situation.DISABLED:
        parts["annotations"] = {"greenroom.dev/reconcile": "disabled"}
    return stored_deployment(
        status={
            "observedGeneration": 1,
            "conditions": [condition.model_dump(mode="json", by_alias=True) for condition in conditions],
        },
        **parts,
    )


def documented() -> dict[str, set[str]]:
    """Return the reasons that docs/gitops.md lists for each health."""
    page = (ROOT / "docs" / "gitops.md").read_text(encoding="utf-8")
    rows = page.partition("### Health")[2].partition("### ")[0].splitlines()
    cells = [row.split("|") for row in rows if row.startswith("| `")]
    return {row[1].strip(" `"): set(re.findall(r"`(\w+)`", row[2])) for row in cells}


@pytest.mark.parametrize("case", TESTS, ids=lambda case: case["inputPath"])
def test_argo_cd_s_own_tests(case: dict[str, Any]) -> None:
    """Each object of the folder gets the health that health_test.yaml says, to the letter."""
    expected = Health(status=case["healthStatus"]["status"], message=case["healthStatus"]["message"])

    assert judge(read(case["inputPath"])) == expected


def test_every_object_is_tested() -> None:
    """No object of the folder is left out of health_test.yaml."""
    assert {case["inputPath"] for case in TESTS} == {
        str(path.relative_to(KIND)) for path in (KIND / "testdata").iterdir()
    }


@pytest.mark.parametrize("rollout", ROLLOUTS, ids=lambda rollout: "steps" if "steps" in rollout else "share")
@pytest.mark.parametrize("situation", list(Situation))
def test_the_health_of_each_situation(situation: Situation, rollout: dict[str, Any]) -> None:
    """Each row of the truth table is shown as docs/gitops.md says, with the message of its conditions."""
    health = judge(in_situation(situation, rollout=rollout))

    assert TRUTH_TABLE[situation].reason in documented()[health.status]
    if situation is not Situation.DISABLED:
        assert health.message == "why"


def test_the_page_promises_nothing_else() -> None:
    """A reason stands in each line of docs/gitops.md where a situation brings it, and in no other."""
    shown: dict[str, set[str]] = {health: set() for health in documented()}
    for situation in Situation:
        for rollout in ROLLOUTS:
            health = judge(in_situation(situation, rollout=rollout))
            shown[health.status].add(TRUTH_TABLE[situation].reason)

    assert documented() == shown


@pytest.mark.parametrize("situation", list(Situation))
def test_a_spec_that_is_not_observed_is_progressing(situation: Situation) -> None:
    """After a commit nothing that was said of the spec before counts; only disabled stays what it is."""
    health = judge(in_situation(situation, generation=2))

    assert health.status == ("Suspended" if situation is Situation.DISABLED else "Progressing")


@pytest.mark.parametrize(
    "status",
    [
        None,
        {},
        {"observedGeneration": -1},
        {"observedGeneration": 1},
        {"observedGeneration": 1, "conditions": []},
        {"observedGeneration": 1, "conditions": [{"type": "Ready", "status": "True"}]},
        {"observedGeneration": "1", "conditions": [{"type": "Ready", "status": "True"}]},
        {"conditions": [{"type": "Ready", "status": "True"}, {"type": "Progressing", "status": "False"}]},
        {"observedGeneration": 1, "conditions": [{"type": "Audited", "status": "False", "reason": "No"}]},
    ],
)
def test_half_a_status_is_progressing(status: dict[str, Any] | None) -> None:
    """An object that the operator has not fully described is neither healthy nor an error of the script."""
    assert judge(stored_deployment() | {"status": status}).status == "Progressing"


def test_somebody_else_s_condition_does_not_count() -> None:
    """A condition of another tool, true or false, leaves the health as it is."""
    found = in_situation(Situation.STEADY)
    found["status"]["conditions"] += [
        {"type": "example.com/Audited", "status": "False", "reason": "Never", "message": "by somebody else"},
        {"type": "Stopped", "status": "True", "reason": "Never", "message": "by somebody else"},
    ]

    assert judge(found) == Health(status="Healthy", message="why")


@pytest.mark.parametrize("path", OBJECTS)
def test_the_folder_s_objects_are_the_operator_s(path: str) -> None:
    """The folder tests nothing that the operator would not write: conditions are a row of the truth table."""
    written = {
        (condition["type"], condition["status"], condition["reason"])
        for condition in read(path)["status"].get("conditions", [])
        if not condition["type"].endswith("Healthy")  # which stand beside the table
    }
    rows = [
        {
            (condition.type, condition.status.value, condition.reason)
            for condition in build_conditions(
                Verdict(situation=situation, message=""), before=STEADY, generation=1, now=NOW
            )
        }
        for situation in Situation
    ]

    assert written in [set(), *rows]


def closed(schema: dict[str, Any]) -> dict[str, Any]:
    """Return a schema that allows no member which it does not name."""
    result = dict(schema)
    if "properties" in schema:
        result["properties"] = {name: closed(member) for name, member in schema["properties"].items()}
        result["additionalProperties"] = False
    if "items" in schema:
        result["items"] = closed(schema["items"])
    return result


@pytest.mark.parametrize("path", OBJECTS)
def test_the_folder_s_objects_fit_the_crd(path: str) -> None:
    """The folder knows no field that a ModelDeployment does not have."""
    schema = closed(crdgen.build_schema(ModelDeployment))
    jsonschema_rs.validate(schema, read(path) | {"metadata": {}})
