"""What must not happen to requests: half states, lost counts, circles in memory, a loop that is held up."""

import asyncio
import gc
import json
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx2
import pytest
import structlog

from greenroom_runtime.api.errors import ProblemError
from greenroom_runtime.api.exchange import Admission, Endpoint, Reply, Request
from greenroom_runtime.api.open_inference.endpoint import OpenInference
from greenroom_runtime.api.predict import Predict, PredictBatch
from greenroom_runtime.api.predictor import Asked, Predictor
from greenroom_runtime.app import Runtime
from greenroom_runtime.contract import config
from greenroom_runtime.contract.bundle import BUNDLE_FILE, Bundle, Signature
from greenroom_runtime.contract.config import Limits, RuntimeConfig
from greenroom_runtime.contract.flags import Rollout
from greenroom_runtime.metrics import Metrics
from greenroom_runtime.models.batching import QUICK_SECONDS, Batcher, Run
from greenroom_runtime.models.residents import LoadedVersion, Serving
from greenroom_runtime.models.session import ModelSession, Prediction, Row
from greenroom_runtime.predictions.record import Record
from greenroom_runtime.settings import Settings
from tests.support.bundles import CLASSIFIER_ROWS, CLASSIFIER_SIGNATURE, write_classifier
from tests.support.serving import DEADLINE_SECONDS, ServingProcess, flags

ROW = dict(CLASSIFIER_ROWS[0])


class Watched(ModelSession):
    """A real session that can fail with a message, and tells in which threads it ran."""

    failure: str = ""

    def predict(self, rows: Sequence[Row]) -> list[Prediction]:
        """Answer, unless it shall fail."""
        self.threads = [*getattr(self, "threads", []), threading.current_thread()]
        if self.failure:
            raise ValueError(self.failure)
        return super().predict(rows)


class Held:
    """The versions that a pod holds, changed at once; stands for Residents."""

    def __init__(self, production: LoadedVersion, *others: LoadedVersion) -> None:
        self.hold(production, *others)

    def hold(self, production: LoadedVersion, *others: LoadedVersion) -> None:
        """Hold these from now on."""
        doors = [one.session.door for one in (production, *others)]
        self.serving = Serving(
            production=production,
            ready={one.name: one for one in (production, *others)},
            known_features=frozenset().union(*(door.names for door in doors)),
            sensitive_features=frozenset().union(*(door.sensitive for door in doors)),
        )

    @property
    def production(self) -> LoadedVersion | None:
        """Who answers."""
        return self.serving.production

    def holds(self, version: str) -> bool:
        """Tell whether it is held."""
        return version in self.serving.ready


class Records(list[Record]):
    """A prediction log that keeps its records, and which versions it was to forget."""

    def __init__(self) -> None:
        super().__init__()
        self.forgotten: list[str] = []
        self.write = self.append
        self.forget = self.forgotten.append


def _load(
    root: Path,
    name: str,
    *,
    seconds: float = QUICK_SECONDS / 10,
    secret: str = "",
    signature: Signature = CLASSIFIER_SIGNATURE,
) -> LoadedVersion:
    features = tuple(
        feature.model_copy(update={"sensitive": feature.name == secret}) for feature in signature.features
    )
    signature = signature.model_copy(update={"features": features})
    directory = write_classifier(root, name, signature=signature)
    bundle = Bundle.model_validate_json((directory / BUNDLE_FILE).read_bytes())
    session = Watched(directory, bundle=bundle)
    batcher = Batcher(session=session, row_seconds=seconds, executor=ThreadPoolExecutor(1), threads=1)
    return LoadedVersion(name=name, digest="", session=session, batcher=batcher)


def _predictor(held: Any) -> tuple[Predictor, Records]:
    records = Records()
    return Predictor(model="churn", residents=held, metrics=Metrics(), log=records), records


def _client(application: Any) -> httpx2.AsyncClient:
    return httpx2.AsyncClient(transport=httpx2.ASGITransport(application), base_url="http://pod")


