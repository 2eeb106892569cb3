"""The door, over real HTTP: what is refused, how it is told, and what is let in."""

import json
import re
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urljoin

import httpx2
import pytest

from greenroom_runtime.contract import names
from tests.support.bundles import CLASSIFIER_ROWS, write_classifier, write_regressor
from tests.support.plain_http import http
from tests.support.serving import ServingProcess, flags

ROW = CLASSIFIER_ROWS[0]
BODY_BYTES = 100_000


@pytest.fixture(scope="module")
def pod(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServingProcess]:
    """Serve the classifier, with the regressor resident beside it."""
    root = tmp_path_factory.mktemp("door")
    write_classifier(root / "source", "v1")
    write_regressor(root / "source", "v2")
    limits = {"body_bytes": BODY_BYTES, "concurrency": 4}
    with ServingProcess(root / "pod", source_uri=(root / "source").as_uri(), limits=limits) as pod:
        pod.flags.write(flags("v1", "v2"))
        pod.wait_settled()
        yield pod


def _problem(response: httpx2.Response, status: int) -> dict[str, Any]:
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    problem: dict[str, Any] = response.json()
    assert problem["status"] == status
    return problem


def test_names_every_finding_at_once(pod: ServingProcess) -> None:
    """Missing, unexpected and mistyped features come in one answer, each with what was expected and found."""
    features = {"age": "41", "income": True, "visits": 3.5, "colour": "blue"}
    problem = _problem(pod.predict(features), 422)
    assert problem["errors"] == [
        {"feature": "age", "problem": "mistyped", "expected": "float64", "found": "string"},
        {"feature": "income", "problem": "mistyped", "expected": "float64 or null", "found": "true"},
        {"feature": "visits", "problem": "mistyped", "expected": "int64", "found": "number 3.5"},
        {"feature": "country", "problem": "missing", "expected": "string or null"},
        {"feature": "colour", "problem": "unexpected"},
    ]
    assert problem["errors_total"] == 5
    assert "1 missing, 1 unexpected, 3 mistyped" in problem["detail"]


@pytest.mark.parametrize(
    ("change", "fits"),
    [
        ({"age": 41}, True),
        ({"age": False}, False),
        ({"age": None}, False),
        ({"age": 1e39}, False),
        ({"income": None}, True),
        ({"income": [1]}, False),
        ({"visits": 2**63 - 1}, True),
        ({"visits": 2**63}, False),
        ({"visits": -(2**63) - 1}, False),
        ({"visits": 3.0}, False),
        ({"visits": True}, False),
        ({"country": None}, True),
        ({"country": ""}, True),
        ({"country": "never seen"}, True),
        ({"country": 47}, False),
        ({"x1": 1.0, "member": False}, True),
        ({"x1": "of another version, which is not ours to judge"}, True),
    ],
)
def test_types_are_strict(pod: ServingProcess, change: dict[str, object], *, fits: bool) -> None:
    """An int passes for a float, a bool for no number, null only where allowed; others' features pass."""
    response = pod.predict({**ROW, **change})
    assert response.status_code == (200 if fits else 422), response.text


def test_order_of_features_does_not_matter(pod: ServingProcess) -> None:
    """The model's own order is used whatever order the client sends."""
    straight = pod.predict(ROW).json()
    turned = pod.predict(dict(reversed(ROW.items()))).json()
    assert straight["probabilities"] == turned["probabilities"]


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"", 400),
        (b"\xff\xfe", 400),
        (b'{"features": {', 400),
        (b'{"features": {"age": NaN}}', 400),
        (b'{"features": {"age": 1e999}}', 400),
        (b"[" * 50_000, 400),
        (b"[]", 422),
        (b"7", 422),
        (b"{}", 422),
        (b'{"features": []}', 422),
        (b'{"features": {}, "fetaures": {}}', 422),
        (b'{"features": {}, "user_id": [1]}', 422),
        (b'{"features": {}, "context": "NO"}', 422),
        (b'{"features": {}}' + b" " * BODY_BYTES, 413),
    ],
)
def test_malformed_bodies_are_problems(pod: ServingProcess, body: bytes, status: int) -> None:
    """Garbage, the wrong shape and too much of it are each told as a problem document with a request id."""
    response = http.post(pod.url + "/predict", content=body)
    assert _problem(response, status)["request_id"] == response.headers[names.HEADER_REQUEST_ID]


