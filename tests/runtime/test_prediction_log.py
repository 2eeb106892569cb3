"""The prediction log: what is recorded, what is not, and that the accounts hold whatever happens."""

import os
import re
import threading
from collections.abc import Callable, Mapping
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import jsonschema_rs
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, generate_latest

from greenroom_runtime.contract import names
from greenroom_runtime.predictions.ledger import DEPARTED, Account, Counts, Ledger
from greenroom_runtime.predictions.log import Bounds, PredictionLog
from greenroom_runtime.predictions.metrics import LogCollector
from greenroom_runtime.predictions.record import Comparison, Record
from greenroom_runtime.predictions.spelling import Speller, UnspeakableRecordError
from greenroom_runtime.shadow.compare import Outcome
from tests.support.predictions import (
    QUICK,
    lines,
    number_of,
    prediction_log,
    record,
    refused,
    shadowed,
    total,
    wait_until,
)

SCHEMA = Path(__file__).resolve().parents[2] / "docs" / "schemas" / "prediction.schema.json"
SECRETS = frozenset({"country", "age"})

values: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)
comparisons = st.builds(
    Comparison,
    version=st.sampled_from(["v1", "v2"]),
    prediction=st.none() | st.booleans() | st.integers(-(2**63), 2**63) | st.floats() | st.text(),
    probabilities=st.none() | st.lists(st.floats(), max_size=3),
    classes=st.none() | st.lists(st.booleans() | st.text(), max_size=3),
    latency_ms=st.floats(0, 1e6),
    outcome=st.sampled_from([*Outcome]),
    difference=st.none() | st.floats(min_value=0),
    segments=st.lists(st.text(), max_size=2),
)
records = st.builds(
    Record,
    comparison=st.none() | comparisons,
    id=st.text(min_size=1),
    time=st.floats(0, 4e9),
    version=st.sampled_from(["", "v1", "v2"]),
    role=st.sampled_from(["production", "rollout", "shadow", ""]),
    reason=st.sampled_from(["default", "rule:beta", ""]),
    entity=st.text(),
    features=st.none() | st.dictionaries(st.text(), values, max_size=4),
    feature_source=st.just("request"),
    status=st.sampled_from([200, 422, 503]),
    latency_ms=st.floats(0, 1e6),
    prediction=st.none() | st.booleans() | st.integers(-(2**63), 2**63) | st.floats() | st.text(),
    probabilities=st.none() | st.lists(st.floats(0, 1), max_size=3),
    error=st.text(),
)


def speller(**changes: Any) -> Speller:
    """Return what writes records."""
    given: dict[str, Any] = {
        "model": "churn",
        "namespace": "ml",
        "sensitive": "Hash",
        "key": b"k" * 32,
        "most_bytes": 65536,
    }
    return Speller(**(given | changes))


@given(record=records, mark=st.booleans())
def test_every_line_is_as_the_schema_says(record: Record, *, mark: bool) -> None:
    """Whatever a client sends and a model answers, the line is one the published schema describes."""
    schema = orjson.loads(SCHEMA.read_bytes())
    try:
        line = speller(mark=mark).line(record)
    except UnspeakableRecordError:
        return
    assert line.endswith(b"\n")
    assert line.count(b"\n") == 1
    written = orjson.loads(line)
    jsonschema_rs.Draft202012Validator(schema, validate_formats=True).validate(written)
    left_out = (set() if mark else {"event"}) | (set() if record.comparison else {"comparison"})
    assert written.keys() == schema["properties"].keys() - left_out
    optional = ("event", "comparison")
    assert schema["required"] == [name for name in schema["properties"] if name not in optional]