async def test_a_version_that_leaves_during_a_request_keeps_its_secrets(tmp_path: Path) -> None:
    """What the version called sensitive that was asked is hidden, although nobody else calls it so."""
    leaving, staying = _load(tmp_path, "v1", seconds=1.0, secret="age"), _load(tmp_path, "v2")
    held = Held(leaving)
    predictor, records = _predictor(held)
    asking = asyncio.create_task(predictor.answer_row(Asked("r", 0.0), ROW))
    await asyncio.sleep(0)
    held.hold(staying)
    assert (await asking).version is leaving
    assert [record.sensitive for record in records] == [frozenset({"age"})]


async def test_the_last_requests_of_a_version_leave_nothing_behind(tmp_path: Path) -> None:
    """A request that ends after its version has left revives neither its series nor its account."""
    leaving, staying = _load(tmp_path, "v1", seconds=1.0), _load(tmp_path, "v2")
    held = Held(leaving)
    predictor, records = _predictor(held)
    asking = asyncio.create_task(predictor.answer_row(Asked("r", 0.0), ROW))
    await asyncio.sleep(0)
    held.hold(staying)
    predictor.forget("v1")
    await asking
    assert not predictor.metrics.requests
    assert not predictor.metrics.latency
    assert records.forgotten == ["v1", "v1"]


@pytest.fixture
def no_collection() -> Iterator[None]:
    """Do without the garbage collector."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


@pytest.mark.usefixtures("no_collection")
@pytest.mark.parametrize("seconds", [QUICK_SECONDS / 10, 1.0])
async def test_requests_leave_no_circles(tmp_path: Path, seconds: float) -> None:
    """Answered, refused or failed: a request's memory is free at once, without the garbage collector."""
    loaded = _load(tmp_path, "v1", seconds=seconds)
    predictor, _ = _predictor(Held(loaded))
    predictor.log = None
    admission = Admission(limits=Limits())
    one = Endpoint(answer=Predict(predictor=predictor), admission=admission, refusals=predictor)
    batch = PredictBatch(predictor=predictor, limits=Limits())
    many = Endpoint(answer=batch, admission=admission, refusals=predictor)
    tensors = OpenInference(predictor=predictor, admission=admission, version="1")
    begun: list[dict[str, Any]] = []
    for failure in ("", "the model fails"):
        loaded.session.failure = failure  # type: ignore[attr-defined]
        for row in (ROW, {**ROW, "age": "young"}, {}):
            await _call(one, "/predict", {"features": row}, begun)
            await _call(many, "/predict/batch", {"rows": [row, ROW]}, begun)
        await _call(one, "/predict", [], begun)
        await _call(tensors, "/v2/models/churn/infer", {"inputs": [{"name": "age"}]}, begun)
    assert {message["status"] for message in begun} == {200, 422, 500}
    assert [found for found in gc.get_objects() if isinstance(found, Request | Asked)] == []


async def _call(application: Any, path: str, document: Any, begun: list[dict[str, Any]]) -> None:
    body = json.dumps(document).encode()
    headers = [(b"content-length", b"%d" % len(body))]

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": body}

    async def send(message: dict[str, Any]) -> None:
        if message["type"] == "http.response.start":
            begun.append(message)

    await application({"method": "POST", "path": path, "headers": headers}, receive, send)


async def test_a_large_row_is_not_run_on_the_loop(tmp_path: Path) -> None:
    """A long text may take a quick model long: its run is a thread's, and a short one's is the loop's."""
    loaded = _load(tmp_path, "v1")
    predictor, _ = _predictor(Held(loaded))
    await predictor.answer_row(Asked("small", 0.0, size=1000), ROW)
    await predictor.answer_row(Asked("large", 0.0, size=1_000_000), {**ROW, "country": "x" * 1_000_000})
    on_loop = [thread is threading.main_thread() for thread in loaded.session.threads]  # type: ignore[attr-defined]
    assert on_loop == [True, False]


