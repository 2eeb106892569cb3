"""What docs/gitops.md promises, held by Argo CD itself on real pods."""

from typing import Any

from e2e.conftest import TrainedModels
from e2e.gitops.application import Application
from e2e.penguins import NAME, ask, reached
from e2e.terminal import Terminal
from e2e.traffic import Traffic
from tests.support.manifests import patched

FILE = "modeldeployment.yaml"
REFRESHES = 5
USERS = [f"user-{number}" for number in range(200)]
STEPS = [{"percent": 10, "hold": "24h"}, {"percent": 50, "hold": "24h"}]
"""Nothing but a person takes these while a test runs."""


def commit_version(application: Application, version: str) -> str:
    """Commit another spec.version, let Argo CD notice it, and return the commit."""
    return commit_spec(application, f"Promote {version}", version=version)


def commit_spec(application: Application, message: str, **spec: Any) -> str:
    """Commit a change of the ModelDeployment's spec, let Argo CD notice it, and return the commit."""
    manifest = application.repository.read(FILE)
    commit = application.repository.commit(message, {FILE: patched(manifest, {"spec": spec})})
    application.refresh()
    return commit


def scale(application: Application, replicas: int) -> None:
    """Scale by kubectl, and wait until the operator says so."""
    application.penguins("scale", "md", NAME, f"--replicas={replicas}")
    summary = f"{replicas}/{replicas}"
    application.penguins.until(lambda found: found["status"].get("replicaSummary") == summary)


def enabled(application: Application) -> set[str]:
    """Return the actions that Argo CD offers."""
    return {name for name, disabled in application.offered().items() if not disabled}


def test_what_git_says_serves(application: Application, terminal: Terminal, models: TrainedModels) -> None:
    """From nothing: synced, Progressing while pods start, then Healthy, with what the operator says of it."""
    application.create()
    application.until(application.repository.head, "Healthy")

    assert application.shown() == ("Healthy", "v1 serves on 2 pods")
    assert application.transitions()[-1] == "Progressing -> Healthy"
    with reached(terminal, application.name) as url:
        assert ask(url, models.rows[0]).headers["X-Model-Version"] == "v1"


def test_nothing_is_left_to_do(application: Application) -> None:
    """Synced once, it stays so: refreshed again and again, no sync runs and nothing is written or pruned."""
    application.create()
    application.until(application.repository.head, "Healthy")
    before, syncs, lives = application.penguins.found, application.syncs(), application.penguins.lives()
    transitions = application.transitions()
    for _ in range(REFRESHES):
        found = application.refresh(hard=True)
        assert found["status"]["sync"]["status"] == "Synced"
        assert {resource["status"] for resource in found["status"]["resources"]} == {"Synced"}
        assert not [resource for resource in found["status"]["resources"] if resource.get("requiresPruning")]

    assert application.syncs() == syncs == [application.repository.head]
    assert application.transitions() == transitions
    assert application.penguins.found == before
    assert application.penguins.lives() == lives
    kinds = {node["kind"] for node in application.nodes()}
    assert {"ModelDeployment", "Deployment", "Service", "ConfigMap", "Pod"} <= kinds


def test_the_same_from_git_for_ever(application: Application) -> None:
    """A sync by hand of what is there already, forced or not, changes neither the object nor a pod."""
    application.create()
    application.until(application.repository.head, "Healthy")
    before, lives = application.penguins.found, application.penguins.lives()
    for options in ((), ("--force",), ("--server-side",)):
        application.sync(*options)

    assert application.penguins.found["spec"] == before["spec"]
    assert application.penguins.found["metadata"]["generation"] == before["metadata"]["generation"]
    assert application.penguins.found["status"] == before["status"]
    assert application.penguins.lives() == lives


def test_a_promotion_is_a_commit(application: Application, terminal: Terminal, models: TrainedModels) -> None:
    """A commit names v2: Progressing, then Healthy with v2, no failed request, no pod touched."""
    application.create()
    application.until(application.repository.head, "Healthy")
    lives, seen = application.penguins.lives(), len(application.transitions())
    with reached(terminal, application.name) as url, Traffic(url, models.rows) as traffic:
        commit = commit_version(application, "v2")
        application.penguins.until_promoted("v2")
        traffic.wait_for_every_client("v2")
    application.until(commit, "Healthy")

    assert traffic.failed == []
    assert application.shown() == ("Healthy", "v2 serves on 2 pods")
    assert application.transitions()[seen:] == ["Healthy -> Progressing", "Progressing -> Healthy"]
    assert application.penguins.lives() == lives