def test_a_record_says_what_happened(tmp_path: Path) -> None:
    """Time is RFC 3339 in UTC, probabilities are by class, and an error has no prediction."""
    with prediction_log(tmp_path) as log:
        log.write(record(0, classes=(0, True)))
        log.write(record(1, classes=None))
        log.write(refused(2, version="", role="", reason="", features=None))
    first, numbered, error = lines(tmp_path)
    assert first["time"] == "2026-11-18T11:06:40.250000Z"
    assert (first["model"], first["namespace"]) == ("churn", "ml")
    assert first["features"] == record().features
    assert first["probabilities"] == {"0": 0.25, "true": 0.75}
    assert numbered["probabilities"] == {"0": 0.25, "1": 0.75}
    assert (error["status"], error["error"], error["prediction"], error["features"]) == (
        422,
        "1 missing",
        None,
        None,
    )


def test_what_a_shadow_disagrees_with_is_always_recorded(tmp_path: Path) -> None:
    """Of a shadow's records the share is taken of what agrees, by the same ids as production's."""
    with prediction_log(tmp_path, percent=50.0) as log:
        for number in range(40):
            log.write(record(number))
            log.write(shadowed(number))
            log.write(shadowed(number, "disagreed", version="v3"))
    recorded = {
        version: {line["id"] for line in lines(tmp_path) if line["version"] == version}
        for version in ("v1", "v2", "v3")
    }
    assert recorded["v1"] == recorded["v2"]
    assert 0 < len(recorded["v1"]) < 40
    assert len(recorded["v3"]) == 40


def test_what_cannot_be_written_is_left_out(tmp_path: Path) -> None:
    """Features that are too large or beyond JSON go missing as a whole; what is left of the record stays."""
    nested: list[Any] = []
    for _ in range(900):
        nested = [nested]
    odd = [{"deep": nested}, {"big": 2**70}, {"half": "\ud800"}, {"long": "x" * 2_000_000}]
    with prediction_log(tmp_path) as log:
        for number, features in enumerate(odd):
            log.write(record(number, features=features))
        log.write(record(9, time=float("nan")))
    assert [(line["id"], line["features"]) for line in lines(tmp_path)] == [
        (f"request-{number}", None) for number in range(len(odd))
    ]
    assert total(log) == Counts(logged=4, dropped=1)


def test_sampling_depends_on_the_id_alone(tmp_path: Path) -> None:
    """The share is as asked for, the same requests are chosen each time, and errors always are."""
    chosen = []
    for turn in ("a", "b"):
        with prediction_log(tmp_path / turn, percent=20) as log:
            for number in range(5000):
                log.write(record(number))
            log.write(refused(123_456))
        chosen.append({line["id"] for line in lines(tmp_path / turn)})
        assert total(log).sampled_out == 5001 - len(chosen[-1])
    assert chosen[0] == chosen[1]
    assert 850 < len(chosen[0]) < 1150
    assert "request-123456" in chosen[0]


def test_nothing_is_chosen_of_nothing(tmp_path: Path) -> None:
    """At 0 % errors alone are recorded."""
    with prediction_log(tmp_path, percent=0) as log:
        for number in range(100):
            log.write(record(number))
        log.write(refused(100))
    assert [line["status"] for line in lines(tmp_path)] == [422]


@pytest.mark.parametrize("how", ["Hash", "Omit"])
def test_sensitive_values_are_nowhere(tmp_path: Path, how: str) -> None:
    """Neither a sensitive feature's value nor an unknown feature is anywhere in the bytes."""
    features = {"country": "Ruritania", "age": 4171.25, "visits": 3, "typo_of_country": "Graustark"}
    known = frozenset({"country", "age", "visits"})
    with prediction_log(tmp_path, sensitive=how) as log:
        log.write(record(0, features=features, sensitive=SECRETS, known=known))
        log.write(refused(1, features=features | {"age": "4171.25"}, sensitive=SECRETS, known=known))
    content = b"".join(path.read_bytes() for path in tmp_path.iterdir())
    for secret in (b"Ruritania", b"4171", b"Graustark", b"typo_of_country"):
        assert secret not in content
    shown = lines(tmp_path)[0]["features"]
    assert shown.keys() == ({"visits"} if how == "Omit" else known)