async def test_features_without_end_are_refused_by_their_number(tmp_path: Path) -> None:
    """Far more features than any version takes are counted, not described one by one."""
    predictor, _ = _predictor(Held(_load(tmp_path, "v1")))
    endpoint = Endpoint(
        answer=Predict(predictor=predictor), admission=Admission(limits=Limits()), refusals=predictor
    )
    many = {**ROW, **{f"f{number}": 1 for number in range(100_000)}}
    async with _client(endpoint) as client:
        response = await client.post("/predict", json={"features": many})
        members = await client.post("/predict", json=many)
    assert response.status_code == members.status_code == 422
    assert "100004 features are far more than the 4 that any version takes" in response.json()["detail"]
    assert "errors" not in response.json()
    assert members.json()["detail"].count("'") <= 40


async def test_a_failing_model_is_told_once_and_without_secrets(tmp_path: Path) -> None:
    """Two versions that fail in turns are told once each; a value of a sensitive feature never."""
    open_one, secretive = _load(tmp_path, "v1"), _load(tmp_path, "v2", secret="age")
    for version in (open_one, secretive):
        version.session.failure = "no entry for 41.0"  # type: ignore[attr-defined]
    held = Held(open_one, secretive)
    predictor, _ = _predictor(held)
    predictor.obey(flags("v1", "v2", rollout=Rollout(version="v2", hundredths=0, salt="ml/churn")))
    with structlog.testing.capture_logs() as told:
        for _ in range(3):
            for name in ("v1", "v2"):
                with suppress(ProblemError):
                    await predictor.answer_row(Asked("r", 0.0, version=name), ROW)
    assert [(line["version"], line["error"]) for line in told] == [("v1", "no entry for 41.0"), ("v2", "")]


async def test_a_fallback_is_counted_when_production_has_answered(tmp_path: Path) -> None:
    """A fallback that fails as well is an error and no fallback."""
    production = _load(tmp_path, "v1")
    predictor, _ = _predictor(Held(production))
    everybody = Rollout(version="v2", hundredths=10_000, salt="ml/churn")
    predictor.obey(flags("v1", "v2", rollout=everybody))
    assert (await predictor.answer_row(Asked("r", 0.0, user_id="ann"), ROW)).reason == "fallback"
    production.session.failure = "it fails"  # type: ignore[attr-defined]
    with pytest.raises(ProblemError):
        await predictor.answer_row(Asked("r", 0.0, user_id="ann"), ROW)
    assert predictor.metrics.counts.fallbacks == 1
    assert predictor.metrics.counts.errors == 1


async def test_who_wants_probabilities_gets_a_version_that_has_them(tmp_path: Path) -> None:
    """Where the rollout's version lacks a wanted output, production answers; it is counted once, as that."""
    outputs = CLASSIFIER_SIGNATURE.outputs.model_copy(update={"probabilities": None, "classes": None})
    without = CLASSIFIER_SIGNATURE.model_copy(update={"outputs": outputs})
    held = Held(_load(tmp_path, "v1"), _load(tmp_path, "v2", signature=without))
    predictor, records = _predictor(held)
    everybody = Rollout(version="v2", hundredths=10_000, salt="ml/churn")
    predictor.obey(flags("v1", "v2", rollout=everybody))
    inputs = [
        {"name": name, "datatype": datatype, "shape": [1], "data": [ROW[name]]}
        for name, datatype in (("age", "FP64"), ("income", "FP64"), ("visits", "INT64"), ("country", "BYTES"))
    ]
    application = OpenInference(predictor=predictor, admission=Admission(limits=Limits()), version="1")
    async with _client(application) as client:
        for wanted, version in (("probabilities", "v1"), ("prediction", "v2")):
            request = {"inputs": inputs, "outputs": [{"name": wanted}], "parameters": {"user_id": "ann"}}
            response = await client.post("/v2/models/churn/infer", json=request)
            assert response.status_code == 200, response.text
            assert response.json()["model_version"] == version
    assert [(record.version, record.reason) for record in records] == [
        ("v1", "fallback"),
        ("v2", "percentage"),
    ]


