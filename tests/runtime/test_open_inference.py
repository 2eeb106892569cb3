"""The Open Inference Protocol over real HTTP: addresses, refusals, limits, and what is counted."""

import gzip
import json
import re
import struct
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx2
import pytest

from greenroom_runtime.api.exchange import Admission
from greenroom_runtime.api.open_inference.endpoint import OpenInference
from greenroom_runtime.api.predictor import Answer, Asked, Predictor
from greenroom_runtime.contract import names
from greenroom_runtime.contract.bundle import BUNDLE_FILE, Bundle
from greenroom_runtime.contract.config import Limits
from greenroom_runtime.contract.flags import Rollout, Rule
from greenroom_runtime.metrics import Metrics
from greenroom_runtime.models.batching import Batcher
from greenroom_runtime.models.residents import LoadedVersion, Serving
from greenroom_runtime.models.session import ModelSession
from tests.support.bundles import CLASSIFIER_ROWS, write_classifier, write_regressor
from tests.support.plain_http import http
from tests.support.serving import ServingProcess, flags

BODY_BYTES = 200_000
BATCH_ROWS = 50
INFER = "/v2/models/churn/infer"
DATATYPE = {"age": "FP64", "income": "FP64", "visits": "INT64", "country": "BYTES"}
LENGTH = "Inference-Header-Content-Length"


@pytest.fixture(scope="module")
def pod(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServingProcess]:
    """Serve v1, and v2 to those whom a rule chooses; v3 is resident and takes other features."""
    root = tmp_path_factory.mktemp("open-inference")
    for version in ("v1", "v2"):
        write_classifier(root / "source", version)
    write_regressor(root / "source", "v3")
    rules = (Rule(name="beta", attribute="cohorts", values=("beta",)),)
    rollout = Rollout(version="v2", hundredths=0, salt="ml/churn", rules=rules)
    limits = {"body_bytes": BODY_BYTES, "batch_rows": BATCH_ROWS}
    with ServingProcess(root / "pod", source_uri=(root / "source").as_uri(), limits=limits) as pod:
        pod.flags.write(flags("v1", "v2", "v3", rollout=rollout))
        pod.wait_settled()
        yield pod


def _request(rows: int = 1, **members: Any) -> dict[str, Any]:
    chosen = [CLASSIFIER_ROWS[number % len(CLASSIFIER_ROWS)] for number in range(rows)]
    tensors = [
        {"name": name, "shape": [rows], "datatype": datatype, "data": [row[name] for row in chosen]}
        for name, datatype in DATATYPE.items()
    ]
    return {"inputs": tensors, **members}


def _infer(pod: ServingProcess, request: Any, path: str = INFER, **headers: str) -> httpx2.Response:
    content = request if isinstance(request, bytes) else json.dumps(request).encode()
    return http.post(pod.url + path, content=content, headers=headers)


def _problem(response: httpx2.Response, status: int, kind: str) -> dict[str, Any]:
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/json"  # what some clients show no error without
    problem: dict[str, Any] = response.json()
    assert (problem["status"], problem["type"]) == (status, f"urn:greenroom:problem:{kind}")
    assert problem["error"].startswith(problem["detail"])
    return problem


def _outputs(response: httpx2.Response) -> dict[str, dict[str, Any]]:
    assert response.status_code == 200, response.text
    return {output["name"]: output for output in response.json()["outputs"]}


def test_the_answer_is_that_of_predict(pod: ServingProcess) -> None:
    """One row by either protocol: the same label and the very same scores."""
    for row in CLASSIFIER_ROWS:
        tensors = [
            {"name": name, "shape": [1, 1], "datatype": datatype, "data": [row[name]]}
            for name, datatype in DATATYPE.items()
        ]
        outputs = _outputs(_infer(pod, {"inputs": tensors}))
        expected = pod.predict(row).json()
        assert outputs["prediction"]["data"] == [expected["prediction"]]
        assert outputs["probabilities"]["data"] == list(expected["probabilities"].values())


def test_the_answer_says_who_gave_it(pod: ServingProcess) -> None:
    """Model, version and the client's id are in the body, version, reason and request id in headers."""
    response = _infer(pod, _request(3, id="mine"), **{names.HEADER_REQUEST_ID: "order-7"})
    assert response.json().items() >= {"model_name": "churn", "model_version": "v1", "id": "mine"}.items()
    assert response.headers[names.HEADER_REQUEST_ID] == "order-7"
    assert response.headers[names.HEADER_VERSION] == "v1"
    assert response.headers[names.HEADER_REASON] == "default"
    outputs = _outputs(response)
    assert (outputs["prediction"]["datatype"], outputs["prediction"]["shape"]) == ("BYTES", [3])
    assert (outputs["probabilities"]["datatype"], outputs["probabilities"]["shape"]) == ("FP32", [3, 2])
    assert outputs["probabilities"]["parameters"] == {"classes": '["no","yes"]'}
    assert _infer(pod, _request()).json()["id"]


