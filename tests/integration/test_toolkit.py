"""The command `greenroom` against a real API server, as a user with a kubeconfig types it."""

import contextlib
import itertools
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

from e2e.cluster import ApiServer
from tests.support.bundles import CLASSIFIER_ROWS, write_classifier
from tests.support.kubectl import Kubectl
from tests.support.manifests import model_deployment
from tests.support.operator_process import OperatorProcess
from tests.support.serving import ServingProcess, flags

_NAMES = (f"toolkit-{number}" for number in itertools.count())
Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def namespace(kubectl: Kubectl, crd: str) -> str:
    """Return a new namespace, with the CRD there."""
    assert crd
    name = next(_NAMES)
    kubectl("create", "namespace", name)
    return name


@pytest.fixture
def state(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make the directory that the commands take for temporary files."""
    return tmp_path_factory.mktemp("t")  # short: the path of a socket may not be long


@pytest.fixture
def environment(api_server: ApiServer, state: Path) -> dict[str, str]:
    """Return an environment with the API server's kubectl and kubeconfig, and a place for temporary files."""
    path = f"{api_server.bin}{os.pathsep}{os.environ['PATH']}"
    return {**os.environ, "KUBECONFIG": str(api_server.kubeconfig), "PATH": path, "TMPDIR": str(state)}


@pytest.fixture
def run(environment: dict[str, str], namespace: str, state: Path) -> Iterator[Run]:
    """Return a function that runs `greenroom … --namespace …`; afterwards nothing is left behind."""

    def run(*arguments: str, **changes: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "greenroom", *arguments, "--namespace", namespace],
            capture_output=True,
            text=True,
            env={**environment, **changes},
            timeout=120,
            check=False,
        )

    yield run
    assert list(state.iterdir()) == []


@pytest.fixture
def operator(api_server: ApiServer, namespace: str) -> Iterator[OperatorProcess]:
    """Run an operator for the namespace."""
    with OperatorProcess(
        api_server.kubeconfig, f"--namespaces={namespace}", f"--lease-namespace={namespace}"
    ) as process:
        process.wait_for("working")
        yield process


def apply(kubectl: Kubectl, namespace: str, **spec: Any) -> None:
    """Apply the ModelDeployment churn."""
    kubectl("apply", "-n", namespace, "--filename=-", document=model_deployment(**spec))


def wait_for(kubectl: Kubectl, namespace: str, field: str, value: str) -> None:
    """Wait until status says so."""
    kubectl(
        "wait", "-n", namespace, "md/churn", f"--for=jsonpath={{.status.{field}}}={value}", "--timeout=60s"
    )


def test_actions_are_done_once_and_acknowledged(
    operator: OperatorProcess, run: Run, kubectl: Kubectl, namespace: str
) -> None:
    """pause, resume, abort and retry are carried out by the operator; what means nothing is refused."""
    assert operator
    apply(kubectl, namespace, rollout={"version": "v2", "percent": 10})
    wait_for(kubectl, namespace, "rollout.state", "Preparing")
    for verb in ("pause", "resume"):
        done = run(verb, "churn")
        assert (done.returncode, done.stderr) == (0, "")
        assert f"{verb} of v2: done" in done.stdout
    done = run("promote-step", "churn")
    assert done.returncode == 1
    assert "has no effect" in done.stderr
    done = run("abort", "churn", "--version", "v9")
    assert done.returncode == 1
    assert "spec.rollout.version is v2" in done.stderr
    assert "abort of v2: done" in run("abort", "churn").stdout
    assert kubectl.get("md", "churn", "-n", namespace)["status"]["rollout"]["state"] == "Aborted"
    assert "retry of v2: done" in run("retry", "churn").stdout
    told = run("status", "churn", "-o", "json")
    assert json.loads(told.stdout)["status"]["lastHandledAction"].startswith("retry/v2/")
    assert "evidence" not in told.stdout