def test_a_refusal_is_degraded_until_it_is_reverted(
    application: Application, terminal: Terminal, models: TrainedModels
) -> None:
    """A commit names a version with skew: Degraded with pod, reason and remedy, and users keep v1.

    Nothing tries it again by itself, however often it is synced; a person does by the action `retry`. The
    revert makes it Healthy again.
    """
    application.create()
    application.until(application.repository.head, "Healthy")
    with reached(terminal, application.name) as url, Traffic(url, models.rows) as traffic:
        commit = commit_version(application, "v3-broken")
        application.until(commit, "Degraded")
        status, message = application.shown()
        assert status == "Degraded"
        assert message.startswith("v3-broken was refused on pod penguins-")
        assert "GoldenMismatch: golden sample" in message
        assert message.endswith("v1 goes on serving")

        history = application.penguins.found["status"]["history"]
        application.sync()
        application.refresh(hard=True)
        assert application.penguins.found["status"]["history"] == history

        assert enabled(application) == {"retry"}
        application.act("retry")
        retried = application.penguins.until(
            lambda found: (
                found["status"].get("lastHandledAction", "").startswith("retry/v3-broken/")
                and found["status"]["promotion"]["state"] == "Refused"
            )
        )
        assert len(retried["status"]["history"]) > len(history)
        application.until(commit, "Degraded")

        commit = application.repository.revert()
        application.until(commit, "Healthy")
    assert traffic.failed == []
    assert {answer.version for answer in traffic.answers} == {"v1"}
    assert application.shown() == ("Healthy", "v1 serves on 2 pods")
    assert enabled(application) == set()


def test_a_rollout_obeys_git_and_the_person_on_call(
    application: Application, terminal: Terminal, models: TrainedModels
) -> None:
    """A rollout from Git is paused, resumed, promoted, aborted and retried in Argo CD, and stays Synced.

    What is offered fits each state, one action is done once, and what it does is not undone by any sync. No
    request fails.
    """
    application.create()
    application.until(application.repository.head, "Healthy")
    with reached(terminal, application.name) as url, Traffic(url, models.rows, users=USERS) as traffic:
        commit = commit_spec(application, "Roll v2 out", rollout={"version": "v2", "steps": STEPS})
        application.penguins.until_rollout("Holding", percent="10")
        application.until(commit, "Progressing")
        assert application.shown()[1] == "v2 serves 10 % of users (step 1 of 2), v1 everybody else"
        assert enabled(application) == {"promote-step", "abort", "pause"}

        application.act("pause")
        application.until(commit, "Suspended")
        assert application.shown()[1].endswith("paused by an action, until the action resume")
        assert enabled(application) == {"promote-step", "abort", "resume"}
        application.sync()
        application.until(commit, "Suspended")
        application.act("resume")
        application.until(commit, "Progressing")

        application.act("promote-step")
        application.penguins.until_rollout("Holding", percent="50")
        application.act("abort")
        application.penguins.until_rollout("Aborted")
        traffic.wait_for_every_client("v1")
        application.until(commit, "Healthy")
        message = "the rollout of v2 was aborted by an action; v1 serves everybody"
        assert application.shown() == ("Healthy", message)
        assert enabled(application) == {"retry"}
        application.sync()
        application.until(commit, "Healthy")
        assert application.penguins.found["status"]["rollout"]["state"] == "Aborted"

        application.act("retry")
        application.penguins.until_rollout("Holding", percent="10")
        application.until(commit, "Progressing")
    assert traffic.failed == []


