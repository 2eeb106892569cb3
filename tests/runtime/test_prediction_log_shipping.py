"""The prediction log's way to others: an HTTP receiver and an object store, well, slow, failing and dead."""

import signal
import socket
import subprocess
import sys
import threading
from collections import Counter, deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email.message import Message
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from random import Random
from uuid import uuid4

import obstore
import orjson
import pytest

from greenroom_runtime.contract import names
from greenroom_runtime.predictions import http
from greenroom_runtime.predictions.ledger import Counts
from greenroom_runtime.predictions.log import Bounds
from greenroom_runtime.retry_after import retry_after_seconds
from tests.support.predictions import (
    lines,
    number_of,
    prediction_log,
    record,
    refused,
    shadowed,
    total,
    wait_until,
)
from tests.support.s3 import CREDENTIALS, S3Server, s3_server

NOW = datetime(2026, 11, 23, 9, 30, tzinfo=UTC)
# Logs more than can be sent at once and says how much is acknowledged; ends only when it is killed.
_SENDING = """
import sys, time
from pathlib import Path
from tests.support.predictions import prediction_log, record, total
with prediction_log(Path(sys.argv[1]), sink="Http", uri=sys.argv[2]) as log:
    for number in range(300):
        log.write(record(number))
        time.sleep(0.0001)
    while True:
        print(total(log).logged, flush=True)
        time.sleep(0.001)
"""


@dataclass
class Receiver:
    """A real HTTP server that takes events, and fails as told."""

    server: ThreadingHTTPServer
    events: list[tuple[Message, bytes]] = field(default_factory=list)
    """Those that it has acknowledged."""
    failures: deque[tuple[int, dict[str, str]]] = field(default_factory=deque)
    """What it answers next instead of 200."""
    open: threading.Event = field(default_factory=threading.Event)
    """While it is not set requests stay without an answer."""
    asked: int = 0
    endless: bool = False
    """Whether its answers have no end."""

    @property
    def url(self) -> str:
        """Where to post."""
        return f"http://127.0.0.1:{self.server.server_port}/events"

    def ids(self) -> Counter[tuple[str, str]]:
        """Return how often each event was taken."""
        return Counter(
            (headers["ce-id"], headers["ce-type"].rpartition(".")[2]) for headers, _ in self.events
        )


@contextmanager
def receiver(port: int = 0) -> Iterator[Receiver]:
    """Run a receiver until the block ends."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            """Take one event."""
            body = self.rfile.read(int(self.headers["Content-Length"]))
            found.asked += 1
            found.open.wait()
            status, headers = found.failures.popleft() if found.failures else (200, {})
            if status == 200:
                found.events.append((self.headers, body))
            self.send_response(status)
            for name, value in {"Content-Length": "0", **headers}.items():
                self.send_header(name, value)
            self.end_headers()
            with suppress(OSError):  # nobody listens
                while found.endless:
                    self.wfile.write(b"x" * 65536)

        def do_PUT(self) -> None:
            """Take one object."""
            self.do_POST()

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    found = Receiver(ThreadingHTTPServer(("127.0.0.1", port), Handler))
    found.server.daemon_threads = True
    found.open.set()
    thread = threading.Thread(target=found.server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield found
    finally:
        found.open.set()
        found.server.shutdown()
        thread.join()
        found.server.server_close()


def unused_port() -> int:
    """Return a port on which nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as placeholder:
        port: int = placeholder.getsockname()[1]
    return port


def both(*numbers: int) -> Counter[tuple[str, str]]:
    """Return the events of these records, each taken once."""
    return Counter((f"request-{number}", kind) for number in numbers for kind in ("request", "response"))


def test_a_record_becomes_two_events_as_kserve_sends_them(tmp_path: Path) -> None:
    """Binary CloudEvents with KServe's types and attributes; the two bodies together are the record."""
    with receiver() as there, prediction_log(tmp_path, sink="Http", uri=there.url) as log:
        log.write(record(7, role="rollout", version="v2"))
        wait_until(lambda: len(there.events) == 2 and total(log).logged == 1, told=log.report)
        (request, request_body), (response, response_body) = there.events
    assert (request["ce-type"], response["ce-type"]) == (http.REQUEST_TYPE, http.RESPONSE_TYPE)
    for headers in (request, response):
        assert {name.lower(): headers[name] for name in headers if name.lower().startswith("ce-")} == {
            "ce-specversion": "1.0",
            "ce-id": "request-7",
            "ce-type": headers["ce-type"],
            "ce-source": "/greenroom.dev/ml/churn",
            "ce-time": "2026-11-18T11:06:47.250000Z",
            "ce-inferenceservicename": "churn",
            "ce-namespace": "ml",
            "ce-component": "predictor",
            "ce-endpoint": "canary",
        }
        assert headers["Content-Type"] == "application/json"
    asked, answered = orjson.loads(request_body), orjson.loads(response_body)
    assert asked["features"] == record().features
    assert "features" not in answered
    assert answered["prediction"] == "yes"
    with prediction_log(tmp_path / "files") as files:
        files.write(record(7, role="rollout", version="v2"))
    assert [asked | answered] == lines(tmp_path / "files")
    assert log.delivered == 1
    assert not list(tmp_path.glob("*.jsonl"))


