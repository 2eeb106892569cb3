"""``greenroom predict`` and ``greenroom logs query``, against a real server, real segments, a real S3."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from greenroom.asking import predict, read_features
from greenroom.cluster import Reply
from greenroom.errors import CommandError
from tests.support.bundles import CLASSIFIER_ROWS, write_classifier
from tests.support.plain_http import http
from tests.support.predictions import prediction_log, record, refused, shadowed
from tests.support.s3 import CREDENTIALS, S3Server, s3_server
from tests.support.serving import ServingProcess, flags
from tests.toolkit.command import run_to_end


@pytest.fixture(scope="module")
def serving(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServingProcess]:
    """Serve a classifier of age, income, visits and country."""
    root = tmp_path_factory.mktemp("serving")
    write_classifier(root / "source", "v1")
    with ServingProcess(root, source_uri=(root / "source").as_uri()) as process:
        process.flags.write(flags("v1"))
        process.wait_ready("v1")
        yield process


def pairs(row: Any) -> list[str]:
    """Return a row as it is typed: NAME=VALUE, null for nothing."""
    return [f"{name}={'null' if value is None else value}" for name, value in row.items()]


def test_predict_types_values_as_the_model_says(serving: ServingProcess) -> None:
    """Numbers, texts and nulls typed in a shell are the request that a client would send."""
    for row in CLASSIFIER_ROWS[:2]:
        done = run_to_end("predict", serving.url, *pairs(row), "--user", "u1", "-o", "json")
        assert done.returncode == 0, done.stderr
        answer, expected = json.loads(done.stdout), serving.predict(row).json()
        assert answer["prediction"] == expected["prediction"]
        assert answer["probabilities"] == expected["probabilities"]
        assert (answer["version"], answer["reason"]) == ("v1", "default")


def test_predict_takes_json_from_a_file_or_a_pipe(serving: ServingProcess, tmp_path: Path) -> None:
    """Features alone or a whole request; what is typed beside it wins."""
    row = dict(CLASSIFIER_ROWS[0])
    path = tmp_path / "row.json"
    path.write_text(json.dumps({"features": row}))
    done = run_to_end("predict", serving.url, "--json", str(path))
    assert "version      v1 (default)" in done.stdout
    command = [sys.executable, "-m", "greenroom", "predict", serving.url, "--json", "-", "age=no"]
    piped = subprocess.run(command, input=json.dumps(row), capture_output=True, text=True, check=False)
    assert piped.returncode == 1
    assert "  age: mistyped, expected float64, found string" in piped.stderr


@pytest.mark.parametrize("body", [b'{"properties": []}', b"[1]", b"null"])
def test_what_answers_and_is_no_model_is_told(body: bytes) -> None:
    """Whatever else serves at a URL is named as such, not traced."""

    def ask(_method: str, _path: str, _body: bytes | None) -> Reply:
        return Reply(status=200, headers={}, body=body)

    with pytest.raises(CommandError, match="not as Greenroom's runtime does"):
        predict(ask, {"features": read_features(["age=1"], ask)})
    if not body.startswith(b"{"):
        with pytest.raises(CommandError, match="not as Greenroom's runtime does"):
            predict(ask, {"features": {}})


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("predict", "{url}", "age"), "write NAME=VALUE"),
        (("predict", "{url}", "colour=red"), "colour: unexpected"),
        (("predict", "ftp://x"), "is no http:// or https:// URL"),
        (("predict", "127.0.0.1:8080", "age=1"), "write one such as http://"),
        (("predict", "http://127.0.0.1:port", "age=1"), "is no http:// or https:// URL"),
        (("predict", "http://[::1", "age=1"), "is no http:// or https:// URL"),
        (("predict", "http://127.0.0.1:1", "age=1"), "does not answer"),
        (("predict", "{url}", "--json", "{nowhere}"), "holds no JSON"),
        (("predict", "{url}", "--json", "{list}"), "holds no JSON object"),
        (("logs", "query", "--from", "{nowhere}"), "no such file or directory"),
        (("logs", "query", "--from", "{empty}"), "has no segments of the prediction log"),
        (("logs", "query", "SELEC 1", "--from", "{log}"), "the query fails: Parser Error"),
        (("logs", "query", "--from", "s3://nowhere"), "does AWS_ENDPOINT_URL name a store that answers"),
        (("logs", "query", "--from", "az://logs/ml"), "set AZURE_STORAGE_ACCOUNT_NAME"),
        (
            ("logs", "query", "--from", "https://logs/ml"),
            "name a pod's directory, or a log in an object store",
        ),
    ],
)
def test_what_cannot_be_asked_is_told(
    arguments: tuple[str, ...], message: str, serving: ServingProcess, tmp_path: Path
) -> None:
    """The exit code is 1, and there is no traceback."""
    (tmp_path / "list").write_text("[]")
    (tmp_path / "empty").mkdir()
    (tmp_path / "log.jsonl").write_text(json.dumps({"id": "1"}) + "\n")
    places = {name: tmp_path / name for name in ("nowhere", "list", "empty")}
    typed = [argument.format(url=serving.url, log=tmp_path / "log.jsonl", **places) for argument in arguments]
    nobody = {**CREDENTIALS, "AWS_ENDPOINT_URL": "http://127.0.0.1:1"}
    done = run_to_end(*typed, environment=nobody)
    assert (done.returncode, done.stdout) == (1, "")
    assert message in done.stderr
    assert "Traceback" not in done.stderr


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write a real log of 40 predictions of two versions and 2 refusals, one segment of it twice."""
    directory = tmp_path_factory.mktemp("log")
    with prediction_log(directory) as writer:
        for number in range(40):
            writer.write(record(number, version="v2" if number % 4 == 0 else "v1"))
        for number in (40, 41):
            writer.write(refused(number))
    (segment,) = directory.glob("*.jsonl")
    (directory / f"copy-{segment.name}").write_bytes(segment.read_bytes())
    (directory / "begun.jsonl.open").write_text("torn")
    return directory


