"""Greenroom in a minute, on this machine: package, serve, shadow, roll out, promote, refuse a bad version.

    python examples/demo.py

Every promise is checked while it is shown; the exit code is 1 when one did not hold. Nothing leaves this
machine, and nothing is left behind.
"""

import http.client
import json
import os
import queue
import re
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.text import Text

from greenroom.plan import explain, load_deployment, planned_flags

EXAMPLE = Path(__file__).parent / "penguins"
HOST = "127.0.0.1"
SCORES_AGREE = 1e-5
KEEP_ALIVE_CLIENTS, NEW_CONNECTION_CLIENTS = 4, 1
PAUSE_SECONDS = 0.004
"""Between two requests of a client: the machine should serve, not only be asked."""
PATIENCE_SECONDS = 60.0
USERS = 300
SHARES = (10, 50)
"""Percent of users that get v2 before it is production."""
TOLERANCE = 0.1
"""Probabilities further apart than this disagree."""
SHADOW = (
    f'{{version: v2, tolerance: "{TOLERANCE}", gate: {{minDuration: 0s, minRequests: 500, '
    'maxDisagreementPercent: "12", maxErrorPercent: "1", maxLatencyRatio: "20"}}'
)
"""Bounds that hundreds of users prove, on whatever machine: 0.1 % of errors would take thousands."""
SHADOWED_TIMES = 10
"""How often each held-back penguin is asked for, each time by another user."""

console = Console(soft_wrap=True, highlight=False)


class DemoError(Exception):
    """A step did not get where it should; the demo ends."""


@dataclass
class Promises:
    """What was promised, and whether it held."""

    kept: list[tuple[bool, str]] = field(default_factory=list)

    def check(self, held: bool, promise: str) -> None:  # noqa: FBT001 what is checked is the point
        """Print and remember one promise."""
        self.kept.append((held, promise))
        console.print(
            Text("  kept    " if held else "  BROKEN  ", style="bold green" if held else "bold red").append(
                promise
            )
        )


@dataclass(frozen=True)
class Answer:
    """One answered request."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        """The body as JSON."""
        return json.loads(self.body)


class Client:
    """A connection to the server, kept alive."""

    def __init__(self, port: int) -> None:
        self._connection = http.client.HTTPConnection(HOST, port, timeout=10)

    def predict(self, features: dict[str, Any], **request: Any) -> Answer:
        """Ask for one prediction; OSError or HTTPException when there is no answer."""
        body = json.dumps({"features": features, **request})
        self._connection.request("POST", "/predict", body, {"Content-Type": "application/json"})
        response = self._connection.getresponse()
        return Answer(response.status, dict(response.getheaders()), response.read())

    def close(self) -> None:
        """Hang up."""
        self._connection.close()


class Load:
    """Clients that never stop asking: some keep their connection, some make a new one for each request."""

    def __init__(self, port: int, rows: list[dict[str, Any]]) -> None:
        self._port, self._rows = port, rows
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self.versions: Counter[str] = Counter()
        self.failures: list[str] = []
        self.times: dict[str, list[tuple[float, float]]] = {}
        """By version: when each request was sent and when it was answered."""
        keeps = [True] * KEEP_ALIVE_CLIENTS + [False] * NEW_CONNECTION_CLIENTS
        self._threads = [threading.Thread(target=self._ask, args=(keep,), daemon=True) for keep in keeps]

    def start(self) -> None:
        """Begin to ask."""
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Let every request that is under way finish."""
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def answered(self) -> int:
        """Return how many requests were answered so far."""
        with self._lock:
            return self.versions.total()

    def _ask(self, keep: bool) -> None:  # noqa: FBT001
        client = Client(self._port)
        asked = 0
        while not self._stop.wait(PAUSE_SECONDS):
            sent = time.monotonic()
            try:
                answer = client.predict(self._rows[asked % len(self._rows)])
            except (OSError, http.client.HTTPException) as error:
                self._record(sent, None, f"{type(error).__name__}: {error}")
                client.close()
            else:
                problem = (
                    "" if answer.status == http.HTTPStatus.OK else f"{answer.status}: {answer.body[:200]!r}"
                )
                self._record(sent, answer, problem)
            asked += 1
            if not keep:
                client.close()
        client.close()

    def _record(self, sent: float, answer: Answer | None, problem: str) -> None:
        with self._lock:
            if problem or answer is None:
                self.failures.append(problem)
                return
            version = answer.headers["x-model-version"]
            self.versions[version] += 1
            self.times.setdefault(version, []).append((sent, time.monotonic()))

    def last(self, version: str) -> float:
        """Return when the last answer of a version came."""
        return max(answered for _, answered in self.times[version])

    def returns(self, old: str, new: str) -> int:
        """Return how many requests sent after an answer of the new version still got the old one."""
        first = min(answered for _, answered in self.times[new])
        return sum(sent > first for sent, _ in self.times[old])


