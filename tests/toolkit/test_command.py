import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import typer

from greenroom.commands import app
from greenroom.plan import explain, load_deployment, planned_flags
from tests.support.examples import TrainedExample
from tests.support.foreign import COLUMNS, classifier_onnx, write_mlflow, write_plain
from tests.support.plain_http import http
from tests.support.upstream import feature_service
from tests.toolkit.command import MANIFEST, Command, predict, run_to_end, seeing_ended


def commands(group: Any, *above: str) -> Iterator[str]:
    """Yield what can be typed after `greenroom`, groups' own commands as `group command`."""
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from commands(command, *above, name)
        else:
            yield " ".join((*above, name))


COMMANDS = list(commands(typer.main.get_command(app)))


def ask_for(manifest: Path, version: str) -> None:
    """Edit the version in place, as an editor that truncates and writes."""
    manifest.write_text(MANIFEST.replace("version: v1 ", f"version: {version} "))


def assert_gone(pid: int) -> None:
    """See that no process has this id."""
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_serve_serves_a_bundle_and_leaves_nothing(penguins: TrainedExample, state: Path) -> None:
    """One bundle answers as its pipeline did; Ctrl-C ends it with 130, without process or file left."""
    with Command("serve", str(penguins.bundle("v2")), "--port", "0", state=state) as command:
        url = command.wait_for_url()
        assert f"curl -s {url}/predict" in command.wait_for("curl")
        assert f"{url}/docs" in command.wait_for("docs")
        row = penguins.holdout("v2")[0]
        answer = predict(url, row["features"])
        assert (answer["prediction"], answer["version"], answer["model"]) == (
            row["prediction"],
            "v2",
            "penguins",
        )
        pid = command.serving_pid()
        assert command.interrupt() == 130
    assert_gone(pid)
    assert list(state.iterdir()) == []
    assert not any("\x1b" in line for line in command.lines), "colours in a pipe"


def test_serve_takes_a_directory_of_versions(penguins: TrainedExample, state: Path) -> None:
    """Of several versions the named one serves; SIGTERM ends it with 143."""
    arguments = ("serve", str(penguins.source), "--version", "v1", "--port", "0")
    with Command(*arguments, state=state) as command:
        row = penguins.holdout("v1")[0]
        assert predict(command.wait_for_url(), row["features"])["version"] == "v1"
        assert command.interrupt(signal.SIGTERM) == 143


def test_a_terminal_that_goes_takes_everything_along(penguins: TrainedExample, state: Path) -> None:
    """SIGHUP, which a window sends that is closed, ends like Ctrl-C: without process or file left."""
    with Command("serve", str(penguins.bundle("v1")), "--port", "0", state=state) as command:
        command.wait_for_url()
        with seeing_ended(command.serving_pid()):
            assert command.interrupt(signal.SIGHUP) == 129
    assert list(state.iterdir()) == []


def test_the_server_ends_with_a_command_that_is_killed(penguins: TrainedExample, state: Path) -> None:
    """`kill -9` lets nobody clean up: the serving process notices by itself, before it is ready and after."""
    arguments = ("serve", str(penguins.bundle("v1")), "--port", "0")
    for words in ("proving v1", "v1 serves at"):
        with Command(*arguments, state=state) as command:
            command.wait_for(words)
            with seeing_ended(command.serving_pid()):
                assert command.interrupt(signal.SIGKILL) == -signal.SIGKILL


def test_serve_takes_a_plain_onnx_directory(state: Path, tmp_path: Path) -> None:
    """Under any name, as v1, in place; it says what it found, how to ask, and that nothing vouches for it."""
    model = write_plain(tmp_path, "my_model", classifier_onnx()) / "model.onnx"
    with Command("serve", str(model.parent), "--port", "0", state=state) as command:
        command.wait_for(f"proving v1, a plain ONNX model in {model.parent}")
        url = command.wait_for_url()
        assert "X_2" in command.wait_for("curl")
        command.wait_for("golden samples: absent")
        answer = predict(url, {f"X_{at}": 1.0 for at in range(3)})
        assert (answer["version"], answer["model"], answer["prediction"]) == ("v1", "my_model", "high")
        assert command.interrupt() == 130
    assert list(state.iterdir()) == []
    assert [path.name for path in model.parent.iterdir()] == ["model.onnx"]