def test_a_shadows_record_becomes_events_of_another_source(tmp_path: Path) -> None:
    """Production's events have the same id, so the source differs; the comparison is in the response."""
    with receiver() as there, prediction_log(tmp_path, sink="Http", uri=there.url) as log:
        log.write(shadowed(7, "disagreed"))
        wait_until(lambda: len(there.events) == 2 and total(log).logged == 1, told=log.report)
        (request, request_body), (_, response_body) = there.events
    assert (request["ce-source"], request["ce-id"]) == ("/greenroom.dev/ml/churn/shadow", "request-7")
    assert request["ce-endpoint"] == "shadow"
    with prediction_log(tmp_path / "files") as files:
        files.write(shadowed(7, "disagreed"))
    assert [orjson.loads(request_body) | orjson.loads(response_body)] == lines(tmp_path / "files")


def test_a_failing_receiver_gets_everything_in_the_end(tmp_path: Path) -> None:
    """Errors, requests for patience and redirects are retried until each event was taken."""
    with receiver() as there, prediction_log(tmp_path, sink="Http", uri=there.url) as log:
        there.failures.extend([(500, {}), (429, {"Retry-After": "0"}), (503, {}), (302, {}), (404, {})] * 4)
        for number in range(50):
            log.write(record(number))
        wait_until(lambda: total(log).logged == 50 and not log.report().error, told=log.report)
        assert there.ids().keys() == both(*range(50)).keys()
        assert there.ids().total() <= 100 + 20  # an event may come again with its record's other one
        assert log.delivered == 50
    assert total(log) == Counts(logged=50)


def test_a_dead_receiver_is_told_and_waited_for(tmp_path: Path) -> None:
    """While nobody listens records wait on the disk; when the receiver is there it gets them all."""
    port = unused_port()
    with prediction_log(
        tmp_path,
        sink="Http",
        uri=f"http://127.0.0.1:{port}/",
        environment={http.AUTHORIZATION: "Bearer hush"},
    ) as log:
        for number in range(20):
            log.write(record(number))
        wait_until(lambda: log.report().error, told=log.report)
        assert f"http://127.0.0.1:{port} cannot be reached" in log.report().error
        assert "hush" not in log.report().error
        assert total(log) == Counts(pending=20)
        with receiver(port) as there:
            wait_until(lambda: total(log).logged == 20, told=log.report)
            assert there.ids() == both(*range(20))
            assert {headers["Authorization"] for headers, _ in there.events} == {"Bearer hush"}


def test_a_slow_receiver_slows_nobody(tmp_path: Path) -> None:
    """While a receiver does not answer records are taken as ever, and few requests wait on it."""
    with receiver() as there, prediction_log(tmp_path, sink="Http", uri=there.url) as log:
        there.open.clear()
        for number in range(300):
            log.write(record(number))
        wait_until(lambda: there.asked > 0)
        wait_until(lambda: not log._queue.waiting and not len(log._writer._batch))
        assert total(log) == Counts(pending=300)
        assert there.asked <= 8
        there.open.set()
        log.close(60)
        assert there.ids() == both(*range(300))
    assert total(log) == Counts(logged=300)


def test_what_a_receiver_refuses_for_good_is_dropped(tmp_path: Path) -> None:
    """An event that is refused as malformed does not hold up the others, and its record counts as dropped."""
    with receiver() as there, prediction_log(tmp_path, sink="Http", uri=there.url) as log:
        there.failures.append((400, {}))
        log.write(record(0))
        wait_until(lambda: not total(log).pending)
        log.write(refused(1))
        wait_until(lambda: not total(log).pending)
    assert total(log) == Counts(logged=1, dropped=1)
    assert log.delivered == 1


