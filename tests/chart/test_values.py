"""Values that make no sense are refused, with words that say what to do."""

import pytest

from tests.chart.rendering import only, refusal, render


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("replica=2", "additional properties 'replica' not allowed"),
        ("crds.installed=true", "additional properties 'installed' not allowed"),
        ("replicas=two", "got string, want integer"),
        ("replicas=-1", "minimum"),
        ("logFormat=xml", "value must be one of 'json', 'text'"),
        ("image.repository=", "does not match pattern"),
        ("image.repository=operator:latest", "does not match pattern"),
        ("image.pullPolicy=Sometimes", "value must be one of"),
        ("watchNamespaces={Team_A}", "does not match pattern"),
        ("watchNamespaces={a,a}", "items at 0 and 1 are equal"),
        ("clusterWide=yes", "got string, want boolean"),
        ("networkPolicy.apiServerCIDRs={localhost}", "does not match pattern"),
        ("networkPolicy.apiServerPorts={70000}", "maximum"),
        ("argocd.customizations=yes", "got string, want boolean"),
        ("argocd.namespace=Argo CD", "does not match pattern"),
        ("podLabels.tier=3", "got number, want string"),
        ("clusterWide=true,watchNamespaces={a}", "leave watchNamespaces empty, or set clusterWide: false"),
        ("serviceAccount.create=false", "name the existing account"),
    ],
)
def test_nonsense_is_refused(value: str, words: str) -> None:
    """The refusal names the value and what is wrong with it."""
    said = refusal("--set", value)

    assert words in said
    assert "Error:" in said


def test_values_of_a_parent_chart_are_let_in() -> None:
    """A chart that depends on this one may set `global`, as Helm always does."""
    assert only(render("--set", "global.region=north"), "Deployment")


def test_long_names_stay_names() -> None:
    """A long release name is cut, so that names with their suffixes stay within 63 characters."""
    for manifest in render(release="a" * 53):
        if manifest["kind"] != "CustomResourceDefinition":
            assert len(manifest["metadata"]["name"].removeprefix("ml-")) <= 63


def test_a_release_called_greenroom_does_not_stutter() -> None:
    """The release `greenroom` gives objects called `greenroom`."""
    assert only(render(release="greenroom"), "Deployment")["metadata"]["name"] == "greenroom"
