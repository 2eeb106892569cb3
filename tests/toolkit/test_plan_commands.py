"""``greenroom render``, ``flags explain``, and the change that ``promote --file`` prints."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from greenroom.errors import CommandError
from greenroom.gitchange import set_version
from greenroom.local.manifest import ManifestError, parse_manifest
from greenroom.plan import explain, planned_flags
from greenroom_runtime.contract.flags import parse_flags
from greenroom_runtime.shadow.target import compile_target
from tests.support.examples import EXAMPLES
from tests.toolkit.command import run_to_end

ROOT = Path(__file__).resolve().parents[2]
VECTORS = ROOT / "tests" / "contract" / "rollout_vectors.json"
MANIFEST = """# who leaves
apiVersion: greenroom.dev/v1alpha1
kind: ModelDeployment
metadata: {name: churn, namespace: ml}
spec:
  source: {uri: s3://models/churn}
  version: v2  # production
  rollout:
    version: v3
    rules:
      - {name: beta, attribute: cohorts, in: [beta]}
      - {name: named, attribute: user_id, in: [ann]}
    steps: [{percent: 10, hold: 1h}, {percent: 50}]
"""


def manifest(tmp_path: Path, text: str = MANIFEST) -> Path:
    """Write a ModelDeployment's YAML."""
    path = tmp_path / "churn.yaml"
    path.write_text(text)
    return path


def flags_of(text: str = MANIFEST, *, percent: float | None = None) -> Any:
    """Return the flag store that a YAML leads to."""
    return planned_flags(parse_manifest(text.encode(), path=Path("churn.yaml")), percent=percent)


def test_render_prints_what_the_operator_applies(tmp_path: Path) -> None:
    """As documents that kubectl takes, in order, without owners; the same as one list of JSON."""
    path = manifest(tmp_path)
    done = run_to_end("render", str(path), "--runtime-image", "registry/runtime:1")
    assert (done.returncode, done.stderr) == (0, "")
    children = list(yaml.safe_load_all(done.stdout))
    kinds = [child["kind"] for child in children]
    assert kinds == ["ServiceAccount", "ConfigMap", "ConfigMap", "Service", "Deployment"]
    assert {child["metadata"]["namespace"] for child in children} == {"ml"}
    assert not any("ownerReferences" in child["metadata"] for child in children)
    pod = children[-1]["spec"]["template"]["spec"]
    assert pod["containers"][0]["image"] == "registry/runtime:1"
    flags = parse_flags(children[2]["data"]["flags.json"])
    assert (flags.production, flags.rollout) == ("v2", None)
    again = run_to_end("render", str(path), "--runtime-image", "registry/runtime:1", "-o", "json")
    assert json.loads(again.stdout)["items"] == children


@pytest.mark.parametrize(
    ("placement", "deployments"),
    [
        ("Sidecar", {"churn": ["serving", "shadow"]}),
        ("Deployment", {"churn": ["serving"], "churn-shadow": ["shadow"]}),
    ],
)
def test_render_shows_the_shadow(tmp_path: Path, placement: str, deployments: dict[str, list[str]]) -> None:
    """Beside the serving container, last, or in pods of its own."""
    path = manifest(tmp_path, f"{MANIFEST}  shadow: {{version: v4, placement: {placement}}}\n")
    children = list(yaml.safe_load_all(run_to_end("render", str(path)).stdout))
    found = {
        child["metadata"]["name"]: [one["name"] for one in child["spec"]["template"]["spec"]["containers"]]
        for child in children
        if child["kind"] == "Deployment"
    }
    assert found == deployments


def test_explain_says_whether_a_request_is_mirrored(tmp_path: Path) -> None:
    """As the serving process decides, by the request's id; only what production answers is."""
    text = f"{MANIFEST}  shadow: {{version: v4, percent: 30}}\n"
    flags = flags_of(text)
    target = compile_target(flags)
    assert target is not None
    for number in range(200):
        found = explain(flags, user=None, context={}, request_id=f"r{number}").mirror
        assert found is not None
        assert found.mirrored == target.takes(f"r{number}")
    taken = next(f"r{number}" for number in range(200) if target.takes(f"r{number}"))
    mirror = explain(flags, user="ann", context={}, request_id=taken).mirror
    assert mirror is not None
    assert mirror.why() == "no: v3 answers it, and v4 is compared with production only"
    arguments = ("flags", "explain", str(manifest(tmp_path, text)), "--request-id", taken)
    assert "within the 30 % that v4 is asked, too" in run_to_end(*arguments).stdout
    told = json.loads(run_to_end(*arguments, "-o", "json").stdout)["shadow"]
    assert (told["version"], told["mirrored"]) == ("v4", True)


def test_render_takes_a_namespace_where_the_yaml_names_none(tmp_path: Path) -> None:
    """What the file says wins."""
    bare = manifest(tmp_path, MANIFEST.replace(", namespace: ml", ""))
    children = list(yaml.safe_load_all(run_to_end("render", str(bare), "-n", "prod").stdout))
    assert {child["metadata"]["namespace"] for child in children} == {"prod"}


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("percent: 10,", "percent: 100,", "a step is above 0 and below 100"),
        ("percent: 10,", "percent: 60,", "the percentages of the steps must rise"),
        ("percent: 10,", "percent: 0.123,", "at most two decimals"),
        ("    steps:", "    percent: 5\n    steps:", "give one of them"),
        ("hold: 1h", "hold: soon", "hold"),
        ("name: beta", "name: 'be ta'", "a rule's name"),
        ("attribute: cohorts", "attribute: targetingKey", "other than targetingKey"),
        ("    version: v3", "    version: previous", "is no version's name"),
        (
            "    version: v3",
            '    version: v3\n    gate: {maxErrorRatio: "0.5"}',
            "a ratio is a number above 1",
        ),
    ],
)
def test_a_rollout_that_a_cluster_would_refuse_is_refused_here(old: str, new: str, message: str) -> None:
    """By the same rules as the CRD's, before anything is done."""
    with pytest.raises(ManifestError, match=f"spec.rollout: .*{message}"):
        flags_of(MANIFEST.replace(old, new, 1))