def test_an_answer_without_an_end_is_not_read(tmp_path: Path) -> None:
    """What a receiver says beside its status is of no interest: it takes neither memory nor time."""
    with receiver() as there, prediction_log(tmp_path, sink="Http", uri=there.url) as log:
        there.endless = True
        there.failures.extend([(200, {"Content-Length": str(2**40)})] * 2)
        log.write(record(0))
        wait_until(lambda: total(log).logged == 1 or log.report().error, told=log.report)
        assert total(log).logged == 1, log.report()
        there.endless = False


def test_the_oldest_unsent_records_make_room(tmp_path: Path) -> None:
    """With a receiver that stays away the disk's share is kept; what had to go counts as dropped."""
    share = 1024 * 1024
    bounds = Bounds(sync_seconds=0.005, batch_bytes=16 * 1024, line_bytes=16 * 1024, http_seconds=0.01)
    uri = f"http://127.0.0.1:{unused_port()}/"
    with prediction_log(tmp_path, sink="Http", uri=uri, max_disk_bytes=share, bounds=bounds) as log:
        for number in range(10_000):
            log.write(record(number))
            if number % 1000 == 999:
                wait_until(lambda: not log._queue.waiting and not len(log._writer._batch))
        waiting = total(log)
        assert waiting.dropped > 1000
        assert waiting.pending > 1000
        assert number_of(waiting) == 10_000
        assert sum(path.stat().st_blocks * 512 for path in tmp_path.iterdir()) <= share
        log.close(5)
    left = lines(tmp_path)
    assert total(log) == Counts(logged=len(left), dropped=10_000 - len(left))
    assert left[-1]["id"] == "request-9999"


@pytest.mark.parametrize("seed", range(3))
def test_the_accounts_are_the_truth(tmp_path: Path, seed: int) -> None:
    """Whatever fails, what counts as logged is what the receiver has or the disk holds, to the record."""
    random = Random(seed)  # noqa: S311 the same faults each time
    bounds = Bounds(
        sync_seconds=0.002,
        queue_records=400,
        batch_bytes=8 * 1024,
        line_bytes=8 * 1024,
        segment_seconds=0.02,
        http_seconds=0.0,
        retry_seconds=0.001,
        longest_retry_seconds=0.002,
    )
    written = 0
    with (
        receiver() as there,
        prediction_log(
            tmp_path, sink="Http", uri=there.url, percent=90, max_disk_bytes=1, bounds=bounds
        ) as log,
    ):
        for _ in range(60):
            there.failures.extend(
                (random.choice([200, 500, 503, 429]), {}) for _ in range(random.randrange(9))
            )
            for _ in range(random.randrange(200)):
                log.write(record(written, version=f"v{random.randrange(3)}"))
                written += 1
            if random.random() < 0.2:
                log.forget(f"v{random.randrange(3)}")
            (there.open.clear if random.random() < 0.2 else there.open.set)()
            assert number_of(total(log)) == written
            wait_until(lambda: not log._queue.waiting)
        there.open.set()
        wait_until(lambda: not len(log._writer._batch))
        log.close(random.choice([0.0, 0.2]))
        log._writer._thread.join()  # no time at all is not enough for sealing the last segment
        counts = total(log)
    received = {identity for identity, kind in there.ids() if kind == "response"}
    left = {line["id"] for line in lines(tmp_path)}
    assert (number_of(counts), counts.pending) == (written, 0)
    assert counts.logged == len(received | left)
    assert counts.logged > 100


def test_what_was_not_sent_is_sent_by_the_next_process(tmp_path: Path) -> None:
    """The end does not wait for a dead receiver; what it leaves is adopted, and accounted for once."""
    port = unused_port()
    with prediction_log(tmp_path, sink="Http", uri=f"http://127.0.0.1:{port}/") as log:
        for number in range(10):
            log.write(record(number))
        log.close(60)
        assert total(log) == Counts(logged=10)
    with (
        receiver(port) as there,
        prediction_log(tmp_path, sink="Http", uri=there.url) as after,
    ):
        wait_until(lambda: after.delivered == 10, told=after.report)
        assert there.ids() == both(*range(10))
        assert total(after) == Counts()
    assert not list(tmp_path.glob("*.jsonl"))


def test_a_killed_process_s_records_arrive(tmp_path: Path) -> None:
    """After SIGKILL in the middle of sending the next process sends the rest, with no gap in between."""
    with receiver() as there:
        with subprocess.Popen(
            [sys.executable, "-c", _SENDING, str(tmp_path), there.url], stdout=subprocess.PIPE, text=True
        ) as process:
            assert process.stdout is not None
            told = next(line for line in process.stdout if int(line))
            process.send_signal(signal.SIGKILL)
        with prediction_log(tmp_path, sink="Http", uri=there.url) as log:
            wait_until(lambda: not list(tmp_path.glob("0*")), told=log.report)
            assert total(log) == Counts()
        numbers = sorted({int(identity.removeprefix("request-")) for identity, _ in there.ids()})
    assert int(told) <= len(numbers)
    assert numbers == list(range(len(numbers)))
    assert there.ids().keys() == both(*numbers).keys()