def test_promote_prints_the_change_and_applies_it_when_told(
    run: Run, kubectl: Kubectl, namespace: str, tmp_path: Path
) -> None:
    """Nothing changes in the cluster without --apply; with it spec.version does, and nothing else."""
    apply(kubectl, namespace, rollout={"version": "v2", "percent": 10})
    before = kubectl.get("md", "churn", "-n", namespace)["spec"]
    done = run("promote", "churn")
    assert done.stdout == "in the YAML of churn:\n-  version: v1\n+  version: v2\n"
    assert "ends it early" in done.stderr
    assert kubectl.get("md", "churn", "-n", namespace)["spec"] == before
    file = tmp_path / "churn.yaml"
    text = "kind: ModelDeployment\nmetadata: {name: churn}\nspec:\n  version: v1  # production\n"
    file.write_text(text)
    done = run("promote", "churn", "--file", str(file), "--apply")
    assert "-  version: v1  # production\n+  version: v2  # production\n" in done.stdout
    assert file.read_text() == text
    after = kubectl.get("md", "churn", "-n", namespace)["spec"]
    assert after == {**before, "version": "v2"}
    done = run("rollback", "churn")
    assert (done.returncode, done.stdout) == (1, "")
    assert "had no version before: name one" in done.stderr
    kubectl("annotate", "-n", namespace, "md/churn", "argocd.argoproj.io/tracking-id=x")
    done = run("rollback", "churn", "v1", "--apply")
    assert kubectl.get("md", "churn", "-n", namespace)["spec"]["version"] == "v1"
    assert "Argo CD looks after this object" in done.stderr
    assert "asks for v1 already" in run("promote", "churn", "v1").stderr


def test_what_the_api_server_refuses_is_told(run: Run, kubectl: Kubectl, namespace: str) -> None:
    """By its own rules, with its own words."""
    apply(kubectl, namespace)
    done = run("promote", "churn", "production", "--apply")
    assert done.returncode == 1
    assert "this is an alias that Greenroom moves" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "changes", "message"),
    [
        (("status", "nothing"), {}, "there is no ModelDeployment nothing in the namespace"),
        (("status", "../pods no?"), {}, "there is no ModelDeployment ../pods no? in the namespace"),
        (("status", "churn", "--context", "nowhere"), {}, 'context "nowhere" does not exist'),
        (("pause", "churn"), {"PATH": "/nowhere"}, "kubectl is not on PATH"),
        (("status", "churn"), {"KUBECONFIG": "{dead}"}, "the API server does not answer"),
        (("flags", "explain", "nothing", "--user", "u1"), {}, "there is no ModelDeployment nothing"),
    ],
)
def test_a_cluster_that_cannot_be_asked_is_one_clear_line(
    arguments: tuple[str, ...], changes: dict[str, str], message: str, run: Run, tmp_path: Path
) -> None:
    """The exit code is 1, and nothing waits for long."""
    dead = tmp_path / "dead"
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    cluster = {"name": "c", "cluster": {"server": f"http://127.0.0.1:{port}"}}
    context = {"name": "c", "context": {"cluster": "c", "user": ""}}
    dead.write_text(json.dumps({"clusters": [cluster], "contexts": [context], "current-context": "c"}))
    done = run(*arguments, **{name: value.format(dead=dead) for name, value in changes.items()})
    assert (done.returncode, done.stdout) == (1, "")
    assert message in done.stderr
    assert len(done.stderr.splitlines()) == 1


@pytest.fixture
def serving(tmp_path: Path) -> Iterator[ServingProcess]:
    """Run a real serving process, proven v1 and a v2 that is not there, on every address of this machine."""
    write_classifier(tmp_path / "source", "v1")
    source = (tmp_path / "source").as_uri()
    with ServingProcess(tmp_path / "pod", source_uri=source, pod="churn-0", host="0.0.0.0") as process:  # noqa: S104
        process.flags.write(flags("v1", "v2"))
        process.wait_ready("v1")
        process.wait_settled()
        yield process