async def test_what_could_not_be_read_is_recorded_without_features(tmp_path: Path) -> None:
    """The record of a body that is no JSON has no features, rather than an empty set of them."""
    predictor, records = _predictor(Held(_load(tmp_path, "v1")))
    endpoint = Endpoint(
        answer=Predict(predictor=predictor), admission=Admission(limits=Limits()), refusals=predictor
    )
    async with _client(endpoint) as client:
        await client.post("/predict", content=b"{")
    assert [(record.status, record.features) for record in records] == [(400, None)]


async def test_a_defect_is_a_problem_document(tmp_path: Path) -> None:
    """An error that nobody expected is told, counted and recorded like any other."""

    async def fail(_: Request) -> Reply:
        message = "nobody expected this"
        raise LookupError(message)

    predictor, records = _predictor(Held(_load(tmp_path, "v1")))
    endpoint = Endpoint(answer=fail, admission=Admission(limits=Limits()), refusals=predictor)
    with structlog.testing.capture_logs() as told:
        async with _client(endpoint) as client:
            response = await client.post("/predict", content=b"")
    assert response.status_code == 500
    assert response.headers["content-type"] == "application/problem+json"
    assert response.json()["request_id"] == told[0]["request_id"] == records[0].id
    assert predictor.metrics.counts.errors == 1


def _fail_to_count(_: Run) -> None:
    message = "a defect"
    raise LookupError(message)


async def test_metrics_that_fail_keep_no_row_waiting(tmp_path: Path) -> None:
    """Rows are answered before their run is counted."""
    loaded = _load(tmp_path, "v1", seconds=1.0)
    loaded.batcher.on_run = _fail_to_count
    asyncio.get_running_loop().set_exception_handler(lambda *_: None)
    async with asyncio.timeout(DEADLINE_SECONDS):
        answers = await asyncio.gather(*(loaded.batcher.predict(row) for row in CLASSIFIER_ROWS))
    assert len(answers) == len(CLASSIFIER_ROWS)


def test_the_process_ends_although_a_thread_hangs() -> None:
    """A thread that waits for ever, as on a mount that hangs, does not keep the process."""
    program = """if True:
        import asyncio, sys, threading, uvloop
        from greenroom_runtime import __main__ as process
        class Hanging:
            async def run(self):
                asyncio.get_running_loop().run_in_executor(None, threading.Event().wait)
        sys.exit(uvloop.run(process._serve(Hanging())))
    """
    ended = subprocess.run([sys.executable, "-c", program], timeout=DEADLINE_SECONDS, check=False)
    assert ended.returncode == 0


async def test_a_part_that_fails_takes_no_records_along(tmp_path: Path) -> None:
    """Where the process ends over a defect, what was recorded before is on the disk all the same."""
    write_classifier(tmp_path / "source", "v1")
    settings = RuntimeConfig(
        name="churn",
        source_uri=(tmp_path / "source").as_uri(),
        models_dir=str(tmp_path / "models"),
        flags_path=str(tmp_path / "flags.json"),
        host="127.0.0.1",
        http_port=0,
        admin_port=0,
        prediction_log=config.PredictionLog(directory=str(tmp_path / "log")),
    )
    runtime = Runtime(settings, Settings(pod="pod-0", environment={}))

    def fail() -> None:
        message = "a defect"
        raise LookupError(message)

    record = Record("order-7", 0.0, "v1", "production", "default", "", ROW, "request", 200, 1.0)
    assert runtime.log is not None
    runtime.log.write(record)
    runtime.flag_file.poll = fail  # type: ignore[method-assign]
    with pytest.raises(LookupError):
        await runtime.run()
    assert (runtime.log.report().logged, runtime.log.report().pending) == (1, 0)
    assert b"order-7" in b"".join(path.read_bytes() for path in (tmp_path / "log").rglob("*.jsonl"))


