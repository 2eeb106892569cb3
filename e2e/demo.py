"""Walk through Greenroom on a real cluster with kubectl: ``make cluster-demo``."""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from e2e import installation, penguins
from e2e.cluster import ClusterError, providers
from e2e.store import ModelStore
from e2e.terminal import ROOT, Terminal
from e2e.traffic import Traffic
from greenroom_runtime.contract import names

NAMESPACE = "greenroom-demo"
NAME = penguins.NAME
WAIT = "--timeout=180s"


def main() -> int:
    """Do the walk; an error that a user can understand is told in words."""
    parser = argparse.ArgumentParser(prog="python -m e2e.demo", description=__doc__)
    parser.add_argument(
        "--name", default="dev", help="the cluster, started unless it runs (default: %(default)s)"
    )
    try:
        walk(parser.parse_args().name)
    except (ClusterError, TimeoutError, subprocess.TimeoutExpired) as failure:
        sys.stderr.write(f"error: {failure}\n")
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


def walk(name: str) -> None:
    """Install, deploy, predict, roll out, promote, and show each command."""
    terminal = prepare(name)
    manifest = penguins.EXAMPLE.relative_to(ROOT)
    title(terminal, "One ModelDeployment is the whole interface")
    terminal.run("cat", str(manifest))
    terminal.kubectl(NAMESPACE, "apply", "--filename", str(manifest))
    terminal.kubectl(NAMESPACE, "wait", "--for=condition=Ready", f"modeldeployment/{NAME}", WAIT)
    terminal.kubectl(NAMESPACE, "get", "md")
    terminal.kubectl(NAMESPACE, "get", "pods,services")
    with terminal.reach(NAMESPACE, NAME, port=80) as url:
        title(terminal, "It answers")
        show_answer(terminal, url)
        roll_out(terminal, url)
        promote(terminal, url)
        show_answer(terminal, url)
    title(terminal, "It explains itself")
    terminal.kubectl(NAMESPACE, "describe", "md", NAME)
    title(terminal, "Yours to play with; `make cluster-down` removes the cluster")


def prepare(name: str) -> Terminal:
    """Bring up cluster, operator and models, the namespace made anew; return a terminal that shows it."""
    cluster = providers.find(name) or providers.up(name, keep=True)
    terminal = Terminal.of(cluster, echo=True)
    terminal.show(f"$ export KUBECONFIG={cluster.kubeconfig}\n$ export PATH={cluster.bin}:$PATH")
    installation.load_images(cluster)

    title(terminal, "Install the operator")
    terminal.run("kubectl", "delete", "namespace", NAMESPACE, "--ignore-not-found")
    terminal.run("kubectl", "create", "namespace", NAMESPACE)
    terminal.run("kubectl", "label", "namespace", NAMESPACE, "pod-security.kubernetes.io/enforce=restricted")
    installation.install(terminal, values={"watchNamespaces": [NAMESPACE]})

    title(terminal, "Train two models and put them into S3")
    store = ModelStore.deploy(cluster, terminal, namespace=NAMESPACE)
    with tempfile.TemporaryDirectory() as directory:
        models = Path(directory) / NAME
        train = penguins.EXAMPLE.relative_to(ROOT).with_name("train.py")
        terminal.run(_python(), str(train), "--to", str(models))
        count = store.upload(models, prefix=NAME)
    terminal.show(f"{count} files are at s3://{store.bucket}/{NAME} now")
    secret = store.secret("models-store")
    terminal.kubectl(NAMESPACE, "apply", "--filename=-", stdin=yaml.safe_dump(secret, sort_keys=False))
    return terminal


def _python() -> str:
    """Return this Python as one types it in the clone."""
    path = Path(sys.executable)
    return str(path.relative_to(ROOT) if path.is_relative_to(ROOT) else path)


