"""The operator's rights are those that its code uses: none is missing, none is spare."""

import pytest

from greenroom_operator import kinds
from tests.chart.rendering import Manifest, only, render

Rights = set[tuple[str, str, str]]
"""API group, resource, verb."""

SEEN = {"get", "list", "watch"}
"""kopf and the relist list and watch; after a conflict one object is read anew."""
OWNED = {*SEEN, "create", "patch", "delete"}
"""Children besides: server-side apply asks for create and patch, pruning for delete."""

USED: dict[tuple[str, str], set[str]] = {
    (kinds.MODEL_DEPLOYMENT.group, "modeldeployments"): SEEN,
    (kinds.MODEL_DEPLOYMENT.group, "modeldeployments/status"): {"patch"},
    # Where OwnerReferencesPermissionEnforcement runs, blockOwnerDeletion asks for this; none is ever set.
    (kinds.MODEL_DEPLOYMENT.group, "modeldeployments/finalizers"): {"update"},
    **{(kind.group, kind.plural): OWNED for kind in kinds.CHILDREN},
    # The annotation that makes kubelet refresh the flag store at once.
    (kinds.POD.group, "pods"): {*SEEN, "patch"},
    # An event that happens again is read and counted up.
    (kinds.EVENT.group, "events"): {"create", "get", "patch"},
}
LEASE = {
    (kinds.LEASE.group, "leases", "create", None),
    (kinds.LEASE.group, "leases", "get", "gr-greenroom"),
    (kinds.LEASE.group, "leases", "update", "gr-greenroom"),
}


def rights(role: Manifest) -> Rights:
    """Return what a role grants."""
    return {
        (group, resource, verb)
        for rule in role["rules"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    }


def used() -> Rights:
    """Return what the operator's code asks for."""
    return {(group, resource, verb) for (group, resource), verbs in USED.items() for verb in verbs}


def test_every_kind_that_the_operator_knows_is_in_the_table() -> None:
    """A kind added to the operator's table fails here until its rights are thought of."""
    known = {(kind.group, kind.plural) for kind in kinds.KINDS.values()} - {(kinds.LEASE.group, "leases")}

    assert known == {key for key in USED if "/" not in key[1]}


def test_own_namespace_is_the_default() -> None:
    """Without a word the operator has its rights in the release's namespace, and none in the cluster."""
    manifests = render("--set", "crds.userRoles=false")

    assert rights(only(manifests, "Role", "gr-greenroom")) == used()
    assert not {"ClusterRole", "ClusterRoleBinding"} & {manifest["kind"] for manifest in manifests}


def test_named_namespaces_get_a_role_each() -> None:
    """Each watched namespace has a Role and a RoleBinding to the operator's account; the others have none."""
    manifests = render("--set", "watchNamespaces={churn,fraud}")
    roles = [m for m in manifests if m["kind"] == "Role" and m["metadata"]["name"] == "gr-greenroom"]
    bindings = [
        m for m in manifests if m["kind"] == "RoleBinding" and m["metadata"]["name"] == "gr-greenroom"
    ]

    assert [role["metadata"]["namespace"] for role in roles] == ["churn", "fraud"]
    assert all(rights(role) == used() for role in roles)
    assert [binding["metadata"]["namespace"] for binding in bindings] == ["churn", "fraud"]
    account = {"kind": "ServiceAccount", "name": "gr-greenroom", "namespace": "ml"}
    assert all(binding["subjects"] == [account] for binding in bindings)


def test_cluster_wide_is_a_choice_with_the_same_rights() -> None:
    """``clusterWide`` grants the very same verbs, everywhere, by one ClusterRole."""
    manifests = render("--set", "clusterWide=true")

    assert rights(only(manifests, "ClusterRole", "ml-gr-greenroom")) == used()
    assert only(manifests, "ClusterRoleBinding")["roleRef"]["name"] == "ml-gr-greenroom"
    assert [m["metadata"]["name"] for m in manifests if m["kind"] == "Role"] == ["gr-greenroom-lease"]


def test_the_lease_is_the_only_lease() -> None:
    """Of the Leases beside it the operator may touch only its own."""
    role = only(render(), "Role", "gr-greenroom-lease")
    granted = {
        (group, resource, verb, name)
        for rule in role["rules"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
        for name in rule.get("resourceNames", [None])
    }

    assert granted == LEASE
    assert role["metadata"]["namespace"] == "ml"


@pytest.mark.parametrize("values", ["clusterWide=true", "clusterWide=false"])
def test_nothing_is_granted_wholesale(values: str) -> None:
    """No wildcard, no Secret, no exec, no right over rights, in any role of the chart."""
    for role in (m for m in render("--set", values) if m["kind"] in ("Role", "ClusterRole")):
        for group, resource, verb in rights(role):
            assert "*" not in (group, resource, verb)
            assert resource not in ("secrets", "pods/exec", "pods/attach", "serviceaccounts/token")
            assert verb not in ("escalate", "bind", "impersonate")
            assert group != "rbac.authorization.k8s.io"


def test_the_operator_never_writes_a_spec() -> None:
    """On ModelDeployments it may write the status and nothing else: Git is the truth."""
    written = {
        resource
        for group, resource, verb in used()
        if group == "greenroom.dev" and verb in ("create", "patch", "delete")
    }

    assert written == {"modeldeployments/status"}


def test_people_get_their_rights_by_aggregation() -> None:
    """Who may view or edit a namespace may view or edit its ModelDeployments; nobody writes status."""
    manifests = render()
    view = only(manifests, "ClusterRole", "ml-gr-greenroom-view")
    edit = only(manifests, "ClusterRole", "ml-gr-greenroom-edit")

    assert view["metadata"]["labels"]["rbac.authorization.k8s.io/aggregate-to-view"] == "true"
    assert edit["metadata"]["labels"]["rbac.authorization.k8s.io/aggregate-to-edit"] == "true"
    assert {verb for _, _, verb in rights(view)} == {"get", "list", "watch"}
    assert not {resource for _, resource, _ in rights(edit)} & {"modeldeployments/status"}