def test_a_chunked_body_is_bounded_while_it_comes(pod: ServingProcess) -> None:
    """A body without a length is refused as soon as it is too large, not when it ends."""

    def endless() -> Iterator[bytes]:
        while True:
            yield b" " * 10_000

    try:
        response = http.post(pod.url + "/predict", content=endless())
    except httpx2.WriteError:
        return  # the server closed while we were still writing, which is as good an answer
    _problem(response, 413)


def test_the_list_of_findings_is_bounded(pod: ServingProcess) -> None:
    """Thousands of unexpected features give a bounded answer that still says how many they are."""
    problem = _problem(pod.predict({**ROW, **{f"f{n}": 0 for n in range(3000)}}), 422)
    assert (len(problem["errors"]), problem["errors_total"]) == (1000, 3000)


def test_methods_paths_and_encodings_are_problems(pod: ServingProcess) -> None:
    """405 says what is allowed, 404 and 415 are problem documents too."""
    refused = http.get(pod.url + "/predict")
    _problem(refused, 405)
    assert refused.headers["allow"] == "POST"
    _problem(http.get(pod.url + "/nowhere"), 404)
    _problem(http.post(pod.url + "/schema"), 405)
    packed = http.post(pod.url + "/predict", content=b"{}", headers={"Content-Encoding": "gzip"})
    _problem(packed, 415)


@pytest.mark.parametrize(
    ("given", "kept"), [("order-7:a.b", True), ("a b", False), ("x" * 129, False), ("", False)]
)
def test_request_id_is_echoed_when_sane(pod: ServingProcess, given: str, *, kept: bool) -> None:
    """A client's own id comes back; anything else is replaced by one of ours."""
    response = http.post(
        pod.url + "/predict", json={"features": ROW}, headers={names.HEADER_REQUEST_ID: given}
    )
    told = response.headers[names.HEADER_REQUEST_ID]
    assert (told == given) is kept
    assert told == response.json()["request_id"]
    assert told


def test_too_many_at_once_is_told_to_come_back(pod: ServingProcess) -> None:
    """Beyond the limit requests are refused with Retry-After, and served again once there is room."""
    address = (httpx2.URL(pod.url).host, httpx2.URL(pod.url).port)
    head = b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\nExpect: 100-continue\r\n\r\n"
    slow = [socket.create_connection(address) for _ in range(4)]
    for connection in slow:
        connection.sendall(head)
        connection.recv(64)  # "100 Continue": the request is being worked on
    refused = pod.predict(ROW)
    _problem(refused, 429)
    assert refused.headers["retry-after"] == "1"
    for connection in slow:
        connection.close()
    pod.wait_until(lambda _: pod.predict(ROW).status_code == 200)


def test_schema_describes_this_models_request(pod: ServingProcess) -> None:
    """/schema and the OpenAPI document carry the production version's real features."""
    schema = http.get(pod.url + "/schema").json()
    features = schema["properties"]["features"]
    assert features["required"] == ["age", "income", "visits", "country"]
    assert features["properties"]["income"]["type"] == ["number", "null"]
    document = http.get(pod.url + "/openapi.json").json()
    body = document["paths"]["/predict"]["post"]["requestBody"]["content"]["application/json"]["schema"]
    assert body["properties"]["features"] == features


def test_the_page_of_the_documentation_needs_no_internet(pod: ServingProcess) -> None:
    """All that /docs loads comes from the pod itself."""
    page = http.get(pod.url + "/docs").text
    loaded = [urljoin(pod.url + "/docs", path) for path in re.findall(r"""(?:src|href)=["']([^"']+)""", page)]
    assert len(loaded) >= 2
    assert all(address.startswith(pod.url) for address in loaded)
    assert all(http.get(address).status_code == 200 for address in loaded)


def test_bad_requests_leave_no_line_in_the_log(pod: ServingProcess) -> None:
    """A client cannot fill the log."""
    before = len(pod.log)
    for _ in range(20):
        pod.predict({})
    assert pod.predict(ROW).status_code == 200
    assert pod.log[before:] == []


def test_every_request_is_counted(pod: ServingProcess, tmp_path: Path) -> None:
    """The report counts each answered prediction request, refused ones included."""
    del tmp_path
    before = pod.report().requests
    pod.predict(ROW)
    http.post(pod.url + "/predict", content=b"{")
    http.get(pod.url + "/predict")
    http.get(pod.url + "/schema")
    assert pod.report().requests == before + 3
    assert json.loads(http.get(pod.admin_url + names.REPORT_PATH).content)["errors"] == 0