@pytest.mark.parametrize(
    ("path", "parameters", "expected"),
    [
        (INFER, {}, ("v1", "default")),
        (INFER, {"user_id": "u1", "context": {"cohorts": ["beta"]}}, ("v2", "rule:beta")),
        (INFER, {"context": '{"cohorts": ["beta"]}'}, ("v2", "rule:beta")),
        ("/v2/models/churn/versions/v1/infer", {"context": {"cohorts": ["beta"]}}, ("v1", "path")),
        ("/v2/models/churn/versions/v2/infer", {}, ("v2", "path")),
    ],
)
@pytest.mark.parametrize("rows", [1, 3])
def test_versions_are_chosen_by_user_or_by_path(
    pod: ServingProcess, path: str, parameters: dict[str, Any], expected: tuple[str, str], rows: int
) -> None:
    """The parameters say who asks, and the path overrules them; all rows get the same version."""
    response = _infer(pod, _request(rows, parameters=parameters), path)
    assert (response.headers[names.HEADER_VERSION], response.headers[names.HEADER_REASON]) == expected
    assert response.json()["model_version"] == expected[0]


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/v2/models/churn/versions/v3", "no-such-version"),
        ("/v2/models/churn/versions/v9", "no-such-version"),
        ("/v2/models/nobody", "no-such-model"),
    ],
)
@pytest.mark.parametrize("action", ["", "/ready", "/infer"])
def test_what_is_not_there_is_not_found(pod: ServingProcess, path: str, kind: str, action: str) -> None:
    """Another model, an unknown version, and one that is resident but answers no user."""
    response = (
        _infer(pod, _request(), path + action) if action == "/infer" else http.get(pod.url + path + action)
    )
    _problem(response, 404, kind)


@pytest.mark.parametrize(
    "path",
    [
        "/v2/",
        "/v2/models",
        "/v2/models/",
        "/v2/models/churn/versions//infer",
        "/v2/models/churn/x",
        "/v2/infer",
    ],
)
def test_other_paths_are_problems(pod: ServingProcess, path: str) -> None:
    """Nothing is at them, whatever the method."""
    assert http.get(pod.url + path).status_code in (404, 405)
    assert "error" in http.get(pod.url + path).json()
    assert _infer(pod, _request(), path).status_code in (404, 405)


def test_methods_are_told(pod: ServingProcess) -> None:
    """405 says what is allowed."""
    assert http.get(pod.url + INFER).headers["allow"] == "POST"
    _problem(http.get(pod.url + INFER), 405, "method")
    assert http.post(pod.url + "/v2").headers["allow"] == "GET"
    _problem(http.post(pod.url + "/v2/health/live"), 405, "method")


def test_all_findings_are_named_at_once(pod: ServingProcess) -> None:
    """Missing, unexpected and mistyped features, in the first row that has any, and how many rows have."""
    request = _request(2)
    del request["inputs"][3]
    request["inputs"][0] |= {"datatype": "BYTES", "data": ["x", "y"]}
    problem = _problem(_infer(pod, request), 422, "features")
    assert "2 of 2 rows cannot be answered; row 0" in problem["detail"]
    assert problem["errors"][0] == {
        "row": 0,
        "feature": "age",
        "problem": "mistyped",
        "expected": "float64",
        "found": "string",
    }
    assert [error["row"] for error in problem["errors"]] == [0, 0, 1, 1]
    assert problem["error"].count("is missing") == 1
    request["inputs"].append({"name": "colour", "shape": [2], "datatype": "UINT8", "data": [1, 2]})
    problem = _problem(_infer(pod, request), 422, "features")
    assert {error["problem"] for error in problem["errors"]} == {"mistyped", "missing", "unexpected"}


def test_another_versions_features_are_let_through(pod: ServingProcess) -> None:
    """As by /predict: a client may send a feature before the version that takes it is promoted."""
    request = _request()
    request["inputs"].append({"name": "member", "shape": [1], "datatype": "BOOL", "data": [True]})
    assert _infer(pod, request).status_code == 200


def test_numbers_that_are_none_are_refused(pod: ServingProcess) -> None:
    """NaN is null where null is allowed, and neither it nor infinity is a number anywhere else."""
    request = _request()
    del request["inputs"][0]["data"], request["inputs"][1]["data"]
    for tensor in request["inputs"][:2]:
        tensor["parameters"] = {"binary_data_size": 8}
    head = json.dumps(request).encode()

    def infer(age: float, income: float) -> httpx2.Response:
        return _infer(pod, head + struct.pack("<dd", age, income), **{LENGTH: str(len(head))})

    assert infer(41.0, float("nan")).status_code == 200
    for age, income in ((float("nan"), 1.0), (float("inf"), 1.0), (41.0, float("inf"))):
        problem = _problem(infer(age, income), 422, "features")
        assert problem["errors"][0]["problem"] == "notFinite"


