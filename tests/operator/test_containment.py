"""A call is left out only if it would change nothing."""

import copy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from greenroom_operator.controller.containment import (
    already_applied,
    covers,
    stamped,
    status_already_applied,
)


def deployment() -> dict[str, Any]:
    """Return a manifest with every spelling that the server changes."""
    container = {
        "name": "serving",
        "image": "runtime:1",
        "env": [{"name": "A", "value": "1"}, {"name": "EMPTY", "value": ""}],
        "ports": [{"name": "http", "containerPort": 8080}],
        "resources": {"limits": {"cpu": "1000m", "memory": "1024Mi"}, "requests": {"cpu": 1}},
    }
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "churn", "namespace": "ml", "labels": {"a": "b"}, "annotations": {}},
        "spec": {"replicas": 2, "paused": False, "template": {"spec": {"containers": [container]}}},
    }


def as_stored(manifest: dict[str, Any]) -> dict[str, Any]:
    """Return it as the API server stores it: defaulted, canonical, with what others added."""
    live = copy.deepcopy(manifest)
    live["metadata"] |= {"uid": "u", "resourceVersion": "9"}
    live["spec"].pop("paused", None)
    live["spec"]["progressDeadlineSeconds"] = 600
    live["status"] = {"replicas": 2}
    container = live["spec"]["template"]["spec"]["containers"][0]
    container["env"] = [{"name": "EXTRA", "value": "x"}, {"name": "A", "value": "1"}, {"name": "EMPTY"}]
    container["ports"][0]["protocol"] = "TCP"
    container["resources"] = {"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": "1"}}
    return live


def test_what_the_server_made_of_our_manifest_needs_no_call() -> None:
    """Defaults, canonical quantities, dropped zero values and other people's additions are no difference."""
    desired = stamped(deployment())
    assert already_applied(as_stored(desired), desired)


def _set_image(live: dict[str, Any]) -> None:
    live["spec"]["template"]["spec"]["containers"][0]["image"] = "evil"


def _drop_env(live: dict[str, Any]) -> None:
    live["spec"]["template"]["spec"]["containers"][0]["env"].pop(1)


def _drop_container(live: dict[str, Any]) -> None:
    live["spec"]["template"]["spec"]["containers"] = []


def _less_memory(live: dict[str, Any]) -> None:
    live["spec"]["template"]["spec"]["containers"][0]["resources"]["limits"]["memory"] = "1023Mi"


def _pause(live: dict[str, Any]) -> None:
    live["spec"]["paused"] = True


def _scale(live: dict[str, Any]) -> None:
    live["spec"]["replicas"] = 3


def _drop_label(live: dict[str, Any]) -> None:
    del live["metadata"]["labels"]


def _drop_stamp(live: dict[str, Any]) -> None:
    del live["metadata"]["annotations"]


@pytest.mark.parametrize(
    "edit",
    [
        _set_image,
        _drop_env,
        _drop_container,
        _less_memory,
        _pause,
        _scale,
        _drop_label,
        _drop_stamp,
    ],
)
def test_an_edit_of_one_of_our_fields_is_seen(edit: Any) -> None:
    """Whatever somebody changes or takes away of what we said is put back."""
    desired = stamped(deployment())
    live = as_stored(desired)
    edit(live)
    assert not already_applied(live, desired)


def test_what_our_manifest_no_longer_has_is_seen() -> None:
    """A variable taken out of the spec leaves the pods, though all that remains is there already."""
    before = stamped(deployment())
    manifest = deployment()
    del manifest["spec"]["template"]["spec"]["containers"][0]["env"][0]
    assert covers(as_stored(before), manifest)
    assert not already_applied(as_stored(before), stamped(manifest))


def test_an_object_that_is_not_there_is_not_applied() -> None:
    """Absence is the plainest difference."""
    assert not already_applied(None, stamped(deployment()))


def test_stamping_changes_the_annotation_only_and_always_alike() -> None:
    """The same manifest has the same stamp, and its own annotations stay."""
    manifest = deployment()
    manifest["metadata"]["annotations"] = {"mine": "1"}
    once = stamped(manifest)
    assert once == stamped(copy.deepcopy(manifest))
    assert set(once["metadata"]["annotations"]) == {"mine", "greenroom.dev/applied"}
    assert manifest["metadata"]["annotations"] == {"mine": "1"}


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("1000m", "1"),
        ("1", 1),
        ("0.5", "500m"),
        ("1024Mi", "1Gi"),
        ("1e3", "1k"),
        ("1.5Gi", "1536Mi"),
        (2.0, "2"),
    ],
)
def test_a_quantity_is_a_number_however_it_is_spelled(one: Any, other: Any) -> None:
    """The API server writes quantities its own way."""
    assert covers({"limits": {"x": other}}, {"limits": {"x": one}})


@pytest.mark.parametrize(("one", "other"), [("1G", "1Gi"), ("1m", "1M"), ("1", "x"), ("", "0")])
def test_different_quantities_differ(one: str, other: str) -> None:
    """A unit's case and its i matter."""
    assert not covers({"limits": {"x": other}}, {"limits": {"x": one}})


def test_an_empty_object_is_something() -> None:
    """A volume that is to be an emptyDir is not the ConfigMap volume of that name."""
    live = {"volumes": [{"name": "a", "configMap": {"name": "c"}}]}
    assert not covers(live, {"volumes": [{"name": "a", "emptyDir": {}}]})


def test_lists_without_identities_must_be_equal() -> None:
    """An argument more, less or elsewhere is a difference."""
    assert covers({"args": ["a", "b"]}, {"args": ["a", "b"]})
    assert not covers({"args": ["a", "b", "c"]}, {"args": ["a", "b"]})
    assert not covers({"args": ["b", "a"]}, {"args": ["a", "b"]})


def test_truth_is_not_a_number() -> None:
    """1 is not true, and a text is not a list."""
    assert not covers({"a": 1}, {"a": True})
    assert not covers({"a": True}, {"a": 1})
    assert not covers({"a": "x"}, {"a": ["x"]})


json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=12,
)


@given(
    st.dictionaries(st.text(max_size=3), json, max_size=4),
    st.dictionaries(st.text(max_size=3), json, max_size=2),
)
def test_every_object_covers_itself_and_additions_beside_it_do_no_harm(
    document: dict[str, Any], more: dict[str, Any]
) -> None:
    """What others add at the top is theirs."""
    assert covers(copy.deepcopy(document), document)
    assert covers({**more, **document}, document)


def status(*conditions: dict[str, str], **more: Any) -> dict[str, Any]:
    """Return the part of an object that is about its status."""
    return {"status": {"conditions": list(conditions), **more}}


READY = {"type": "Ready", "status": "True"}
STALLED = {"type": "Stalled", "status": "True"}
FOREIGN = {"type": "Audited", "status": "True"}
OURS = frozenset({"Ready", "Stalled"})


def test_a_status_must_be_exactly_ours() -> None:
    """A member more, a member less and a condition that should have gone are differences."""
    assert status_already_applied(
        status(READY, version="v1"), status(READY, version="v1"), condition_types=OURS
    )
    for live in (
        status(READY, version="v2"),
        status(READY, version="v1", extra=1),
        status(READY),
        status(READY, STALLED, version="v1"),
        {},
    ):
        assert not status_already_applied(live, status(READY, version="v1"), condition_types=OURS)


def test_other_peoples_conditions_are_theirs() -> None:
    """An auditor's condition neither makes us write nor is it dropped."""
    assert status_already_applied(status(FOREIGN, READY), status(READY), condition_types=OURS)