@pytest.fixture(scope="module")
def pod(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServingProcess]:
    """Serve a classifier."""
    root = tmp_path_factory.mktemp("request-path")
    write_classifier(root / "source", "v1")
    with ServingProcess(root / "pod", source_uri=(root / "source").as_uri()) as pod:
        pod.flags.write(flags("v1"))
        pod.wait_ready("v1")
        yield pod


def _talk(pod: ServingProcess, *parts: bytes) -> bytes:
    """Send bytes in parts and return everything until the server closes the connection."""
    answer = b""
    address = ("127.0.0.1", int(pod.url.rpartition(":")[2]))
    with socket.create_connection(address, timeout=DEADLINE_SECONDS) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with suppress(ConnectionError):
            for part in parts:
                connection.sendall(part)
        with suppress(ConnectionError):
            while received := connection.recv(65536):
                answer += received
    return answer


BODY = json.dumps({"features": ROW}).encode()
UPGRADE = (
    b"POST /predict HTTP/1.1\r\nHost: pod\r\nConnection: Upgrade, HTTP2-Settings\r\n"
    b"Upgrade: h2c\r\nHTTP2-Settings: AAEAAEAAAAIAAAAB\r\n"
)


@pytest.mark.parametrize(
    "parts",
    [
        [UPGRADE + b"Content-Length: %d\r\n\r\n" % len(BODY) + BODY],
        [UPGRADE + b"Content-Length: %d\r\n\r\n" % len(BODY), BODY[:9], BODY[9:]],
        [UPGRADE + b"Transfer-Encoding: chunked\r\n\r\n%x\r\n" % len(BODY) + BODY + b"\r\n0\r\n\r\n"],
    ],
)
def test_a_wish_for_another_protocol_costs_no_body(pod: ServingProcess, parts: list[bytes]) -> None:
    """A request that offers HTTP/2 by an upgrade, as Java's client does, is answered over HTTP/1.1."""
    answer = _talk(pod, *parts)
    assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
    assert b"connection: close" in answer
    assert b'"version":"v1"' in answer


def test_a_head_without_end_is_refused(pod: ServingProcess) -> None:
    """Headers are bounded: whoever sends them for ever is answered and cut off."""
    answer = _talk(pod, b"POST /predict HTTP/1.1\r\nHost: pod\r\nX-Long: ", *[b"x" * 16_384] * 8)
    assert answer == b"" or answer.startswith(b"HTTP/1.1 400 ")
    assert pod.predict(ROW).status_code == 200


def test_pipelined_requests_are_answered_in_order(pod: ServingProcess) -> None:
    """Requests that come in one packet are answered one after the other, heads and bodies each their own."""
    requests = [
        b"POST /predict HTTP/1.1\r\nHost: pod\r\nX-Request-Id: first\r\nContent-Length: %d\r\n\r\n"
        % len(BODY)
        + BODY,
        b"HEAD /docs HTTP/1.1\r\nHost: pod\r\n\r\n",
        b"POST /predict HTTP/1.1\r\nHost: pod\r\nX-Request-Id: second\r\nContent-Length: 1\r\n\r\n{",
        b"GET /v2/health/live HTTP/1.1\r\nHost: pod\r\nConnection: close\r\n\r\n",
    ]
    heads = _talk(pod, b"".join(requests)).split(b"HTTP/1.1 ")[1:]
    assert [head[:3] for head in heads] == [b"200", b"200", b"400", b"200"]
    assert b'"request_id":"first"' in heads[0]
    assert heads[1].endswith(b"\r\n\r\n")
    assert b'"request_id":"second"' in heads[2]
    assert heads[3].endswith(b'{"live":true}')


def test_a_body_that_is_waited_for_is_asked_for(pod: ServingProcess) -> None:
    """A client that expects 100 Continue gets that first, and then its answer."""
    head = b"POST /predict HTTP/1.1\r\nHost: pod\r\nConnection: close\r\nExpect: 100-continue\r\n"
    answer = _talk(pod, head + b"Content-Length: %d\r\n\r\n" % len(BODY), BODY)
    assert answer.startswith(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n")