def test_segments_that_vanish_are_dropped(tmp_path: Path) -> None:
    """When somebody removes what waits to be sent, it is counted, and the rest is sent."""
    port = unused_port()
    bounds = Bounds(sync_seconds=0.01, segment_seconds=0.0, retry_seconds=0.01, longest_retry_seconds=0.05)
    with prediction_log(tmp_path, sink="Http", uri=f"http://127.0.0.1:{port}/", bounds=bounds) as log:
        for number in range(2):
            log.write(record(number))
            wait_until(lambda number=number: len(list(tmp_path.glob("*.jsonl"))) == number + 1)  # type: ignore[misc]
        sorted(tmp_path.glob("*.jsonl"))[1].unlink()
        with receiver(port) as there:
            wait_until(lambda: not total(log).pending, told=log.report)
            assert there.ids() == both(0)
    assert total(log) == Counts(logged=1, dropped=1)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("", 0),
        ("120", 120),
        ("soon", 0),
        ("-5", 0),
        (format_datetime(NOW - timedelta(hours=1), usegmt=True), 0),
    ],
)
def test_retry_after_is_read(text: str, seconds: float) -> None:
    """Seconds, a date, or nonsense that asks for nothing."""
    assert retry_after_seconds(text, now=NOW) == seconds


def test_retry_after_may_be_a_date() -> None:
    """A date in the future is a wait until then."""
    later = NOW + timedelta(hours=1)
    assert retry_after_seconds(format_datetime(later, usegmt=True), now=NOW) == 3600


@pytest.mark.parametrize(
    ("sink", "uri"),
    [
        ("Http", ""),
        ("Http", "s3://logs"),
        ("Http", "http://"),
        ("Http", "http://user:hush@collector/events"),
        ("Http", "user:hush@collector/events"),
        ("Http", "http://collector:99999/events?token=hush"),
        ("ObjectStore", ""),
        ("ObjectStore", "http://x/y"),
        ("ObjectStore", "s3://logs?token=hush"),
    ],
)
def test_an_address_that_is_none_drops_everything(tmp_path: Path, sink: str, uri: str) -> None:
    """A log that could never send anything says what an address looks like, and accounts for each record."""
    with prediction_log(tmp_path / "log", sink=sink, uri=uri, percent=50) as log:
        for number in range(100):
            log.write(record(number))
        counts = total(log)
        assert (number_of(counts), counts.logged, counts.pending) == (100, 0, 0)
        assert counts.dropped > 0
        assert any(word in log.report().error for word in ("use ", "put them", "Port"))
        assert "hush" not in log.report().error
        assert not (tmp_path / "log").exists()
    assert total(log) == counts


def test_the_end_is_bounded_while_something_is_sent(tmp_path: Path) -> None:
    """Of its time to end the log keeps what breaking off takes: together they are never longer."""
    waits: list[float | None] = []

    class Thread(threading.Thread):
        def join(self, timeout: float | None = None) -> None:
            waits.append(timeout)

    with receiver() as there, prediction_log(tmp_path, sink="Http", uri=there.url) as log:
        there.open.clear()
        log.write(record(0))
        wait_until(lambda: there.asked > 0)
        for deadline in (0.0, 0.5, 5.0):
            thread = Thread()
            shipper = log._shipper
            assert shipper is not None
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(shipper, "_thread", thread)
                patch.setattr(shipper, "_call", lambda _: None)
                shipper.close(deadline)
            assert sum(wait or 0.0 for wait in waits) == deadline
            waits.clear()
        there.open.set()


@pytest.fixture(scope="module")
def server() -> Iterator[S3Server]:
    """Run one S3 server for all of these tests."""
    with s3_server() as server:
        yield server


def objects(server: S3Server, bucket: str) -> dict[str, bytes]:
    """Return a bucket's objects by key."""
    store = server.store(bucket)
    keys = [meta["path"] for page in obstore.list(store) for meta in page]
    return {key: bytes(obstore.get(store, key).bytes()) for key in keys}


def with_credentials(monkeypatch: pytest.MonkeyPatch, server: S3Server) -> dict[str, str]:
    """Put the server's credentials where the client library looks for them."""
    for name, value in server.environment.items():
        monkeypatch.setenv(name, value)
    return server.environment