def ask(*arguments: str, environment: dict[str, str] | None = None) -> Any:
    """Run `greenroom logs query … -o json` and return what it found."""
    done = run_to_end("logs", "query", *arguments, "-o", "json", environment=environment)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_the_log_is_asked_by_sql(log: Path) -> None:
    """Each record once, typed; the summary needs no SQL."""
    summary = ask("--from", str(log))
    assert [(row["version"], row["status"], row["predictions"]) for row in summary] == [
        ("v1", 200, 30),
        ("v1", 422, 2),
        ("v2", 200, 10),
    ]
    sql = "SELECT avg((features->>'age')::DOUBLE) AS age, max(probabilities['yes']) AS yes FROM predictions"
    assert ask(f"{sql} WHERE status = 200", "--from", str(log)) == [{"age": 41.5, "yes": 0.75}]
    sql = "SELECT 'inf'::DOUBLE AS x, 'nan'::DOUBLE AS x, 1 AS x_1"
    assert ask(sql, "--from", str(log)) == [{"x": "inf", "x_1": None, "x_1_1": 1}]
    table = run_to_end("logs", "query", "--from", str(log))
    assert table.stdout.splitlines()[0].split()[:4] == ["model", "version", "role", "status"]


def test_where_a_shadow_disagrees_is_asked(tmp_path: Path) -> None:
    """A shadow's record and production's of one request are two, and the documented queries find both."""
    with prediction_log(tmp_path) as writer:
        for number in range(8):
            writer.write(record(number))
            writer.write(shadowed(number, "disagreed" if number in (1, 2, 3) else "agreed", prediction="no"))
    page = (Path(__file__).parents[2] / "docs" / "predictions.md").read_text(encoding="utf-8")
    queries = [block for block in re.findall(r"```sql\n(.*?)```", page, re.DOTALL) if "'shadow'" in block]
    by_segment, by_row = (ask(query.strip().rstrip(";"), "--from", str(tmp_path)) for query in queries)
    assert {row["segment"]: (row["compared"], row["disagreed"], row["percent"]) for row in by_segment} == {
        "country=NO": (4, 2, 50.0),
        "country=SE": (4, 1, 25.0),
        "tier=gold": (4, 1, 25.0),
    }
    assert sorted(row["id"] for row in by_row) == ["request-1", "request-2", "request-3"]
    assert {row["shadows"] for row in by_row} == {'"no"'}
    assert all("country" in row["features"] for row in by_row)