def own_address() -> str:
    """Return an address of this machine that is not loopback: the API server asks no other as a pod's."""
    with contextlib.closing(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as probe:
        probe.connect(("192.0.2.1", 9))  # sends nothing
        return str(probe.getsockname()[0])


def pretend_to_run(kubectl: Kubectl, namespace: str, serving: ServingProcess) -> None:
    """Make the Pod and the Endpoints that kubelet and controllers would, for a process that is there."""
    labels = {"greenroom.dev/deployment": "churn"}
    ports = {
        name: int(url.rpartition(":")[2])
        for name, url in (("http", serving.url), ("admin", serving.admin_url))
    }
    container = {
        "name": "serving",
        "image": "greenroom",
        "ports": [{"name": name, "containerPort": port} for name, port in ports.items()],
    }
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "churn-0", "labels": labels},
        "spec": {"containers": [container], "automountServiceAccountToken": False},
    }
    service = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "churn"},
        "spec": {"ports": [{"name": "http", "port": 80, "targetPort": ports["http"]}]},
    }
    of_pod = {"ip": own_address(), "targetRef": {"kind": "Pod", "name": "churn-0", "namespace": namespace}}
    endpoints = {
        "apiVersion": "v1",
        "kind": "Endpoints",
        "metadata": {"name": "churn"},
        "subsets": [{"addresses": [of_pod], "ports": [{"name": "http", "port": ports["http"]}]}],
    }
    account = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default"}}
    items = [account, pod, service, endpoints]
    kubectl(
        "apply", "-n", namespace, "-f", "-", document={"apiVersion": "v1", "kind": "List", "items": items}
    )
    status = {
        "phase": "Running",
        "podIP": own_address(),
        "podIPs": [{"ip": own_address()}],
        "conditions": [{"type": "Ready", "status": "True"}],
    }
    kubectl(
        "patch",
        "pod",
        "churn-0",
        "-n",
        namespace,
        "--subresource=status",
        "-p",
        json.dumps({"status": status}),
    )
    path = f"/api/v1/namespaces/{namespace}/services/churn:http/proxy/schema"
    deadline = time.monotonic() + 60
    while (done := kubectl.run("get", "--raw", path)).returncode:  # it learns of both by a watch of its own
        assert time.monotonic() < deadline, done.stderr
        time.sleep(0.1)


def test_status_shows_versions_by_pod_as_pods_report_them(
    run: Run, kubectl: Kubectl, namespace: str, serving: ServingProcess
) -> None:
    """Through the API server: a version's state and failure in each pod; a pod that is silent says so."""
    apply(kubectl, namespace)
    pretend_to_run(kubectl, namespace, serving)
    told = run("status", "churn")
    assert told.returncode == 0
    line = next(line for line in told.stdout.splitlines() if line.startswith("churn-0"))
    assert "v1 Ready, v2 Failed (NoSuchVersion)" in line
    assert "\x1b" not in told.stdout
    serving.stop()
    (pod,) = json.loads(run("status", "churn", "-o", "json").stdout)["pods"]
    assert pod["report"] is None
    assert pod["silence"]


def test_predict_asks_a_model_through_the_api_server(
    run: Run, kubectl: Kubectl, namespace: str, serving: ServingProcess, tmp_path: Path
) -> None:
    """No port is forwarded: the answer says which version made it, and why."""
    pretend_to_run(kubectl, namespace, serving)
    row = tmp_path / "row.json"
    row.write_text(json.dumps(CLASSIFIER_ROWS[0]))
    done = run("predict", "churn", "--json", str(row), "--user", "u1", "-o", "json")
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    assert (answer["version"], answer["reason"]) == ("v1", "default")
    done = run("predict", "churn", "age=old")
    assert done.returncode == 1
    assert "age: mistyped" in done.stderr
    assert "income: missing" in done.stderr


