"""The store believes the newest, whoever tells it and in whatever order."""

import itertools
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from greenroom_operator.controller.store import Store
from greenroom_operator.kinds import Key

CHURN = Key("ml", "churn")
FRAUD = Key("ml", "fraud")


def body(
    kind: str, name: str, version: int, *, owner: str = "churn", namespace: str = "ml", **more: Any
) -> dict[str, Any]:
    """Return an object as the API server gives it."""
    labels = {} if kind == "ModelDeployment" or not owner else {"greenroom.dev/deployment": owner}
    metadata = {"namespace": namespace, "name": name, "labels": labels, "uid": f"u-{name}"}
    return {"kind": kind, "metadata": {**metadata, "resourceVersion": str(version)}, **more}


def version(stored: dict[str, Any] | None) -> str | None:
    """Return the resource version of what was found, None when nothing was."""
    return None if stored is None else stored["metadata"]["resourceVersion"]


def test_it_sorts_what_it_observes_by_the_deployment_it_belongs_to() -> None:
    """The ModelDeployment, its children and its pods are found by key, and only its own."""
    store = Store()
    for item in (
        body("ModelDeployment", "churn", 1),
        body("Deployment", "churn", 2),
        body("ConfigMap", "churn-flags", 3),
        body("Pod", "churn-x", 4),
        body("Service", "fraud", 5, owner="fraud"),
        body("Service", "churn", 6, namespace="other"),
    ):
        store.put(item["kind"], item)
    assert version(store.deployment(CHURN)) == "1"
    assert {child["kind"] for child in store.children(CHURN)} == {"Deployment", "ConfigMap"}
    assert [pod["metadata"]["name"] for pod in store.pods(CHURN)] == ["churn-x"]
    assert store.keys() == {CHURN}
    assert store.children(Key("ml", "unknown")) == []


def test_versions_are_numbers_not_texts() -> None:
    """999 is older than 1000."""
    store = Store()
    store.put("Service", body("Service", "churn", 1000))
    assert store.put("Service", body("Service", "churn", 999)) == set()
    assert version(store.object("Service", "ml", "churn")) == "1000"


def test_the_same_version_again_is_no_news() -> None:
    """The watch's echo of our own write makes no second pass."""
    store = Store()
    assert store.put("Service", body("Service", "churn", 7)) == {CHURN}
    assert store.put("Service", body("Service", "churn", 7)) == set()


def test_managed_fields_and_kubectls_copy_are_not_kept_and_the_original_is_untouched() -> None:
    """What can dominate memory is dropped, from our copy only."""
    item = body("Service", "churn", 1)
    item["metadata"]["managedFields"] = [{}]
    item["metadata"]["annotations"] = {"kubectl.kubernetes.io/last-applied-configuration": "{}", "mine": "1"}
    store = Store()
    store.put("Service", item)
    stored = store.object("Service", "ml", "churn")
    assert stored is not None
    assert "managedFields" not in stored["metadata"]
    assert stored["metadata"]["annotations"] == {"mine": "1"}
    assert "managedFields" in item["metadata"]


def test_the_answer_to_a_write_that_arrives_after_the_deletion_is_no_resurrection() -> None:
    """A deletion is remembered until no answer older than it can be on its way."""
    store = Store()
    store.put("Service", body("Service", "churn", 5))
    assert store.remove("Service", body("Service", "churn", 9)) == {CHURN}
    assert store.put("Service", body("Service", "churn", 8)) == set()
    assert store.children(CHURN) == []
    assert store.put("Service", body("Service", "churn", 10)) == {CHURN}


def test_a_late_deletion_does_not_remove_the_object_that_was_made_anew() -> None:
    """Delete and create in quick succession, told in the wrong order, leave the new one."""
    store = Store()
    store.put("Service", body("Service", "churn", 12))
    assert store.remove("Service", body("Service", "churn", 9)) == set()
    assert version(store.object("Service", "ml", "churn")) == "12"


def test_a_list_drops_ghosts_but_nothing_that_is_newer_than_itself() -> None:
    """What was deleted while a watch was cut goes; what was written while the list was made stays."""
    store = Store()
    store.put("Service", body("Service", "churn", 5))
    store.put("Service", body("Service", "fraud", 30, owner="fraud"))
    assert store.relist("Service", [], "20") == {CHURN}
    assert store.children(CHURN) == []
    assert len(store.children(FRAUD)) == 1
    assert store.put("Service", body("Service", "churn", 19)) == set()


def test_a_list_of_one_namespace_says_nothing_of_others() -> None:
    """With roles per namespace each list is partial."""
    store = Store()
    store.put("Service", body("Service", "churn", 5, namespace="other"))
    assert store.relist("Service", [], "20", namespace="ml") == set()
    assert len(store.children(Key("other", "churn"))) == 1


def test_a_list_tells_of_what_is_new_in_it() -> None:
    """An event that was missed is made up for."""
    store = Store()
    store.put("Service", body("Service", "churn", 5))
    items = [body("Service", "churn", 5), body("Service", "fraud", 6, owner="fraud")]
    assert store.relist("Service", items, "20") == {FRAUD}


def test_a_read_that_finds_nothing_removes_what_was_known() -> None:
    """404 is an observation too."""
    store = Store()
    store.put("ModelDeployment", body("ModelDeployment", "churn", 5))
    assert store.absent("ModelDeployment", "ml", "churn") == {CHURN}
    assert store.keys() == set()
    assert store.absent("ModelDeployment", "ml", "churn") == set()


def test_a_relabelled_object_concerns_its_old_and_its_new_owner() -> None:
    """The one must make it anew, the other must see the stranger."""
    store = Store()
    store.put("Service", body("Service", "churn", 5))
    assert store.put("Service", body("Service", "churn", 6, owner="fraud")) == {CHURN, FRAUD}
    assert store.children(CHURN) == []
    assert store.put("Service", body("Service", "churn", 7, owner="")) == {FRAUD}
    assert store.object("Service", "ml", "churn") is None


@pytest.mark.parametrize("order", list(itertools.permutations(range(4))))
def test_the_order_of_news_does_not_matter(order: tuple[int, ...]) -> None:
    """Made, changed, deleted, made anew: however it is told, the last one is what there is."""
    store = Store()
    news = [
        (store.put, body("Service", "churn", 1)),
        (store.put, body("Service", "churn", 2)),
        (store.remove, body("Service", "churn", 3)),
        (store.put, body("Service", "churn", 4)),
    ]
    for index in order:
        observe, item = news[index]
        observe("Service", item)
    assert version(store.object("Service", "ml", "churn")) == "4"


@given(st.lists(st.tuples(st.sampled_from(["put", "remove", "relist"]), st.integers(1, 50)), max_size=30))
def test_no_owner_is_left_behind(steps: list[tuple[str, int]]) -> None:
    """The index by owner and the objects themselves never disagree."""
    store = Store()
    for step, at in steps:
        item = body("Service", "churn", at, owner=["churn", "fraud", ""][at % 3])
        match step:
            case "put":
                store.put("Service", item)
            case "remove":
                store.remove("Service", item)
            case _:
                store.relist("Service", [item] if at % 2 else [], str(at))
    stored = store.object("Service", "ml", "churn")
    assert [*store.children(CHURN), *store.children(FRAUD)] == ([stored] if stored else [])