@pytest.mark.parametrize("beside", ["runs", "."], ids=["elsewhere", "beside the temporary files"])
def test_serve_takes_an_mlflow_directory(beside: str, state: Path, tmp_path: Path) -> None:
    """By the columns of its signature, wherever it lies."""
    place = write_mlflow(tmp_path / beside, "v7", classifier_onnx(), inputs=COLUMNS)
    with Command("serve", str(place), "--port", "0", state=state) as command:
        command.wait_for(f"proving v7, an MLflow model in {place}")
        answer = predict(command.wait_for_url(), {"age": 1.0, "income": 1.0, "visits": 1})
        assert (answer["version"], answer["model"]) == ("v7", place.parent.name)


def test_serve_takes_a_bundle_under_another_name(
    penguins: TrainedExample, state: Path, tmp_path: Path
) -> None:
    """A bundle that was copied to a directory of an unfit name goes by the version that it says."""
    shutil.copytree(penguins.bundle("v2"), tmp_path / "my_copy")
    with Command("serve", str(tmp_path / "my_copy"), "--port", "0", state=state) as command:
        row = penguins.holdout("v2")[0]
        answer = predict(command.wait_for_url(), row["features"])
        assert (answer["prediction"], answer["version"]) == (row["prediction"], "v2")


def test_serve_takes_a_directory_with_any_name(state: Path, tmp_path: Path) -> None:
    """A name that is longer than a model's may be is cut."""
    place = write_plain(tmp_path, "n" * 200, classifier_onnx())
    with Command("serve", str(place), "--port", "0", state=state) as command:
        answer = predict(command.wait_for_url(), {f"X_{at}": 1.0 for at in range(3)})
        assert answer["model"] == "n" * 63


def test_serve_says_what_it_waits_for(penguins: TrainedExample, state: Path, tmp_path: Path) -> None:
    """A file that cannot be read just now is no refusal, and nothing to be silent about."""
    place = shutil.copytree(penguins.bundle("v1"), tmp_path / "v1")
    (place / "model.onnx").unlink()
    (place / "model.onnx").symlink_to(place / "model.onnx")
    with Command("serve", str(place), "--port", "0", state=state) as command:
        command.wait_for("not fetched yet, it is tried again: Symlink loop")


def test_serve_says_what_cannot_be_served(tmp_path: Path) -> None:
    """A pickle saved by MLflow is refused in one line with the remedy."""
    place = write_mlflow(
        tmp_path, "model", b"", inputs=COLUMNS, flavors={"sklearn": {"pickled_model": "m.pkl"}}
    )
    done = run_to_end("serve", str(place), "--port", "0")
    assert done.returncode == 1
    assert "pickles and Python code are never loaded" in done.stderr
    assert "mlflow.onnx.log_model" in done.stderr


def test_serve_refuses_a_bundle_that_fails_its_proof(penguins: TrainedExample) -> None:
    """The exit code is 1 and the message says which sample failed."""
    done = run_to_end("serve", str(penguins.bundle("v3-broken")), "--port", "0")
    assert done.returncode == 1
    assert "v3-broken is refused: GoldenMismatch: golden sample 0" in done.stderr