def test_flags_are_explained_as_the_cluster_has_them(
    operator: OperatorProcess, run: Run, kubectl: Kubectl, namespace: str
) -> None:
    """From the flag store that pods obey, not from what the YAML asks for."""
    assert operator
    apply(kubectl, namespace, rollout={"version": "v2", "percent": 100})
    wait_for(kubectl, namespace, "rollout.state", "Preparing")
    done = run("flags", "explain", "churn", "--user", "u1")
    assert "nobody is routed elsewhere: v1 is production" in done.stdout


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_watch_shows_each_change_until_it_is_ended(
    number: int, environment: dict[str, str], kubectl: Kubectl, namespace: str, state: Path
) -> None:
    """In a pipe one document a change; Ctrl-C and the like end it, and kubectl's proxy with it."""
    apply(kubectl, namespace)
    command = [sys.executable, "-m", "greenroom", "status", "churn", "-w", "-o", "json", "-n", namespace]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, env=environment, start_new_session=True
    ) as process:
        assert process.stdout is not None
        assert json.loads(_document(process.stdout))["spec"]["version"] == "v1"
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        kubectl("patch", "md", "churn", "-n", namespace, "--type=merge", '-p={"spec": {"version": "v2"}}')
        assert json.loads(_document(process.stdout))["spec"]["version"] == "v2"
        process.send_signal(number)
        try:
            assert process.wait(60) == 128 + number
        finally:
            process.kill()  # else it would be waited for, for ever
    assert len(children) == 1
    assert not Path(f"/proc/{children[0]}").exists()
    assert list(state.iterdir()) == []


def complete(environment: dict[str, str], *words: str) -> tuple[list[str], str]:
    """Return what the real kubectl offers for the last word after `kubectl greenroom`, and its directive."""
    own = str(Path(sys.executable).parent)
    done = subprocess.run(
        ["kubectl", "__complete", "greenroom", *words],
        capture_output=True,
        text=True,
        check=True,
        env={**environment, "PATH": f"{own}{os.pathsep}{environment['PATH']}"},
    )
    *lines, directive = done.stdout.splitlines()
    return [line.partition("\t")[0] for line in lines], directive


def test_kubectl_completes_the_plugin(environment: dict[str, str]) -> None:
    """The real kubectl finds the program that completes it, and understands what that prints."""
    assert complete(environment, "promote-") == (["promote-step"], ":4")


@pytest.mark.parametrize(
    ("words", "found"),
    [
        (("status", "-n", "{namespace}", ""), ["churn", "fraud"]),
        (("abort", "--namespace={namespace}", "ch"), ["churn"]),
        (("promote", "-n", "{namespace}", "churn", ""), ["v2", "v3", "v1"]),
        (("retry", "churn", "-n", "{namespace}", "--version", ""), ["v2", "v3", "v1"]),
        (("flags", "explain", "-n", "{namespace}", "fr"), ["fraud"]),
        (("predict", "-n", "{namespace}", "fr"), ["fraud"]),
    ],
)
def test_names_and_versions_are_completed(
    words: tuple[str, ...], found: list[str], environment: dict[str, str], kubectl: Kubectl, namespace: str
) -> None:
    """Those of the namespace and of the ModelDeployment that are on the command line."""
    apply(kubectl, namespace, rollout={"version": "v2", "percent": 1}, shadow={"version": "v3"})
    fraud = model_deployment()
    fraud["metadata"]["name"] = "fraud"
    kubectl("apply", "-n", namespace, "--filename=-", document=fraud)
    typed = [word.format(namespace=namespace) for word in words]
    deadline = time.monotonic() + 60
    while (told := complete(environment, *typed)) == ([], ":0"):  # a busy machine may be late: Tab once more
        assert time.monotonic() < deadline
    assert told == (found, ":4")


def _document(lines: Iterable[str]) -> str:
    """Return the lines of one JSON document that is printed over several."""
    text = ""
    for line in lines:
        text += line
        if line == "}\n":
            break
    return text