def test_hashes_can_be_joined_but_not_read(tmp_path: Path) -> None:
    """The same value has the same hash under the same key; another key or feature gives another one."""
    found = {}
    for key in ("one", "one", "two"):
        with prediction_log(tmp_path / key, environment={names.ENV_LOG_KEY: key}) as log:
            features = {"country": "NO", "age": "NO", "n": 1, "m": None}
            for number, n in enumerate((1, 1.0, True, float("inf"), float("-inf"))):
                log.write(record(number, features=features | {"n": n}, sensitive=frozenset(features)))
        written = [line["features"] for line in lines(tmp_path / key)]
        assert len({str(one["country"]) for one in written}) == 1
        assert written[0]["country"] != written[0]["age"]
        assert written[0]["n"] == written[1]["n"]
        assert len({one["n"] for one in written}) == 4
        assert written[0]["m"] is None
        found[key] = written[0]["country"]
    assert found["one"] != found["two"]


def test_a_stalled_sink_costs_the_newest_records(tmp_path: Path) -> None:
    """With a sink that takes nothing the queue fills, further records are counted as dropped, none blocks."""
    reading, writing = os.pipe()
    bounds = Bounds(sync_seconds=0.01, queue_records=1000, batch_bytes=64 * 1024, line_bytes=64 * 1024)
    with (
        os.fdopen(reading, "rb") as reader,
        prediction_log(tmp_path, sink="Stdout", stdout=writing, bounds=bounds) as log,
    ):
        for number in range(20_000):
            log.write(record(number))
        wait_until(lambda: log.report().error)
        stalled = total(log)
        assert log.report().error == "stdout is not being read"
        assert stalled.dropped > 10_000
        assert number_of(stalled) == 20_000
        read: list[bytes] = []
        thread = threading.Thread(target=lambda: read.extend(reader))
        thread.start()
        # The last line is counted before the writer knows that all is well again.
        wait_until(lambda: total(log).pending == 0 and log.report().error == "")
        log.close(60)
        os.close(writing)
        thread.join()
    written = [orjson.loads(line) for line in read]
    numbers = [int(line["id"].removeprefix("request-")) for line in written]
    assert numbers[:1000] == list(range(1000))
    assert all(before < after for before, after in pairwise(numbers))
    assert {line["event"] for line in written} == {"prediction"}
    assert total(log) == Counts(logged=len(written), dropped=20_000 - len(written))


def test_the_end_is_bounded(tmp_path: Path) -> None:
    """A sink that stays stuck cannot hold up the process: what it has not taken is dropped, nothing pends."""
    reading, writing = os.pipe()
    try:
        with prediction_log(tmp_path, sink="Stdout", stdout=writing) as log:
            for number in range(2000):
                log.write(record(number))
            log.close(0.05)
            ended = total(log)
            assert (number_of(ended), ended.pending) == (2000, 0)
            assert ended.dropped > 0
            log.write(record(2000))
            assert total(log) == ended + Counts(dropped=1)
    finally:
        os.close(reading)
        log._writer._thread.join()  # or it might write into whatever has the descriptor's number next
        os.close(writing)


@pytest.mark.parametrize(
    "change", [{"size": 100_000}, {"size": 0, "features": {f"f{number}": 1.0 for number in range(1000)}}]
)
def test_huge_records_do_not_fill_the_memory(tmp_path: Path, change: dict[str, Any]) -> None:
    """What the queue keeps alive is bounded in bytes as well, by requests' sizes and their features."""
    bounds = Bounds(sync_seconds=3600, queue_bytes=1_000_000)
    with prediction_log(tmp_path, bounds=bounds) as log:
        for number in range(100):
            log.write(record(number, **change))
        assert 5 <= total(log).pending < 10
        assert number_of(total(log)) == 100
    assert total(log).logged == len(lines(tmp_path)) < 10