def test_run_flips_the_alias_without_a_restart(penguins: TrainedExample, manifest: Path, state: Path) -> None:
    """An edited version is proven, then serves in the same process."""
    arguments = ("run", str(manifest), "--source", str(penguins.source), "--port", "0")
    with Command(*arguments, state=state) as command:
        url = command.wait_for_url()
        features = penguins.holdout("v1")[0]["features"]
        pid = command.serving_pid()
        assert any(f"predictions are recorded in {state}" in line for line in command.lines)
        assert predict(url, features)["version"] == "v1"
        ask_for(manifest, "v2")
        command.wait_for("preparing v2 beside v1")
        command.wait_for("promoted to v2")
        assert predict(url, features)["version"] == "v2"
        assert command.serving_pid() == pid
        ask_for(manifest, "v1")
        command.wait_for("promoted to v1")
        assert predict(url, features)["version"] == "v1"
        assert command.interrupt() == 130
    assert_gone(pid)
    assert list(state.iterdir()) == []


def test_run_fetches_features(penguins: TrainedExample, manifest: Path, state: Path) -> None:
    """What a request leaves out comes from where the YAML says, as in a cluster."""
    row = penguins.holdout("v1")[0]
    with feature_service(features={"ann": row["features"]}) as service:
        compute = (
            f"compute: {{url: '{service.url}/one/{{entity}}', timeout: 10s, secretRef: {{name: theirs}}}}"
        )
        manifest.write_text(MANIFEST + f"  features: {{{compute}}}\n")
        arguments = ("run", str(manifest), "--source", str(penguins.source), "--port", "0")
        with Command(*arguments, state=state) as command:
            url = command.wait_for_url()
            answer = http.post(f"{url}/predict", json={"features": {}, "user_id": "ann"})
            assert (answer.status_code, answer.json()["prediction"]) == (200, row["prediction"])
            assert answer.headers["X-Feature-Source"] == "compute"
            told = "the keys of the Secret theirs as GREENROOM_FEATURES_COMPUTE_…"
            assert any(told in line for line in command.lines)


def test_run_keeps_serving_when_a_version_is_refused(
    penguins: TrainedExample, manifest: Path, state: Path
) -> None:
    """A refused version is explained, production stays, and the next good one is still taken."""
    arguments = ("run", str(manifest), "--source", str(penguins.source), "--port", "0")
    with Command(*arguments, state=state) as command:
        url = command.wait_for_url()
        for version, reason in (("v3-broken", "GoldenMismatch"), ("v9", "NoSuchVersion")):
            ask_for(manifest, version)
            assert reason in command.wait_for(f"refused {version}")
            command.wait_for("v1 stays production")
            assert predict(url, penguins.holdout("v1")[0]["features"])["version"] == "v1"
        ask_for(manifest, "v2")
        command.wait_for("promoted to v2")


def test_run_rolls_a_version_out_to_some_users(penguins: TrainedExample, manifest: Path, state: Path) -> None:
    """An edited share is routed as `flags explain` says; who has it keeps it; a bad version routes nobody."""
    arguments = ("run", str(manifest), "--source", str(penguins.source), "--port", "0")
    features, users = penguins.holdout("v1")[0]["features"], [f"user-{number}" for number in range(40)]

    def roll_out(rollout: str) -> None:
        manifest.write_text(f"{MANIFEST}  rollout: {rollout}\n")

    def versions(url: str) -> list[str]:
        return [predict(url, features, user_id=user)["version"] for user in users]

    def explained() -> list[str]:
        flags = planned_flags(load_deployment(manifest), percent=None)
        return [explain(flags, user=user, context={}).decision.version for user in users]

    with Command(*arguments, state=state) as command:
        url = command.wait_for_url()
        roll_out("{version: v2, percent: 20}")
        command.wait_for("preparing v2 for its rollout")
        command.wait_for("v2 serves 20 % of users")
        first = versions(url)
        assert first == explained()
        assert 0 < first.count("v2") < len(users)
        roll_out("{version: v2, percent: 70.5}")
        command.wait_for("v2 serves 70.5 % of users")
        second = versions(url)
        assert second == explained()
        assert all(now == "v2" for before, now in zip(first, second, strict=True) if before == "v2")
        roll_out("{version: v2, percent: 100, steps: [{percent: 1}]}")
        assert "give one of them" in command.wait_for("v1 stays asked for")
        assert versions(url) == second
        roll_out("{version: v3-broken, percent: 50}")
        command.wait_for("rollout of v3-broken refused: GoldenMismatch")
        command.wait_for("v1 stays production")
        assert set(versions(url)) == {"v1"}
        roll_out("{version: v2, percent: 100}")
        command.wait_for("v2 serves 100 % of users")
        assert set(versions(url)) == {"v2"}
        manifest.write_text(MANIFEST)
        command.wait_for("v2 is no longer rolled out; all users get v1")
        assert set(versions(url)) == {"v1"}