def test_segments_become_objects(tmp_path: Path, server: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each sealed segment is one object below model and day, and leaves the disk once it is there."""
    environment = with_credentials(monkeypatch, server)
    server.create_bucket("logs")
    bounds = Bounds(sync_seconds=0.01, segment_bytes=64 * 1024, batch_bytes=32 * 1024)
    with prediction_log(
        tmp_path, sink="ObjectStore", uri="s3://logs/greenroom/", environment=environment, bounds=bounds
    ) as log:
        for number in range(1000):
            log.write(record(number))
        log.close(60)
    assert total(log) == Counts(logged=1000)
    assert log.delivered == 1000
    stored = objects(server, "logs")
    assert len(stored) > 1
    today = datetime.now(UTC).date()
    days = {f"greenroom/ml/churn/date={day}" for day in (today, today - timedelta(days=1))}
    assert {key.rpartition("/")[0] for key in stored} <= days
    assert all(key.endswith(".jsonl") and "-pod-0-" in key for key in stored)
    ids = [orjson.loads(line)["id"] for key in sorted(stored) for line in stored[key].splitlines()]
    assert ids == [f"request-{number}" for number in range(1000)]
    assert not list(tmp_path.glob("*.jsonl"))


def test_a_store_that_is_away_gets_each_segment_once(
    tmp_path: Path, server: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A bucket that does not exist yet is waited for; a segment that is put again is the same object."""
    environment = with_credentials(monkeypatch, server)
    bounds = Bounds(sync_seconds=0.01, segment_seconds=0.0, retry_seconds=0.01, longest_retry_seconds=0.05)
    bucket = f"later-{uuid4().hex}"
    uri = f"s3://{bucket}/logs"
    with prediction_log(tmp_path, sink="ObjectStore", uri=uri, environment=environment, bounds=bounds) as log:
        log.write(record(0))
        wait_until(lambda: "cannot be put" in log.report().error)
        assert total(log) == Counts(pending=1)
        (waiting,) = tmp_path.glob("*.jsonl")
        content = waiting.read_bytes()
        server.create_bucket(bucket)
        wait_until(lambda: total(log).logged == 1 and not log.report().error, told=log.report)
    assert list(objects(server, bucket).values()) == [content]
    waiting.write_bytes(content)  # as if the process had died between the put and the removal
    with prediction_log(
        tmp_path, sink="ObjectStore", uri=uri, environment=environment, bounds=bounds
    ) as again:
        wait_until(lambda: again.delivered == 1, told=again.report)
    assert list(objects(server, bucket).values()) == [content]


def test_the_log_may_have_credentials_of_its_own(
    tmp_path: Path, server: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Variables with the log's prefix win over those that the source uses; unknown ones are told."""
    for name in server.environment:
        monkeypatch.delenv(name, raising=False)
    server.create_bucket("own")
    environment = {"AWS_ENDPOINT_URL": f"http://127.0.0.1:{unused_port()}"}
    environment |= {f"{names.ENV_LOG_PREFIX}{name}": value for name, value in server.environment.items()}
    with prediction_log(tmp_path, sink="ObjectStore", uri="s3://own", environment=environment) as log:
        log.write(record(0))
    assert log.delivered == 1
    assert len(objects(server, "own")) == 1
    environment[f"{names.ENV_LOG_PREFIX}AWS_SECRET"] = "hush"
    with prediction_log(tmp_path, sink="ObjectStore", uri="s3://own", environment=environment) as log:
        log.write(record(1))
        assert total(log) == Counts(dropped=1)
        assert "aws_secret" in log.report().error
        assert "hush" not in log.report().error


def test_own_keys_are_used_as_a_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The session token of the source's keys goes nowhere with the log's own: no store would take it."""
    monkeypatch.setenv("AWS_SESSION_TOKEN", "of the source")
    with receiver() as there:
        there.failures.append((200, {"ETag": '"1"'}))
        own = {**CREDENTIALS, "AWS_ENDPOINT_URL": there.url}
        environment = {f"{names.ENV_LOG_PREFIX}{name}": value for name, value in own.items()}
        with prediction_log(tmp_path, sink="ObjectStore", uri="s3://logs", environment=environment) as log:
            log.write(record(0))
        assert log.delivered == 1
        ((headers, _),) = there.events
    assert CREDENTIALS["AWS_ACCESS_KEY_ID"] in headers["Authorization"]
    assert "x-amz-security-token" not in headers