def test_lines_on_stdout_do_not_mix(tmp_path: Path) -> None:
    """Lines of the process's own log between the records leave both whole."""
    reading, writing = os.pipe()
    with os.fdopen(reading, "rb") as reader:
        read: list[bytes] = []
        thread = threading.Thread(target=lambda: read.extend(reader))
        thread.start()
        with prediction_log(tmp_path, sink="Stdout", stdout=writing) as log:
            for number in range(3000):
                log.write(record(number))
                os.write(writing, b'{"event":"other"}\n')
        os.close(writing)
        thread.join()
    events = [orjson.loads(line)["event"] for line in read]
    assert (events.count("other"), events.count("prediction")) == (3000, 3000)


def test_a_line_that_was_cut_short_is_completed(tmp_path: Path) -> None:
    """A reader that takes long lines piece by piece, with pauses, gets them whole and once."""
    reading, writing = os.pipe()
    os.set_blocking(writing, False)  # so that a write takes what there is room for
    os.set_blocking(reading, False)
    content = b""
    with os.fdopen(reading, "rb", buffering=0) as reader:
        with prediction_log(tmp_path, sink="Stdout", stdout=writing) as log:
            for number in range(4):
                log.write(record(number, features={"text": "x" * 150_000}))
                log.write(record(number + 10))
            while total(log).pending:
                wait_until(lambda: log.report().error or not total(log).pending)
                content += reader.read(100_000) or b""
        os.close(writing)
        content += reader.readall()
    ids = [orjson.loads(line)["id"] for line in content.splitlines()]
    assert ids == [f"request-{number + of_kind}" for number in range(4) for of_kind in (0, 10)]
    assert total(log) == Counts(logged=8)


def test_the_accounts_are_exact_meanwhile(tmp_path: Path) -> None:
    """Seen from another thread the accounts never show more or less than what has come in, nor go back."""
    seen: list[Counts] = []
    ended = threading.Event()
    bounds = Bounds(sync_seconds=0.001, queue_records=200)

    def look() -> None:
        while not ended.is_set():
            seen.append(total(log))

    with prediction_log(tmp_path, percent=50, bounds=bounds) as log:
        thread = threading.Thread(target=look)
        thread.start()
        for number in range(20_000):
            log.write(record(number, version=f"v{number % 3}"))
        log.close(60)
        ended.set()
        thread.join()
    assert total(log).pending == 0
    assert number_of(total(log)) == 20_000
    assert len(lines(tmp_path)) == total(log).logged
    for before, after in pairwise(seen):
        assert 0 <= number_of(before) <= number_of(after) <= 20_000
        assert before.pending >= 0
        assert before.logged <= after.logged


STEPS = st.lists(
    st.sampled_from(
        ["write", "write v2", "refuse", "work", "spell", "break", "mend", "forget v1", "forget v2"]
    ),
    max_size=40,
)


@settings(max_examples=150, deadline=None)
@given(steps=STEPS)
def test_the_accounts_hold_in_any_order(tmp_path_factory: pytest.TempPathFactory, steps: list[str]) -> None:
    """Writes, failures of the disk and departures in any order: every prediction is accounted for, once."""
    root = tmp_path_factory.mktemp("log")
    directory = root / "log"
    bounds = Bounds(sync_seconds=3600, queue_records=4)
    written = {"v1": 0, "v2": 0}
    with prediction_log(directory, bounds=bounds, percent=50) as log:
        actions = _actions(log, directory)
        for number, step in enumerate(steps):
            if step in actions:
                actions[step]()
            else:
                version = "v2" if step == "write v2" else "v1"
                written[version] += 1
                log.write((refused if step == "refuse" else record)(number, version=version))
            counts = log.counts()
            assert number_of(total(log)) == sum(written.values())
            assert all(one.pending >= 0 for one in counts.values())
            for version, of_version in written.items():
                if f"forget {version}" not in steps[: number + 1]:
                    assert number_of(counts.get((version, "production"), Counts())) == of_version
        _mend(directory)
    ended = total(log)
    assert (number_of(ended), ended.pending) == (sum(written.values()), 0)
    assert len(lines(directory)) + len(lines(root / "gone")) == ended.logged