def test_run_obeys_actions(penguins: TrainedExample, manifest: Path, state: Path) -> None:
    """The annotation raises, pauses, resumes, aborts and begins anew, each once; what is none is told."""
    steps = "steps: [{percent: 20, hold: 1h}, {percent: 50, hold: 1h}]"
    text = f"{MANIFEST}  rollout: {{version: v2, {steps}}}\n"
    features, users = penguins.holdout("v1")[0]["features"], [f"user-{number}" for number in range(40)]

    def act(action: str) -> None:
        annotations = f"  annotations: {{greenroom.dev/action: {action}}}\n"
        manifest.write_text(text.replace("  name: penguins\n", f"  name: penguins\n{annotations}"))

    def routed(url: str) -> int:
        return [predict(url, features, user_id=user)["version"] for user in users].count("v2")

    manifest.write_text(text)
    arguments = ("run", str(manifest), "--source", str(penguins.source), "--port", "0")
    with Command(*arguments, state=state) as command:
        url = command.wait_for_url()
        command.wait_for("v2 serves 20 % of users")
        few = routed(url)
        act("promote-step/v2/1")
        command.wait_for("promote-step of v2, by the annotation")
        command.wait_for("v2 serves 50 % of users")
        assert 0 < few < routed(url)
        act("pause/v2/1")
        command.wait_for("v2 serves 50 % of users; paused by an action")
        act("pause/v2/2")
        command.wait_for("pause of v2 has no effect: it is paused already")
        act("resume/v2/1")
        command.wait_for("resume of v2, by the annotation")
        act("resume/v2/2")
        command.wait_for("resume of v2 has no effect: it is not paused")
        act("abort/v2/1")
        command.wait_for("rollout of v2 aborted")
        command.wait_for("v1 stays production")
        act("abort/v2/2")
        command.wait_for("abort of v2 has no effect: its rollout is Aborted")
        assert routed(url) == 0
        act("retry/v2/1")
        command.wait_for("preparing v2 for its rollout")
        command.wait_for("v2 serves 20 % of users")
        assert routed(url) == few
        act("stop it")
        command.wait_for("write VERB/VERSION/TEXT")
        act("promote-step/v9/1")
        command.wait_for("spec.rollout.version is v2")
    assert sum("write VERB/VERSION/TEXT" in line for line in command.lines) == 1


def test_run_tries_a_refused_version_again(
    penguins: TrainedExample, manifest: Path, state: Path, tmp_path: Path
) -> None:
    """What was published since is taken by the action retry; an action of the past is not done again."""
    source = tmp_path / "source"
    shutil.copytree(penguins.bundle("v1"), source / "v1")
    done = "retry/v9/before"
    text = MANIFEST.replace("version: v1 ", "version: v9 ")

    def annotated(text: str, action: str) -> str:
        annotations = f"  annotations: {{greenroom.dev/action: {action}}}\n"
        return text.replace("  name: penguins\n", f"  name: penguins\n{annotations}")

    manifest.write_text(annotated(MANIFEST, done) + f"status: {{lastHandledAction: {done}}}\n")
    with Command("run", str(manifest), "--source", str(source), "--port", "0", state=state) as command:
        url = command.wait_for_url()
        manifest.write_text(annotated(text, done))
        command.wait_for("refused v9: NoSuchVersion")
        shutil.copytree(penguins.bundle("v2"), source / "v9")
        bundle = json.loads((source / "v9" / "bundle.json").read_text())
        (source / "v9" / "bundle.json").write_text(json.dumps({**bundle, "version": "v9"}))
        manifest.write_text(annotated(text, "retry/v9/now"))
        command.wait_for("retry of v9, by the annotation")
        command.wait_for("promoted to v9")
        assert predict(url, penguins.holdout("v2")[0]["features"])["version"] == "v9"
    assert sum("by the annotation" in line for line in command.lines) == 1