def test_compressed_bodies_are_bounded_by_what_they_become(pod: ServingProcess) -> None:
    """What was zipped is understood, a bomb is a 413, garbage a 400, another coding a 415."""
    packed = gzip.compress(json.dumps(_request(3)).encode())
    assert len(_outputs(_infer(pod, packed, **{"Content-Encoding": "gzip"}))["prediction"]["data"]) == 3
    bomb = gzip.compress(b" " * (BODY_BYTES + 1))
    _problem(_infer(pod, bomb, **{"Content-Encoding": "gzip"}), 413, "too-large")
    _problem(_infer(pod, b"garbage", **{"Content-Encoding": "gzip"}), 400, "compression")
    _problem(_infer(pod, packed, **{"Content-Encoding": "br"}), 415, "encoding")


def test_bodies_and_rows_are_bounded(pod: ServingProcess) -> None:
    """A body, or a number of rows, beyond the limits is a 413."""
    assert len(_outputs(_infer(pod, _request(BATCH_ROWS)))["prediction"]["data"]) == BATCH_ROWS
    _problem(_infer(pod, _request(BATCH_ROWS + 1)), 413, "too-many-rows")
    _problem(_infer(pod, b" " * (BODY_BYTES + 1)), 413, "too-large")


@pytest.mark.parametrize("header", ["7", "999999", "-1", "all"])
def test_a_header_that_lies_is_a_problem(pod: ServingProcess, header: str) -> None:
    """What is said of the JSON's size is checked against the body."""
    _problem(_infer(pod, _request(), **{LENGTH: header}), 400, "json" if header == "7" else "binary")


def test_a_large_request_is_answered_like_a_small_one(pod: ServingProcess) -> None:
    """A body that is read beside the event loop gives the same answer."""
    request = _request(2)
    expected = _outputs(_infer(pod, request))
    padded = json.dumps(request).encode() + b" " * (BODY_BYTES - 10_000)
    assert _outputs(_infer(pod, padded)) == expected


def test_outputs_as_bytes(pod: ServingProcess) -> None:
    """Asked for one by one: texts with their lengths, scores as float32, in the order of the request."""
    wanted = [
        {"name": "probabilities", "parameters": {"binary_data": True}},
        {"name": "prediction", "parameters": {"binary_data": True}},
    ]
    response = _infer(pod, _request(2, outputs=wanted))
    assert response.headers["content-type"] == "application/octet-stream"
    size = int(response.headers[LENGTH])
    head, tail = json.loads(response.content[:size]), response.content[size:]
    assert [output["name"] for output in head["outputs"]] == ["probabilities", "prediction"]
    assert [output["parameters"]["binary_data_size"] for output in head["outputs"]] == [16, 14]
    expected = _outputs(_infer(pod, _request(2)))
    assert list(struct.unpack("<4f", tail[:16])) == pytest.approx(expected["probabilities"]["data"])
    assert tail[16:] == b"".join(struct.pack("<I", 3) + b"yes" for _ in range(2))


def test_every_row_is_counted_once(pod: ServingProcess) -> None:
    """The report counts rows, and a request whose tensors cannot be read as one."""
    before = pod.report().requests
    _infer(pod, _request())
    _infer(pod, _request(3))
    _infer(pod, b"{")
    http.get(pod.url + "/v2/models/churn")
    assert pod.report().requests == before + 5


def test_a_request_is_answered_whole_or_not_at_all(pod: ServingProcess) -> None:
    """Where one row does not fit, no row counts as answered: nobody has received a prediction."""

    def counted() -> dict[str, float]:
        lines = http.get(pod.admin_url + names.METRICS_PATH).text.splitlines()
        of_v1 = [line for line in lines if line.startswith("greenroom_requests_total") and '"v1"' in line]
        return {re.findall(r'code="(\d+)"', line)[0]: float(line.rpartition(" ")[2]) for line in of_v1}

    assert _infer(pod, _request()).status_code == 200
    before = counted()
    request = _request(3)
    request["inputs"][0]["data"][1] = None
    problem = _problem(_infer(pod, request), 422, "features")
    assert "1 of 3 rows cannot be answered; row 1" in problem["detail"]
    assert [(error["row"], error["feature"]) for error in problem["errors"]] == [(1, "age")]
    after = counted()
    assert after["200"] == before["200"]
    assert after["422"] == before.get("422", 0) + 3