def test_explain_agrees_with_the_contract_s_vectors(tmp_path: Path) -> None:
    """For each user of the vectors: version, place, and a reason in words."""
    document = json.loads(VECTORS.read_text())
    flags = parse_flags(json.dumps(document["document"]))
    for vector in document["vectors"]:
        found = explain(flags, user=vector["key"], context={})
        assert (found.decision.version, found.place) == (vector["version"], vector["bucket"] / 100)
        assert f"the user is at {vector['bucket'] / 100:.2f} %" in found.why()
    path = tmp_path / "flags.json"
    path.write_text(json.dumps(document["document"]))
    told = run_to_end("flags", "explain", str(path), "--user", "user-1", "-o", "json")
    assert json.loads(told.stdout)["why"] == "the user is at 44.39 %, within the 50.05 % that get v3"


@pytest.mark.parametrize(
    ("user", "context", "version", "reason", "why"),
    [
        ("u1", {}, "v2", "default", "beyond the 10 % that get v3"),
        ("u1", {"cohorts": ["a", "beta"]}, "v3", "rule:beta", "rule 'beta' matches: cohorts is one of beta"),
        ("ann", {}, "v3", "rule:named", "rule 'named' matches: user_id is one of ann"),
        (None, {}, "v2", "default", "the request has no user_id, and the rollout of v3 goes by it"),
        (None, {"user_id": "ann"}, "v3", "rule:named", "rule 'named' matches"),
    ],
)
def test_explain_says_why(
    user: str | None, context: dict[str, Any], version: str, reason: str, why: str
) -> None:
    """By rule, by percentage, or because nobody is known."""
    found = explain(flags_of(), user=user, context=context)
    assert (found.decision.version, found.decision.reason) == (version, reason)
    assert why in found.why()


def test_explain_asks_about_any_share() -> None:
    """Whoever has the version at a share has it at each higher one."""
    users = [f"u{number}" for number in range(300)]
    got = [
        {
            user
            for user in users
            if explain(flags_of(percent=share), user=user, context={}).decision.version == "v3"
        }
        for share in (0, 10, 50, 100)
    ]
    assert got[0] == set()
    assert got[0] < got[1] < got[2] < got[3] == set(users)