def test_run_says_why_a_first_version_does_not_serve(
    penguins: TrainedExample, manifest: Path, state: Path
) -> None:
    """With nothing good to fall back to it says so, goes on watching, and takes a better version."""
    ask_for(manifest, "v3-broken")
    arguments = ("run", str(manifest), "--source", str(penguins.source), "--port", "0")
    with Command(*arguments, state=state) as command:
        assert "nothing serves" in command.wait_for("refused v3-broken: GoldenMismatch")
        action = "  annotations: {greenroom.dev/action: retry/v3-broken/1}\n"
        manifest.write_text(manifest.read_text().replace("  name: penguins\n", f"  name: penguins\n{action}"))
        command.wait_for("retry of v3-broken, by the annotation")
        assert "nothing serves" in command.wait_for("refused v3-broken: GoldenMismatch")
        ask_for(manifest, "v1")
        assert predict(command.wait_for_url(), penguins.holdout("v1")[0]["features"])["version"] == "v1"


def test_run_keeps_the_last_good_yaml(penguins: TrainedExample, manifest: Path, state: Path) -> None:
    """Each kind of bad edit gets one clear line; the last good manifest stays in force."""
    bad = {
        MANIFEST + "foo: [": "line",
        "[" * 5000: "nested too deeply",
        MANIFEST + "  since: 2026-13-01\n": "not YAML: month must be in 1..12",
        MANIFEST.replace("version: v1 ", "verison: v1 "): "spec.version: Field required",
        MANIFEST.replace("replicas: 2", "replicaz: 2"): "spec.replicaz: no such field",
        MANIFEST.replace("version: v1 ", "version: production "): "is an alias",
        MANIFEST.replace("version: v1 ", "version: ../v1 "): "is no version",
        MANIFEST + "  predictionLog: {sink: Http}\n": "sink Http posts to uri",
        MANIFEST.replace("kind: ModelDeployment", "kind: Deployment"): "0 objects of kind ModelDeployment",
        MANIFEST + "---\n" + MANIFEST: "2 objects of kind ModelDeployment",
    }
    arguments = ("run", str(manifest), "--source", str(penguins.source), "--port", "0")
    with Command(*arguments, state=state) as command:
        url = command.wait_for_url()
        for text, message in bad.items():
            manifest.write_text(text)
            assert message in command.wait_for("v1 stays asked for")
        manifest.unlink()
        assert "No such file" in command.wait_for("v1 stays asked for")
        assert predict(url, penguins.holdout("v1")[0]["features"])["version"] == "v1"
        ask_for(manifest, "v2")
        command.wait_for("promoted to v2")