def show_answer(terminal: Terminal, url: str) -> None:
    """Send one request to the model and show both sides of it."""
    terminal.show(f"> POST {url}/predict\n  {json.dumps({'features': features()})}")
    answer = penguins.ask(url, features())
    headers = "  ".join(
        f"{name}: {answer.headers.get(name)}" for name in (names.HEADER_VERSION, names.HEADER_REASON)
    )
    terminal.show(f"< {answer.status_code}  {headers}\n  {answer.text.strip()}")


def features() -> dict[str, Any]:
    """Return one penguin."""
    return {
        "bill_length_mm": 46.1,
        "bill_depth_mm": 13.2,
        "flipper_length_mm": 211.0,
        "body_mass_g": 4500.0,
        "island": "Biscoe",
        "sex": "female",
    }


def roll_out(terminal: Terminal, url: str) -> None:
    """Give some users the new version under load, then all of them, and show who got what."""
    title(terminal, "Give another version to a third of the users, then to all")
    users = [f"user-{number}" for number in range(60)]
    with Traffic(url, [features()], users=users) as traffic:
        for percent, state in ((33, "Running"), (100, "Complete")):
            change = json.dumps({"spec": {"rollout": {"version": "v2", "percent": percent}}})
            terminal.kubectl(NAMESPACE, "patch", "md", NAME, "--type=merge", f"--patch={change}")
            there = f"--for=jsonpath={{.status.rollout.state}}={state}"
            terminal.kubectl(NAMESPACE, "wait", there, f"md/{NAME}", WAIT)
            terminal.kubectl(NAMESPACE, "get", "md")
            terminal.show(_who_got_what(traffic, users))
    if traffic.failed:
        raise ClusterError(f"{len(traffic.failed)} requests failed, the first so: {traffic.failed[0]}")


def _who_got_what(traffic: Traffic, users: Sequence[str]) -> str:
    """Return in words which users are answered by which version, once each was answered again."""
    settled = len(traffic.answers) + len(users)
    traffic.wait_until(lambda answers: {answer.user for answer in answers[settled:]} == set(users))
    newest = {answer.user: answer.version for answer in traffic.answers[settled:]}
    counts = Counter(newest.values())
    lucky = [user for user in users if newest[user] == "v2"][:5]
    return f"of {len(users)} users: {dict(sorted(counts.items()))}; v2 goes to {', '.join(lucky)} …"


def promote(terminal: Terminal, url: str) -> None:
    """Change spec.version under load and show who answered."""
    title(terminal, "Change the version while it answers: no restart, no failed request")
    with Traffic(url, [features()]) as traffic:
        change = '{"spec": {"version": "v2"}}'
        terminal.kubectl(NAMESPACE, "patch", "md", NAME, "--type=merge", f"--patch={change}")
        written = time.monotonic()
        terminal.kubectl(NAMESPACE, "wait", "--for=jsonpath={.status.version}=v2", f"md/{NAME}", WAIT)
        traffic.wait_for_every_client("v2")
    terminal.show(summary(traffic, since=written))
    if traffic.failed:
        raise ClusterError(f"{len(traffic.failed)} requests failed, the first so: {traffic.failed[0]}")
    terminal.kubectl(NAMESPACE, "get", "md")
    terminal.kubectl(NAMESPACE, "get", "pods")


def summary(traffic: Traffic, *, since: float) -> str:
    """Return in words who answered, and when the first and the last client saw the new version."""
    counts = Counter(answer.version or f"FAILED {answer.status}" for answer in traffic.answers)
    who = ", ".join(f"{version} {count} times" for version, count in counts.items())
    first = min(answer.at for answer in traffic.answers if answer.version == "v2") - since
    last = max(answer.at for answer in traffic.answers if answer.version == "v1") - since
    return (
        f"{len(traffic.answers)} requests meanwhile: {who}; failed: {len(traffic.failed)}\n"
        f"v2 answered first {first:.2f} s after the change was written, v1 last {last:.2f} s after it"
    )


def title(terminal: Terminal, text: str) -> None:
    """Show what comes next."""
    terminal.show(f"\n=== {text}")


if __name__ == "__main__":
    sys.exit(main())