def test_openapi_describes_the_protocol(pod: ServingProcess) -> None:
    """Each path is in the document, with this model's tensors; its example is answered."""
    paths = http.get(pod.url + "/openapi.json").json()["paths"]
    base, named = "/v2/models/churn", "/v2/models/churn/versions/{version}"
    documented = {path for path in paths if path.startswith("/v2")}
    assert documented == {
        *("/v2", "/v2/health/live", "/v2/health/ready"),
        *(base, f"{base}/ready", f"{base}/infer", named, f"{named}/ready", f"{named}/infer"),
    }
    for path in documented:
        (method,) = paths[path].keys() - {"parameters"}
        assert method == ("post" if path.endswith("/infer") else "get")
    body = paths[INFER]["post"]["requestBody"]["content"]["application/json"]
    tensors = body["schema"]["properties"]["inputs"]["items"]["properties"]
    assert tensors["name"]["enum"] == [*DATATYPE, "numbers", "words"]
    assert _infer(pod, body["example"]).status_code == 200


def test_while_nothing_serves_it_is_alive_and_says_why(tmp_path: Path) -> None:
    """Liveness is true; readiness, metadata and inference are 503 with what is waited for."""
    write_classifier(tmp_path / "source", "v1")
    with ServingProcess(tmp_path / "pod", source_uri=(tmp_path / "source").as_uri()) as pod:
        assert http.get(pod.url + "/v2/health/live").json() == {"live": True}
        assert http.get(pod.url + "/v2").status_code == 200
        assert "/v2/models/churn/infer" in http.get(pod.url + "/openapi.json").json()["paths"]
        for path in ("/v2/health/ready", "/v2/models/churn/ready"):
            problem = _problem(http.get(pod.url + path), 503, "not-ready")
            assert problem["ready"] is False
            assert "no valid flag document" in problem["error"]
        refused = _infer(pod, _request())
        assert "Retry-After" in refused.headers
        _problem(refused, 503, "not-ready")
        _problem(http.get(pod.url + "/v2/models/churn"), 503, "not-ready")


LOOKS_BEFORE_THE_SWAP = 10


class _Swapping:
    """Residents of two versions, of which the second becomes production at the first look."""

    def __init__(self, source: Path) -> None:
        self._ready = {name: _load(source / name) for name in ("v1", "v2")}
        self.looks = 0

    @property
    def serving(self) -> Serving:
        """Return who answers."""
        self.looks += 1
        production = self._ready["v1" if self.looks <= LOOKS_BEFORE_THE_SWAP else "v2"]
        known = production.session.door.names
        return Serving(production=production, ready=self._ready, known_features=known)

    def holds(self, _: str) -> bool:
        """Hold every version that is asked about."""
        return True


def _load(directory: Path) -> LoadedVersion:
    bundle = Bundle.model_validate_json((directory / BUNDLE_FILE).read_bytes())
    session = ModelSession(directory, bundle=bundle)
    batcher = Batcher(session=session, row_seconds=1e-4, executor=ThreadPoolExecutor(1), threads=1)
    return LoadedVersion(name=directory.name, digest="", session=session, batcher=batcher)


async def test_what_is_told_of_many_rows_is_bounded(tmp_path: Path) -> None:
    """Of thousands of rows that do not fit the first ones are described, and all are counted."""
    write_classifier(tmp_path, "v1")
    write_classifier(tmp_path, "v2")
    residents: Any = _Swapping(tmp_path)
    predictor = Predictor(model="churn", residents=residents, metrics=Metrics())
    application = OpenInference(predictor=predictor, admission=Admission(limits=Limits()), version="1")
    tensor = {"name": "age", "shape": [5000], "datatype": "FP64", "data": [1.0] * 5000}
    async with httpx2.AsyncClient(transport=httpx2.ASGITransport(application)) as client:
        refused = await client.post(f"http://pod{INFER}", json={"inputs": [tensor]})
    problem = _problem(refused, 422, "features")
    assert "5000 of 5000 rows cannot be answered" in problem["detail"]
    assert len(problem["errors"]) <= 1000


async def test_no_response_is_by_two_versions(tmp_path: Path) -> None:
    """Rows that are asked together look at the versions once: a swap meanwhile does not part them."""
    write_classifier(tmp_path, "v1")
    write_classifier(tmp_path, "v2")
    residents: Any = _Swapping(tmp_path)
    predictor = Predictor(model="churn", residents=residents, metrics=Metrics())
    rows = [CLASSIFIER_ROWS[0]] * 300
    asked = [Asked(f"r/{number}", 0.0) for number in range(300)]
    residents.looks = LOOKS_BEFORE_THE_SWAP - 1
    answers = await predictor.answer_rows(asked, rows, together=True)
    assert {answer.version.name for answer in answers if isinstance(answer, Answer)} == {"v1"}
    assert (await predictor.answer_row(asked[0], rows[0])).version.name == "v2"