def test_explain_prints_a_table(tmp_path: Path) -> None:
    """With each rule that was looked at."""
    done = run_to_end("flags", "explain", str(manifest(tmp_path)), "--user", "u1", "-a", "cohorts=staff")
    assert done.returncode == 0
    lines = {line.split("  ")[0]: line for line in done.stdout.splitlines()}
    assert "no: cohorts is 'staff'" in lines["rule beta"]
    assert lines["version"].split() == ["version", "v2"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("render", "{nowhere}.yaml"), "No such file or directory"),
        (("flags", "explain", "{nowhere}.json"), "cannot be read"),
        (("flags", "explain", "{garbage}.json"), "is no flag store"),
        (("flags", "explain", "{plain}", "--percent", "5"), "--percent needs spec.rollout"),
        (("flags", "explain", "{plain}", "-a", "country"), "write NAME=VALUE"),
        (("flags", "explain", "{plain}", "--request-id", "r1"), "--request-id needs a shadow"),
        (
            ("promote", "penguins", "v2", "--file", "{garbage}.json"),
            "holds 0 ModelDeployments named penguins",
        ),
        (("promote", "penguins", "production", "--file", "{plain}"), "is an alias: name the version itself"),
        (("promote", "penguins", "../v2", "--file", "{plain}"), "'../v2' is no version"),
    ],
)
def test_what_cannot_be_planned_is_one_clear_line(
    arguments: tuple[str, ...], message: str, tmp_path: Path
) -> None:
    """The exit code is 1."""
    (tmp_path / "garbage.json").write_text("[]")
    places = {
        "nowhere": tmp_path / "nowhere",
        "garbage": tmp_path / "garbage",
        "plain": EXAMPLES / "penguins" / "modeldeployment.yaml",
    }
    done = run_to_end(*(argument.format(**places) for argument in arguments))
    assert (done.returncode, done.stdout) == (1, "")
    assert message in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_git_applies_the_change(tmp_path: Path) -> None:
    """Without a cluster: the diff is one that git takes, and comments stay."""
    subprocess.run(["git", "init", "-q", str(tmp_path)], check=True)
    (tmp_path / "models").mkdir()
    path = manifest(tmp_path / "models")
    command = [sys.executable, "-m", "greenroom", "promote", "churn", "v3", "--file", "models/churn.yaml"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    subprocess.run(["git", "apply"], cwd=tmp_path, input=done.stdout, text=True, check=True)
    assert path.read_text() == MANIFEST.replace("version: v2  # production", "version: v3  # production")


@pytest.mark.parametrize(
    ("text", "changed"),
    [
        (
            "kind: ModelDeployment\nmetadata: {name: churn}\nspec: {version: 'v2', a: 1}",
            "{version: v3, a: 1}",
        ),
        ("a: 1\n---\nkind: ModelDeployment\nmetadata: {name: churn}\nspec:\n  version: v2", "version: v3"),
        ("kind: ModelDeployment\nmetadata: {name: churn}\nspec:\n  version: >-\n    v2\n", "version: v3"),
    ],
    ids=["flow", "second document, no newline", "folded"],
)
def test_a_version_is_changed_however_it_is_written(text: str, changed: str, tmp_path: Path) -> None:
    """In flow style, in a later document, at the end of a file; the YAML says the new version then."""
    path = manifest(tmp_path, text)
    after = set_version(path, "v3", name="churn").after
    assert changed in after
    (found,) = [one for one in yaml.safe_load_all(after) if one and one.get("kind") == "ModelDeployment"]
    assert found["spec"]["version"] == "v3"


def test_a_version_that_looks_like_a_number_is_quoted(tmp_path: Path) -> None:
    """YAML would read 2026.10 as a number."""
    change = set_version(manifest(tmp_path), "2026.10", name="churn")
    assert yaml.safe_load(change.after)["spec"]["version"] == "2026.10"
    assert "version: '2026.10'  # production" in change.after


@pytest.mark.parametrize(
    "text", ["a: [", "[" * 5000, "kind: ModelDeployment\nmetadata: {name: churn}\nspec: []\n"]
)
def test_a_file_without_a_version_is_refused(text: str, tmp_path: Path) -> None:
    """It is named, with what it lacks."""
    with pytest.raises(CommandError, match=r"churn\.yaml"):
        set_version(manifest(tmp_path, text), "v3", name="churn")