class Greenroom:
    """``greenroom run`` as a process, its output shown as it comes."""

    def __init__(self, manifest: Path, source: Path, *, port: int) -> None:
        command = [sys.executable, "-m", "greenroom", "run", str(manifest), "--source", str(source)]
        self._process = subprocess.Popen(
            [*command, "--port", str(port)],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,  # our own Ctrl-C is not its
        )
        self._lines: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        for line in self._process.stdout or ():
            console.print(Text("  | ", style="cyan").append(line.rstrip(), style="default"))
            self._lines.put(line)
        self._lines.put(None)

    def wait_for(self, words: str) -> str:
        """Return the line in which it prints these words; DemoError when it ends, or after a minute."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while (left := deadline - time.monotonic()) > 0:
            try:
                line = self._lines.get(timeout=left)
            except queue.Empty:
                break
            if line is None:
                raise DemoError(f"greenroom run ended with exit code {self._process.wait()}")
            if words in line:
                return line
        raise DemoError(f"greenroom run did not say {words!r} within {PATIENCE_SECONDS:g} s")

    def serving_pid(self) -> int:
        """Return the process that answers requests."""
        pid = self._process.pid
        return int(Path(f"/proc/{pid}/task/{pid}/children").read_text().split()[0])

    def interrupt(self) -> int:
        """Press Ctrl-C; return the exit code."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGINT)
        try:
            return self._process.wait(PATIENCE_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            return self._process.wait()


def heading(number: int, text: str) -> None:
    """Begin a step."""
    console.print()
    console.print(Text(f"{number}. {text}", style="bold"))


def say(text: str) -> None:
    """Print one line of a step."""
    console.print(Text(f"  {text}"))


def free_port() -> int:
    """Return a port that nobody has now."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


def train(source: Path) -> None:
    """Train and package the example models."""
    say("344 penguins from the package palmerpenguins: four numbers, two texts, some of them missing")
    script = EXAMPLE / "train.py"
    with subprocess.Popen(
        [sys.executable, str(script), "--to", str(source), "--with-broken"], stdout=subprocess.PIPE, text=True
    ) as process:
        for line in process.stdout or ():
            say(line.strip().replace(f"{source}{os.sep}", ""))
    if process.returncode:
        raise DemoError(f"{script} ended with exit code {process.returncode}")


def show_parity(source: Path, promises: Promises) -> None:
    """Show how each export compared with the pipeline that was trained."""
    for version in ("v1", "v2"):
        parity = json.loads((source / version / "bundle.json").read_text())["parity"]
        held = parity["label_flips"] == 0 and parity["max_abs_error"] <= parity["tolerance"]
        promises.check(
            held,
            f"{version}: {parity['rows']} hostile rows answered as by the training pipeline, "
            f"{parity['label_flips']} labels differ, largest score difference {parity['max_abs_error']:.1g}",
        )


def ask_held_back(port: int, holdout: list[dict[str, Any]], promises: Promises) -> None:
    """Send rows that no model was trained on, show some, compare all with the pipeline's answers."""
    client = Client(port)
    right = 0
    missing = next(row for row in holdout if None in row["features"].values())
    for row in holdout:
        answer, expected = client.predict(row["features"]).json, row["answers"]["v1"]
        scores = list(answer["probabilities"].values())
        worst = max(abs(a - b) for a, b in zip(scores, expected["probabilities"], strict=True))
        right += answer["prediction"] == expected["prediction"] and worst <= SCORES_AGREE
        if row is holdout[0] or row is missing:
            say(f"> POST /predict {json.dumps({'features': row['features']})}")
            say(f"< {json.dumps(answer)}")
    client.close()
    promises.check(
        right == len(holdout),
        f"{right} of {len(holdout)} held-back penguins get the training pipeline's own answer",
    )


@contextmanager
def under_load(port: int, rows: list[dict[str, Any]]) -> Iterator[Load]:
    """Ask all the time while the block runs, and for a moment before and after."""
    load = Load(port, rows)
    load.start()
    try:
        wait_until(lambda: load.answered() > 300, "the load to begin")  # noqa: PLR2004
        yield load
        enough = load.answered() + 300
        wait_until(lambda: load.answered() > enough, "the load to go on")
    finally:
        load.stop()


def wait_until(condition: Callable[[], object], what: str, between: float = 0.02) -> None:
    """Wait for a condition, looked at each ``between`` seconds; DemoError after a minute."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        if time.monotonic() > deadline:
            raise DemoError(f"waited {PATIENCE_SECONDS:g} s in vain for {what}")
        time.sleep(between)


def shadow(
    greenroom: Greenroom, port: int, holdout: list[dict[str, Any]], reports: str, promises: Promises
) -> None:
    """Ask v1, and see that v2 was asked the same, that it differs where it should, and what the gate says."""
    say("v2 is asked whatever v1 is asked, in a process of its own; nobody gets its answers")
    differ = sum(disagree(row["answers"]["v1"], row["answers"]["v2"]) for row in holdout)
    client = Client(port)
    versions: Counter[str] = Counter()
    for turn in range(SHADOWED_TIMES):
        for at, row in enumerate(holdout):
            answer = client.predict(row["features"], user_id=f"user-{turn}-{at}")
            versions[answer.json["version"]] += 1
    client.close()
    compared = (SHADOWED_TIMES + 1) * len(holdout)  # the step before has asked for each of them once
    wait_until(lambda: count(reports)["compared"] > compared, "the shadow to have answered")
    told = count(reports)
    shown = ", ".join(
        f"{told[name]} {name}" for name in ("compared", "disagreed", "failed", "not_comparable")
    )
    say(f"the shadow's report: {shown}")
    promises.check(set(versions) == {"v1"}, f"v1 answered all of {versions.total()} requests")
    promises.check(
        told["disagreed"] == (SHADOWED_TIMES + 1) * differ and not told["failed"],
        f"v2 disagrees {told['disagreed']} times: exactly where its training pipeline does",
    )
    verdict = greenroom.wait_for("the shadow v2 has ")
    promises.check("has passed" in verdict, "the gate has proven that fewer than 12 % of users would notice")


def meet(port: int, holdout: list[dict[str, Any]], reports: str) -> None:
    """Ask for a penguin that both versions agree on, until the serving process has found its shadow.

    It looks once a second, and what it cannot hand over before it drops.
    """
    rows = (row for row in holdout if not disagree(row["answers"]["v1"], row["answers"]["v2"]))
    features = next(rows)["features"]
    client = Client(port)
    wait_until(lambda: client.predict(features) and count(reports)["compared"], "v1 to find its shadow", 0.2)
    client.close()


def disagree(one: dict[str, Any], other: dict[str, Any]) -> bool:
    """Tell whether two pipelines' answers differ, by label or by a probability."""
    pairs = zip(one["probabilities"], other["probabilities"], strict=True)
    return one["prediction"] != other["prediction"] or any(abs(a - b) > TOLERANCE for a, b in pairs)


def count(reports: str) -> dict[str, int]:
    """Return what the shadow has counted."""
    with urllib.request.urlopen(reports, timeout=10) as answer:  # noqa: S310 loopback
        counts: dict[str, int] = json.load(answer)["process"]["counts"]
        return counts


def edit(manifest: Path, old: str, new: str) -> float:
    """Change ``version`` in the file as an editor does; return when."""
    text = manifest.read_text()
    if f"version: {old} " not in text:
        raise DemoError(f"{manifest} does not say 'version: {old}'")
    temporary = manifest.with_suffix(".new")
    temporary.write_text(text.replace(f"version: {old} ", f"version: {new} "))
    temporary.replace(manifest)
    say(f"edited modeldeployment.yaml: version: {old} -> {new}")
    return time.monotonic()


def roll_out(
    greenroom: Greenroom, manifest: Path, port: int, features: dict[str, Any], promises: Promises
) -> None:
    """Give v2 to a share of users, raise it, and see who gets which."""
    users = [f"user-{number}" for number in range(USERS)]
    before: set[str] = set()
    for percent in SHARES:
        text = re.sub(r"  rollout: .*\n", "", manifest.read_text())
        manifest.write_text(f"{text}  rollout: {{version: v2, percent: {percent}}}\n")
        say(f"edited modeldeployment.yaml: rollout: {{version: v2, percent: {percent}}}")
        greenroom.wait_for(f"v2 serves {percent} % of users")
        client = Client(port)
        served = {user: client.predict(features, user_id=user).json["version"] for user in users}
        client.close()
        got = {user for user, version in served.items() if version == "v2"}
        explained = explain_share(manifest, users)
        say(
            f"{len(got)} of {USERS} users got v2, the others {', '.join(sorted({*served.values()} - {'v2'}))}"
        )
        promises.check(
            served == explained and before <= got,
            "each user got the version that `greenroom flags explain` says, and keeps v2 who had it",
        )
        before = got
    one = next(user for user in users if served[user] == "v1")
    command = [sys.executable, "-m", "greenroom", "flags", "explain", str(manifest), "--user", one]
    for line in subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines():
        say(f"  {line.rstrip()}")
    manifest.write_text(re.sub(r"  rollout: .*\n", "", manifest.read_text()))
    greenroom.wait_for("v2 is no longer rolled out")


def explain_share(manifest: Path, users: list[str]) -> dict[str, str]:
    """Return which version each user gets, decided without a server."""
    flags = planned_flags(load_deployment(manifest), percent=None)
    return {user: explain(flags, user=user, context={}).decision.version for user in users}


def promote(
    greenroom: Greenroom, manifest: Path, port: int, rows: list[dict[str, Any]], promises: Promises
) -> None:
    """Edit the version under load, and count."""
    pid = greenroom.serving_pid()
    say(f"clients: {KEEP_ALIVE_CLIENTS} that keep their connection, {NEW_CONNECTION_CLIENTS} that never does")
    with under_load(port, rows) as load:
        edited = edit(manifest, "v1", "v2")
        greenroom.wait_for("promoted to v2")
    for failure in load.failures[:3]:
        say(f"failed: {failure}")
    counts = ", ".join(f"{version} {count}" for version, count in sorted(load.versions.items()))
    say(f"answers by version: {counts}")
    say(f"last answer of v1: {load.last('v1') - edited:.2f} s after the edit")
    promises.check(not load.failures, f"{len(load.failures)} of {load.answered()} requests failed")
    promises.check(load.returns("v1", "v2") == 0, "the alias moved once and never back")
    promises.check(greenroom.serving_pid() == pid, f"the same process serves (pid {pid}): no restart")


def refuse(
    greenroom: Greenroom, manifest: Path, port: int, rows: list[dict[str, Any]], promises: Promises
) -> None:
    """Ask for a version whose golden samples do not match its graph."""
    say("v3-broken was exported after its scaling had been changed; its golden samples tell")
    with under_load(port, rows) as load:
        edit(manifest, "v2", "v3-broken")
        greenroom.wait_for("refused v3-broken")
        greenroom.wait_for("v2 stays production")
    promises.check(
        set(load.versions) == {"v2"} and not load.failures,
        f"v2 answered all of {load.answered()} requests meanwhile, {len(load.failures)} failed",
    )


def wrong_feature(port: int, features: dict[str, Any], promises: Promises) -> None:
    """Send one feature too many, one mistyped and one missing."""
    wrong = {**features, "beak_colour": "orange", "body_mass_g": "heavy"}
    del wrong["island"]
    client = Client(port)
    answer = client.predict(wrong)
    client.close()
    say(f"> POST /predict {json.dumps({'features': wrong})}")
    say(f"< {answer.status} {answer.body.decode()}")
    named = all(name in answer.body.decode() for name in ("beak_colour", "body_mass_g", "island"))
    promises.check(
        answer.status == http.HTTPStatus.UNPROCESSABLE_ENTITY and named,
        "a 422 that names the unknown, the mistyped and the missing feature",
    )


def play(directory: Path, promises: Promises) -> None:
    """Walk through the demo in a directory of its own."""
    source, manifest, port = directory / "models", directory / "modeldeployment.yaml", free_port()
    text = (EXAMPLE / "modeldeployment.yaml").read_text()
    manifest.write_text(f"{text}  shadow: {SHADOW}\n")
    heading(1, "Train two models on real data, and package them")
    train(source)
    show_parity(source, promises)
    holdout = [json.loads(line) for line in (source / "holdout.jsonl").read_text().splitlines()]
    rows = [row["features"] for row in holdout]
    heading(2, "greenroom run modeldeployment.yaml: the YAML of a cluster, without one")
    greenroom = Greenroom(manifest, source, port=port)
    try:
        greenroom.wait_for("docs")
        greenroom.wait_for("the shadow v2 is ready")
        reports = greenroom.wait_for("report  http").split()[-1]
        meet(port, holdout, reports)
        heading(3, "Ask for penguins that no model has seen")
        ask_held_back(port, holdout, promises)
        heading(4, "Let v2 shadow v1: compared, counted, never served")
        shadow(greenroom, port, holdout, reports, promises)
        heading(5, "Give v2 to some users, then to more")
        roll_out(greenroom, manifest, port, rows[0], promises)
        heading(6, "Promote v2 under load: one edit of the file")
        promote(greenroom, manifest, port, rows, promises)
        heading(7, "Ask for a version that lies")
        refuse(greenroom, manifest, port, rows, promises)
        heading(8, "Send a request that does not fit the model")
        wrong_feature(port, rows[0], promises)
        heading(9, "Ctrl-C")
    finally:
        code = greenroom.interrupt()
    promises.check(code == 128 + signal.SIGINT, f"greenroom run ended cleanly, with exit code {code}")


def main() -> int:
    """Play the demo; return 0 when every promise held, 1 when one did not, 130 after Ctrl-C."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    promises = Promises()
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="greenroom-demo-") as directory:
        try:
            play(Path(directory), promises)
        except DemoError as error:
            console.print(Text(f"\nthe demo stopped: {error}", style="bold red"))
            return 1
        except KeyboardInterrupt:
            console.print("\nstopped")
            return 128 + signal.SIGINT
    kept = sum(held for held, _ in promises.kept)
    console.print()
    style = "bold green" if kept == len(promises.kept) else "bold red"
    console.print(
        Text(
            f"{kept} of {len(promises.kept)} promises kept, in {time.monotonic() - began:.0f} s", style=style
        )
    )
    return 0 if kept == len(promises.kept) else 1


if __name__ == "__main__":
    sys.exit(main())