def test_run_starts_its_process_again(penguins: TrainedExample, manifest: Path, state: Path) -> None:
    """When it is killed, and when the configuration changes, for which a cluster would roll its pods."""
    arguments = ("run", str(manifest), "--source", str(penguins.source), "--port", "0")
    with Command(*arguments, state=state) as command:
        command.wait_for_url()
        first = command.serving_pid()
        os.kill(first, signal.SIGKILL)
        command.wait_for("ended with exit code -9")
        command.wait_for_url()
        second = command.serving_pid()
        manifest.write_text(MANIFEST.replace("limits: {memory: 512Mi}", "limits: {memory: 600Mi}"))
        command.wait_for("the configuration changed")
        url = command.wait_for_url()
        assert predict(url, penguins.holdout("v1")[0]["features"])["version"] == "v1"
        assert len({first, second, command.serving_pid()}) == 3


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("serve", "{nowhere}"), "is no directory"),
        (("serve", "n" * 5000), "File name too long"),
        (("serve", "{empty}"), "holds no bundle"),
        (("serve", "{source}"), "holds v1, v2, v3-broken: choose one with --version"),
        (("serve", "{source}", "--version", "v7"), "has no version v7"),
        (("serve", "{source}/v1", "--version", "v2"), "is the bundle v1 itself"),
        (("serve", "{source}/v1", "--port", "{taken}"), "choose another with --port"),
        (("run", "{nowhere}"), "No such file or directory"),
        (("run", "{empty}"), "Is a directory"),
        (("run", "{manifest}", "--source", "{nowhere}"), "is no directory"),
        (("run", "{manifest}", "--source", "ftp://models"), "cannot be read"),
        (("run", "{manifest}", "--source", "{source}", "--port", "{taken}"), "choose another with --port"),
    ],
)
def test_a_bad_start_is_one_clear_line(
    arguments: tuple[str, ...], message: str, penguins: TrainedExample, manifest: Path, state: Path
) -> None:
    """The exit code is 1; standard error has one line with problem and remedy; nothing is left behind."""
    tmp_path = manifest.parent
    (tmp_path / "empty").mkdir()
    with socket.create_server(("127.0.0.1", 0)) as taken:
        places = {
            "nowhere": tmp_path / "nowhere",
            "empty": tmp_path / "empty",
            "source": penguins.source,
            "manifest": manifest,
            "taken": taken.getsockname()[1],
        }
        typed = [argument.format(**places) for argument in arguments]
        done = run_to_end(*typed, environment={"TMPDIR": str(state)})
    assert done.returncode == 1
    assert done.stderr.startswith("greenroom: ")
    assert message in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert list(state.iterdir()) == []


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help_with_examples(name: str) -> None:
    """--help of each command says what it does and shows how to type it, in lines that can be pasted."""
    done = run_to_end(*name.split(), "--help")
    assert done.returncode == 0
    assert f"Usage: greenroom {name}" in done.stdout
    assert f"\n    greenroom {name} " in done.stdout.partition("Examples:")[2]
    assert "\x1b" not in done.stdout


def test_version_says_the_release() -> None:
    """--version is one line."""
    assert run_to_end("--version").stdout.startswith("greenroom 0.")