def _actions(log: PredictionLog, directory: Path) -> Mapping[str, Callable[[], object]]:
    return {
        "work": log._writer.work,
        "spell": partial(log._writer.work, flush=False),
        "break": partial(_break, directory),
        "mend": partial(_mend, directory),
        "forget v1": partial(log.forget, "v1"),
        "forget v2": partial(log.forget, "v2"),
    }


def _break(directory: Path) -> None:
    """Put a file in the directory's place, as a mount that went away might."""
    gone = directory.with_name("gone")
    if directory.is_dir() and not gone.exists():
        directory.rename(gone)
        directory.touch()


def _mend(directory: Path) -> None:
    if directory.is_file():
        directory.unlink()
        directory.with_name("gone").rename(directory)


def test_departed_versions_share_an_account(tmp_path: Path) -> None:
    """However many versions come and go, the number of accounts stays small and the sums stay exact."""
    with prediction_log(tmp_path) as log:
        for number in range(300):
            log.write(record(number, version=f"v{number}"))
            log.forget(f"v{number}")
        assert log.counts().keys() == {(DEPARTED, "production")}
    assert log.counts() == {(DEPARTED, "production"): Counts(logged=300)}


def test_forgetting_to_forget_is_bounded() -> None:
    """Accounts beyond a few hundred are one."""
    ledger = Ledger()
    for number in range(1000):
        ledger.account(f"v{number}", "production").requests += 1
    assert len(ledger.counts()) < 300
    assert ledger.total() == Counts(pending=1000)


def test_late_threads_change_nothing() -> None:
    """Once the accounts are settled a thread that was stuck cannot move them any more."""
    ledger = Ledger()
    account: Account = ledger.account("v1", "production")
    account.requests = 3
    ledger.stored({account: 2})
    ledger.settle()
    ledger.sent({account: 2})
    ledger.logged({account: 1})
    assert ledger.total() == Counts(logged=2, dropped=1)


def test_prometheus_sees_the_accounts(tmp_path: Path) -> None:
    """The accounts are metrics, by version and role; versions that have left make no series."""
    registry = CollectorRegistry()
    with prediction_log(tmp_path, percent=0, bounds=QUICK) as log:
        registry.register(LogCollector(log))
        log.write(record(0))
        log.write(refused(1))
        log.write(record(2, version="v0"))
        log.forget("v0")
        wait_until(lambda: total(log).pending == 0)
        shown = generate_latest(registry).decode()
    labels = '{role="production",version="v1"}'
    for name, value in (("logged_total", 1), ("dropped_total", 0), ("sampled_out_total", 1), ("pending", 0)):
        assert f"greenroom_predictions_{name}{labels} {value}.0" in shown
    for name in ("delivered", "expired_segments", "torn_lines"):
        assert f"greenroom_predictions_{name}_total 0.0" in shown
    assert DEPARTED not in shown
    assert "v0" not in shown


def test_the_documentation_tells_of_each_member() -> None:
    """The page's table and the columns of its query are the schema's members."""
    members = orjson.loads(SCHEMA.read_bytes())["properties"].keys()
    page = (SCHEMA.parents[1] / "predictions.md").read_text(encoding="utf-8")
    table = page.partition("| member | |")[2].partition("\n\n")[0]
    rows = [row.split("|")[1] for row in table.splitlines() if row.startswith("| `")]
    assert {name for row in rows for name in re.findall(r"`(\w+)`", row)} == members
    columns = page.partition("columns = {")[2].partition("}")[0]
    assert set(re.findall(r"(\w+): '", columns)) == members - {"event"}