def test_days_bound_what_is_asked(log: Path) -> None:
    """By the records' own time, UTC."""
    (span,) = ask("SELECT strftime(min(time), '%Y-%m-%d') AS day FROM predictions", "--from", str(log))
    count = "SELECT count(*) AS n FROM predictions"
    assert ask(count, "--from", str(log), "--since", span["day"], "--until", span["day"]) == [{"n": 42}]
    assert ask(count, "--from", str(log), "--until", "2001-01-01") == [{"n": 0}]


@pytest.fixture(scope="module")
def store() -> Iterator[S3Server]:
    """Run a real S3 server."""
    with s3_server() as server:
        server.create_bucket("logs")
        yield server


def test_an_object_store_is_asked_by_day(store: S3Server, log: Path, tmp_path: Path) -> None:
    """Segments of other days are not fetched; copies are gone afterwards."""
    days = tmp_path / "days"
    for day in ("2026-11-20", "2026-11-23"):
        place = days / "ml" / "churn" / f"date={day}"
        place.mkdir(parents=True)
        for segment in log.glob("*.jsonl"):
            (place / segment.name).write_bytes(segment.read_bytes())
    store.upload(days, "logs")
    state = tmp_path / "state"
    state.mkdir()
    environment = {**store.environment, "TMPDIR": str(state)}
    count = "SELECT count(*) AS n FROM predictions"
    assert ask(count, "--from", "s3://logs/ml/churn", environment=environment) == [{"n": 42}]
    done = run_to_end(
        "logs", "query", "--from", "s3://logs/ml/churn", "--until", "2026-11-01", environment=environment
    )
    assert "has no segments" in done.stderr
    assert os.listdir(state) == []  # noqa: PTH208 a plain list is what is asked


def test_a_log_in_google_cloud_storage_is_asked(store: S3Server, log: Path) -> None:
    """Google's protocol for objects is S3's but for the signature, so that a public bucket shows it."""
    for segment in log.glob("*.jsonl"):
        url = f"{store.url}/logs/public/churn/date=2026-11-20/{segment.name}"
        body, public = segment.read_bytes(), {"x-amz-acl": "public-read"}
        assert http.put(url, content=body, headers=public).status_code == 200
    environment = {"GOOGLE_BASE_URL": store.url, "GOOGLE_SKIP_SIGNATURE": "true"}
    count = "SELECT count(*) AS n FROM predictions"
    assert ask(count, "--from", "gs://logs/public/churn", environment=environment) == [{"n": 42}]
    done = run_to_end("logs", "query", "--from", "gs://nowhere/churn", environment=environment)
    assert (done.returncode, done.stdout) == (1, "")
    assert "there is no nowhere there: correct its name" in done.stderr


def test_the_logs_own_credentials_win(store: S3Server) -> None:
    """As in a pod, whose Secret for the log may be another one than that of its models."""
    own = {f"GREENROOM_PREDICTIONS_{name}": value for name, value in store.environment.items()}
    environment = {**own, "AWS_ENDPOINT_URL": "http://127.0.0.1:1"}
    done = run_to_end("logs", "query", "--from", "s3://logs/empty", environment=environment)
    assert "s3://logs/empty has no segments" in done.stderr