def test_kubectl_finds_it_as_a_plugin() -> None:
    """`kubectl greenroom` runs kubectl-greenroom, which calls itself as it was called."""
    plugin = Path(sys.executable).with_name("kubectl-greenroom")
    done = subprocess.run([plugin, "run", "--help"], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("Usage: kubectl greenroom run ")


def test_a_shell_can_complete_it() -> None:
    """What has been typed so far is completed, by the name of a command and of an option."""
    for typed, at, completed in (("greenroom ser", "1", "serve"), ("greenroom run --sou", "2", "--source")):
        asked = {"_GREENROOM_COMPLETE": "complete_bash", "COMP_WORDS": typed, "COMP_CWORD": at}
        assert run_to_end(environment=asked).stdout.split() == [completed]


def complete_as_kubectl(*words: str, **changes: str) -> subprocess.CompletedProcess[str]:
    """Ask for completions of the last word as kubectl does."""
    program = Path(sys.executable).with_name("kubectl_complete-greenroom")
    environment = {**os.environ, **changes}
    return subprocess.run([program, *words], capture_output=True, text=True, check=False, env=environment)


@pytest.mark.parametrize(
    ("words", "found", "directive"),
    [
        (("sta",), ["status"], ":4"),
        (("flags", ""), ["explain"], ":4"),
        (("status", "penguins", "--wat"), ["--watch"], ":4"),
        (("status", "penguins", "-o", ""), ["table", "json", "yaml"], ":4"),
        (("serve", "mod"), [], ":0"),
        (("predict", "it's \"half\nquoted"), [], ":0"),
    ],
)
def test_kubectl_can_complete_it(words: tuple[str, ...], found: list[str], directive: str) -> None:
    """One completion a line, and whether files come into question, as cobra reads it."""
    done = complete_as_kubectl(*words)
    assert (done.returncode, done.stderr) == (0, "")
    *lines, last = done.stdout.splitlines()
    assert [line.partition("\t")[0] for line in lines] == found
    assert last == directive


@pytest.mark.parametrize(
    "kubectl",
    [
        None,
        "echo refused >&2; exit 1",
        "echo churn v1; exit 1",
        "echo churn v1; echo $$ > pids; sleep 1000 & echo $! >> pids; wait",
    ],
    ids=["no kubectl", "refuses", "breaks off", "hangs"],
)
def test_a_cluster_that_does_not_answer_is_not_waited_for(kubectl: str | None, tmp_path: Path) -> None:
    """No names, no word, and no process left: neither kubectl nor what it has started to log in."""
    own = tmp_path / "kubectl"
    if kubectl is not None:
        own.write_text(f"#!/bin/sh\ncd {tmp_path}\n{kubectl}\n")
        own.chmod(0o755)
    path = f"{tmp_path}:/usr/bin:/bin" if kubectl is not None else str(tmp_path)
    for words in (("status", ""), ("promote", "churn", ""), ("retry", "churn", "--version", "")):
        done = complete_as_kubectl(*words, PATH=path)
        assert (done.returncode, done.stdout, done.stderr) == (0, ":0\n", "")
    pids = tmp_path / "pids"
    for pid in pids.read_text().split() if pids.exists() else ():
        with suppress(ProcessLookupError), seeing_ended(int(pid)):
            pass


def test_a_completion_that_cannot_be_told_is_silent(tmp_path: Path) -> None:
    """Without the toolkit's packages nothing is printed into the line that somebody types."""
    (tmp_path / "typer.py").write_text("raise ModuleNotFoundError('typer', name='typer')\n")
    done = complete_as_kubectl("sta", PYTHONPATH=str(tmp_path))
    assert (done.returncode, done.stdout, done.stderr) == (1, "", "")


def test_a_misspelt_option_is_a_usage_error() -> None:
    """The exit code is 2, as everywhere."""
    assert run_to_end("serve", ".", "--prot", "1").returncode == 2


@pytest.mark.parametrize("missing", ["typer", "onnxruntime"])
def test_a_missing_extra_is_named(missing: str, tmp_path: Path, penguins: TrainedExample) -> None:
    """Without the toolkit's packages the command says what to install."""
    (tmp_path / "sitecustomize.py").write_text(
        "from importlib.machinery import PathFinder\n"
        "find = PathFinder.find_spec\n"
        f"hide = lambda name, *more: None if name == {missing!r} else find(name, *more)\n"
        "PathFinder.find_spec = staticmethod(hide)\n"
    )
    environment = {"PYTHONPATH": str(tmp_path)}
    done = run_to_end("serve", str(penguins.bundle("v1")), "--port", "0", environment=environment)
    assert done.returncode == 1
    assert "pip install 'greenroom[toolkit]'" in done.stderr


def test_nothing_heavy_is_imported_for_help() -> None:
    """--help answers without pandas, scikit-learn, onnxruntime, the operator's models or rich."""
    done = run_to_end("--help", interpreter=("-X", "importtime"))
    assert done.returncode == 0
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert "typer" in imported
    heavy = {"pandas", "sklearn", "onnxruntime", "numpy", "starlette", "duckdb", "rich.console"}
    assert not imported & {*heavy, "greenroom_operator"}
