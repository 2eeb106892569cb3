"""What a person may ask of a ModelDeployment in Argo CD."""

import re
from typing import Any

import pytest
import yaml
from lupa.lua51 import LuaError

from greenroom_operator.api.modeldeployment import ModelDeployment
from greenroom_operator.api.rollout import RolloutState
from greenroom_operator.controller.actions import Verb, find_action, find_objection
from greenroom_runtime.contract import names
from tests.support.argocd import ACTIONS, ROOT, act, discover
from tests.support.builders import stored_deployment
from tests.support.manifests import patched

TESTS = yaml.safe_load((ACTIONS / "action_test.yaml").read_text(encoding="utf-8"))
NAMES = sorted(path.parent.name for path in ACTIONS.glob("*/action.lua"))


def read(path: str) -> dict[str, Any]:
    """Return an object of the folder's own tests."""
    document: dict[str, Any] = yaml.safe_load((ACTIONS / path).read_text(encoding="utf-8"))
    return document


def name(case: dict[str, Any]) -> str:
    """Return what a case of the folder's own tests is called."""
    return f"{case.get('action', 'discovery')} {case['inputPath']}"


def ask(action: str, found: dict[str, Any]) -> str:
    """Return the value that an action gives to its annotation; it changes nothing else."""
    changed = act(action, found)
    annotations = changed["metadata"].pop("annotations")
    value: str = annotations.pop(names.ANNOTATION_ACTION)
    before = {key: text for key, text in found["metadata"].items() if key != "annotations"}
    assert annotations == found["metadata"].get("annotations", {})
    assert changed == {**found, "metadata": before}
    return value


@pytest.mark.parametrize("case", TESTS["discoveryTests"], ids=name)
def test_argo_cd_s_own_tests_of_discovery(case: dict[str, Any]) -> None:
    """Each object of the folder gets the actions that action_test.yaml says, all of them."""
    expected = {action["name"]: action["disabled"] for action in case["result"]}

    assert discover(read(case["inputPath"])) == expected


@pytest.mark.parametrize("case", TESTS["actionTests"], ids=name)
def test_argo_cd_s_own_tests_of_actions(case: dict[str, Any]) -> None:
    """Each action makes of an object what action_test.yaml says, or refuses in these words."""
    found = read(case["inputPath"])
    if "expectedErrorMessage" in case:
        with pytest.raises(LuaError, match=f"^{re.escape(case['expectedErrorMessage'])}$"):
            act(case["action"], found)
    else:
        assert act(case["action"], found) == read(case["expectedOutputPath"])


def test_every_action_is_offered_explained_and_tested() -> None:
    """The actions are those of discovery, of docs/gitops.md and of the folder's own tests."""
    page = (ROOT / "docs" / "gitops.md").read_text(encoding="utf-8")
    rows = page.partition("### Actions")[2].partition("### ")[0].splitlines()
    explained = [
        action
        for row in rows
        if row.startswith("| `")
        for action in re.findall(r"`([\w-]+)`", row.split("|")[1])
    ]

    assert sorted(discover(stored_deployment())) == NAMES
    assert sorted(explained) == NAMES
    assert sorted({case["action"] for case in TESTS["actionTests"]}) == NAMES


def test_an_enabled_action_never_fails() -> None:
    """What discovery offers, the action does, to the annotation and to nothing else."""
    offered = 0
    for case in TESTS["discoveryTests"]:
        found = read(case["inputPath"])
        for action, disabled in discover(found).items():
            if not disabled:
                offered += 1
                words = ask(action, found).split("/")
                assert (words[0], len(words), all(words)) == (action, 3, True)
    assert offered


@pytest.mark.parametrize("version", ["v2", "v3"])
@pytest.mark.parametrize("paused_by_action", [True, False])
@pytest.mark.parametrize("paused", [True, False])
@pytest.mark.parametrize("share", [{"percent": 10}, {"steps": [{"percent": 10}]}], ids=str)
@pytest.mark.parametrize("state", list(RolloutState))
def test_what_is_offered_has_an_effect(
    state: RolloutState, share: dict[str, Any], version: str, *, paused: bool, paused_by_action: bool
) -> None:
    """The operator objects to no action that is offered, and to a step or an abort that is not."""
    found = stored_deployment(version=version, rollout={"version": "v3", "paused": paused} | share)
    found["status"] = {"rollout": {"version": "v3", "state": state.value, "step": 1}}
    if paused_by_action:
        found["status"]["rollout"]["pausedByAction"] = True
    offered = {action for action, disabled in discover(found).items() if not disabled}
    accepted = set()
    for action in offered | {"promote-step", "abort"}:
        asked = patched(found, {"metadata": {"annotations": {names.ANNOTATION_ACTION: f"{action}/v3/now"}}})
        deployment = ModelDeployment.model_validate(asked)
        parsed = find_action(deployment)
        assert parsed is not None
        if not find_objection(parsed, deployment):
            accepted.add(action)

    assert accepted == offered


def test_the_actions_are_the_operator_s() -> None:
    """Argo CD offers each of the operator's verbs, and no other."""
    assert sorted(Verb) == NAMES


@pytest.mark.parametrize("action", ["abort", "pause", "resume", "retry"])
def test_the_same_action_later_is_another_one(action: str) -> None:
    """Once the object has changed, asking again is new to the operator."""
    found = read("../testdata/suspended_rollout_paused.yaml")
    later = {**found, "metadata": found["metadata"] | {"resourceVersion": "48999"}}

    assert ask(action, later) != ask(action, found)


def test_two_clicks_promote_one_step() -> None:
    """At the same step it is the same action, which the operator does once; at the next one it is another."""
    found = read("../testdata/progressing_rollout_holding.yaml")
    first = ask("promote-step", found)
    found["metadata"]["resourceVersion"] = "48999"
    again = ask("promote-step", found)
    found["status"]["rollout"]["step"] += 1

    assert first == again
    assert ask("promote-step", found) != first


def test_other_annotations_and_empty_objects_survive() -> None:
    """Lua knows no difference between an empty list and an empty object; what is written does."""
    found = stored_deployment(annotations={"example.com/team": "growth"}, podLabels={}, env=[])
    found["status"] = {"promotion": {"version": "v1", "state": "Refused"}, "versions": [], "history": [{}]}

    assert ask("retry", found) == "retry/v1/1"


@pytest.mark.parametrize("status", [None, {}, {"conditions": []}, {"rollout": {}}, {"promotion": {}}])
def test_nothing_is_offered_without_a_cause(status: dict[str, Any] | None) -> None:
    """An object of which little is known has no action to offer, and breaks no script."""
    assert all(discover(stored_deployment(rollout={"version": "v3"}) | {"status": status}).values())