def test_a_rollout_ends_in_git(application: Application, terminal: Terminal, models: TrainedModels) -> None:
    """All users have v2 and it is Healthy, with what to commit; that commit makes v2 production.

    A fixed share on the way is Healthy, too. The revert of the last commit, in an emergency, gives everybody
    v1 although the rollout is still in the file.
    """
    application.create()
    application.until(application.repository.head, "Healthy")
    with reached(terminal, application.name) as url, Traffic(url, models.rows, users=USERS) as traffic:
        commit = commit_spec(application, "v2 for some", rollout={"version": "v2", "percent": 10})
        application.penguins.until_rollout("Running", percent="10")
        application.until(commit, "Healthy")
        assert application.shown() == ("Healthy", "v2 serves 10 % of users, v1 everybody else")

        commit = commit_spec(application, "v2 for all", rollout={"version": "v2", "percent": 100})
        application.penguins.until_rollout("Complete")
        application.until(commit, "Healthy")
        message = "v2 serves all users; to make it production set spec.version: v2"
        assert application.shown() == ("Healthy", message)
        commit = commit_version(application, "v2")
        application.penguins.until_promoted("v2")
        application.until(commit, "Healthy")
        assert application.shown() == ("Healthy", "v2 serves on 2 pods")
        traffic.wait_for_every_client("v2")

        commit = application.repository.revert()
        application.refresh()
        application.penguins.until_promoted("v1")
        application.until(commit, "Healthy")
        traffic.wait_for_every_client("v1")
        assert application.penguins.found["status"]["rollout"]["state"] == "Promoted"
    assert traffic.failed == []


def test_hands_off_is_suspended(application: Application) -> None:
    """Told to keep its hands off, the operator leaves even a commit alone; Argo CD shows that as no fault."""
    application.create()
    application.until(application.repository.head, "Healthy")
    application.penguins("annotate", "md", NAME, "greenroom.dev/reconcile=disabled")
    application.until(application.repository.head, "Suspended")
    commit = commit_version(application, "v2")
    application.until(commit, "Suspended")
    assert application.penguins.found["status"]["version"] == "v1"

    application.penguins("annotate", "md", NAME, "greenroom.dev/reconcile-")
    application.until(commit, "Healthy")
    assert application.penguins.found["status"]["version"] == "v2"


def test_scaling_beside_git(application: Application) -> None:
    """Where Git leaves replicas out, who scales owns them: no sync takes them back, and zero is Healthy."""
    manifest = patched(application.repository.read(FILE), {"spec": {"replicas": None}})
    commit = application.repository.commit("Leave replicas to others", {FILE: manifest})
    application.create()
    application.until(commit, "Healthy")
    assert application.penguins.found["spec"]["replicas"] == 1
    for replicas in (3, 0):
        scale(application, replicas)
        application.sync()
        application.until(commit, "Healthy")
        assert application.penguins.found["spec"]["replicas"] == replicas


def test_replicas_in_git_may_be_left_alone(application: Application) -> None:
    """Where Git has replicas, ignoreDifferences as docs/gitops.md has it leaves them to who scales."""
    application.create(
        ignoreDifferences=[
            {"group": "greenroom.dev", "kind": "ModelDeployment", "jsonPointers": ["/spec/replicas"]}
        ],
        syncPolicy={
            "automated": {"prune": True, "selfHeal": True},
            "syncOptions": ["RespectIgnoreDifferences=true"],
        },
    )
    application.until(application.repository.head, "Healthy")
    scale(application, 1)
    commit = commit_version(application, "v2")
    application.until(commit, "Healthy")

    assert application.penguins.found["spec"]["replicas"] == 1
    assert application.penguins.found["status"]["version"] == "v2"


def test_a_rebuilt_cluster_is_what_git_says(
    application: Application, terminal: Terminal, models: TrainedModels
) -> None:
    """All is lost, the Application and the namespace, and is made anew: production is what Git says."""
    application.create()
    application.until(application.repository.head, "Healthy")
    commit = commit_version(application, "v2")
    application.penguins.until_promoted("v2")
    first = application.penguins.found["metadata"]["uid"]
    application.delete()
    application.kubectl("delete", "namespace", application.name, "--wait=true")
    application.create()
    application.until(commit, "Healthy")

    found = application.penguins.found
    assert found["metadata"]["uid"] != first
    assert found["status"]["version"] == found["spec"]["version"] == "v2"
    assert "previousVersion" not in found["status"]
    with reached(terminal, application.name) as url:
        assert ask(url, models.rows[0]).headers["X-Model-Version"] == "v2"
