"""Other projects' clients of the Open Inference Protocol, unchanged, against a serving process."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from greenroom_runtime.contract.flags import Rollout, Rule
from tests.support.bundles import (
    CLASSIFIER_ROWS,
    REGRESSOR_ROWS,
    classify,
    regress,
    write_classifier,
    write_regressor,
)
from tests.support.clients import run_client
from tests.support.serving import ServingProcess, flags

BIAS = -9.0
"""Of version v2, which therefore says no."""
EXPECTED = [classify(row, 0.0) for row in CLASSIFIER_ROWS]

TRITON = """
import numpy as np
import tritonclient.http as http
from tritonclient.utils import InferenceServerException

client = http.InferenceServerClient(url.removeprefix("http://"))

def tensor(name, datatype, values, *, binary):
    array = np.array(values)
    one = http.InferInput(name, list(array.shape), datatype)
    one.set_data_from_numpy(array, binary_data=binary)
    return one

def inputs(*, binary, rows=slice(None)):
    return [
        tensor("age", "FP64", np.array([41.0, 19.0, 77.25, 33.0])[rows], binary=binary),
        tensor("income", "FP64", np.array([52000.5, np.nan, 0.0, 1e6])[rows] if binary
               else np.array([52000.5, 0.0, 0.0, 1e6])[rows], binary=binary),
        tensor("visits", "INT32", np.array([3, 0, 250, 12], dtype=np.int32)[rows], binary=binary),
        tensor("country", "BYTES", np.array(["NO", "SE", "", "XX"], dtype=object)[rows], binary=binary),
    ]

def answer(result):
    label, scores = result.as_numpy("prediction"), result.as_numpy("probabilities")
    return {
        "labels": [one.decode() if isinstance(one, bytes) else str(one) for one in label.tolist()],
        "shapes": [list(label.shape), list(scores.shape)],
        "scores": scores.tolist(),
        "dtype": str(scores.dtype),
        "version": result.get_response()["model_version"],
        "id": result.get_response()["id"],
        "classes": result.get_output("probabilities")["parameters"]["classes"],
    }

def refused(**request):
    try:
        client.infer(**{"model_name": "churn", "inputs": inputs(binary=True)} | request)
    except InferenceServerException as error:
        return [error.status(), error.message()]

found["live"] = client.is_server_live()
found["ready"] = client.is_server_ready()
found["models"] = [client.is_model_ready("churn"), client.is_model_ready("churn", "v2"),
                   client.is_model_ready("churn", "v3"), client.is_model_ready("nobody")]
found["server"] = client.get_server_metadata()
found["model"] = client.get_model_metadata("churn")
found["binary"] = answer(client.infer("churn", inputs(binary=True), request_id="order-7"))
wanted = [http.InferRequestedOutput(name, binary_data=False) for name in ("prediction", "probabilities")]
found["json"] = answer(client.infer("churn", inputs(binary=False), outputs=wanted))
for coding in ("gzip", "deflate"):
    found[coding] = answer(client.infer("churn", inputs(binary=True), request_compression_algorithm=coding,
                                        response_compression_algorithm=coding))
matrices = [
    tensor("numbers", "FP32", np.array([[3, 41.0, 52000.5], [0, 19, np.nan]], dtype=np.float32), binary=True),
    tensor("words", "BYTES", np.array([["NO"], ["SE"]], dtype=object), binary=True),
]
found["matrices"] = answer(client.infer("churn", matrices))
found["v2"] = answer(client.infer("churn", inputs(binary=True), model_version="v2"))
found["rule"] = answer(client.infer("churn", inputs(binary=True),
                                    parameters={"user_id": "u1", "context": '{"country": "NO"}'}))
only = [http.InferRequestedOutput("probabilities")]
told = client.infer("churn", inputs(binary=True), outputs=only).get_response()
found["only"] = [one["name"] for one in told["outputs"]]
text = tensor("age", "BYTES", np.array(["x"] * 4, dtype=object), binary=True)
found["refused"] = {
    "missing": refused(inputs=inputs(binary=True)[1:]),
    "mistyped": refused(inputs=[*inputs(binary=True)[1:], text]),
    "rows": refused(inputs=inputs(binary=True, rows=slice(2))[:2] + inputs(binary=True)[2:]),
    "output": refused(outputs=[http.InferRequestedOutput("nothing")]),
    "classification": refused(outputs=[http.InferRequestedOutput("probabilities", class_count=2)]),
    "model": refused(model_name="nobody"),
    "version": refused(model_version="v3"),
}
"""

KSERVE = """
import asyncio
import numpy as np
from kserve import InferenceRESTClient, InferInput, InferRequest, RESTConfig
from kserve.protocol.infer_type import RequestedOutput

def request(*, binary, **changes):
    values = {
        "age": np.array([41.0, 19.0, 77.25, 33.0]),
        "income": np.array([52000.5, 0.0, 0.0, 1e6]),
        "visits": np.array([3, 0, 250, 12]),
        "country": np.array(["NO", "SE", "", "XX"], dtype=object),
    }
    inputs = []
    for name, datatype in (("age", "FP64"), ("income", "FP64"), ("visits", "INT64"), ("country", "BYTES")):
        one = InferInput(name, list(values[name].shape), datatype)
        one.set_data_from_numpy(values[name], binary_data=binary)
        inputs.append(one)
    return InferRequest(**{"model_name": "churn", "infer_inputs": inputs} | changes)

def answer(response):
    labels, scores = response.outputs
    return {
        "labels": labels.data,
        "scores": scores.as_numpy().tolist(),
        "shape": list(scores.shape),
        "id": response.id,
        "model": response.model_name,
    }

async def main():
    async with InferenceRESTClient(RESTConfig(protocol="v2")) as client:
        found["live"] = await client.is_server_live(url)
        found["ready"] = await client.is_server_ready(url)
        found["model_ready"] = await client.is_model_ready(url, "churn")
        found["other_ready"] = await client.is_model_ready(url, "nobody")
        told = {}
        response = await client.infer(url, request(binary=False, request_id="order-8"), model_name="churn",
                                      response_headers=told)
        found["json"] = answer(response)
        found["version"] = told["x-model-version"]
        asked = request(binary=True, parameters={"binary_data_output": True, "user_id": "u1"})
        found["binary"] = answer(await client.infer(url, asked, model_name="churn"))
        asked = request(binary=False, parameters={"context": {"country": "NO"}})
        await client.infer(url, asked, model_name="churn", response_headers=told)
        found["rule"] = told["x-version-reason"]
        asked = request(binary=True, request_outputs=[RequestedOutput("prediction", {"binary_data": False})])
        response = await client.infer(url, asked, model_name="churn")
        found["only"] = [one.name for one in response.outputs]
        asked = request(binary=False)
        del asked.inputs[0]
        try:
            await client.infer(url, asked, model_name="churn")
        except Exception as error:
            found["error"] = str(error)

asyncio.run(main())
"""

REGRESSION = """
import numpy as np
import tritonclient.http as http

client = http.InferenceServerClient(url.removeprefix("http://"))
found["outputs"] = client.get_model_metadata("churn")["outputs"]
values = {
    "x1": np.array([1.0, -3.5, 1e3]),
    "x2": np.array([2.0, 0.25, 1e-3]),
    "member": np.array([True, False, True]),
}
inputs = []
for name, datatype in (("x1", "FP64"), ("x2", "FP64"), ("member", "BOOL")):
    inputs.append(http.InferInput(name, [3], datatype).set_data_from_numpy(values[name]))
result = client.infer("churn", inputs)
found["features"] = result.as_numpy("prediction").tolist()
matrix = np.column_stack([values["x1"], values["x2"], values["member"].astype(float)])
result = client.infer("churn", [http.InferInput("x", [3, 3], "FP64").set_data_from_numpy(matrix)])
found["matrix"] = result.as_numpy("prediction").tolist()
"""


@pytest.fixture(scope="module")
def pod(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServingProcess]:
    """Serve v1 to everybody but the Norwegians, who get v2; v3 is resident and answers nobody."""
    root = tmp_path_factory.mktemp("clients")
    write_classifier(root / "source", "v1")
    write_classifier(root / "source", "v2", bias=BIAS)
    write_regressor(root / "source", "v3")
    rules = (Rule(name="norway", attribute="country", values=("NO",)),)
    rollout = Rollout(version="v2", hundredths=0, salt="ml/churn", rules=rules)
    with ServingProcess(root / "pod", source_uri=(root / "source").as_uri()) as pod:
        pod.flags.write(flags("v1", "v2", "v3", rollout=rollout))
        pod.wait_settled()
        yield pod


@pytest.fixture(scope="module")
def triton(pod: ServingProcess) -> dict[str, Any]:
    """Return what a user of tritonclient has seen."""
    return run_client(TRITON, pod.url)


@pytest.fixture(scope="module")
def kserve(pod: ServingProcess) -> dict[str, Any]:
    """Return what a user of the kserve client has seen."""
    return run_client(KSERVE, pod.url)


def _check(answer: dict[str, Any], *, rows: int = 4) -> None:
    assert answer["labels"] == [label for label, _ in EXPECTED[:rows]]
    for found, (_, scores) in zip(answer["scores"], EXPECTED[:rows], strict=True):
        assert found == pytest.approx(scores, abs=1e-6)


def test_triton_sees_server_and_model(triton: dict[str, Any]) -> None:
    """Liveness, readiness and metadata are what tritonclient asks for."""
    assert (triton["live"], triton["ready"]) == (True, True)
    assert triton["models"] == [True, True, False, False]
    assert triton["server"]["extensions"] == ["binary_tensor_data"]
    model = triton["model"]
    assert (model["name"], model["versions"], model["platform"]) == (
        "churn",
        ["v1", "v2"],
        "onnxruntime_onnx",
    )
    assert [(one["name"], one["datatype"], one["shape"]) for one in model["inputs"]] == [
        ("age", "FP64", [-1]),
        ("income", "FP64", [-1]),
        ("visits", "INT64", [-1]),
        ("country", "BYTES", [-1]),
    ]
    assert [(one["name"], one["datatype"], one["shape"]) for one in model["outputs"]] == [
        ("prediction", "BYTES", [-1]),
        ("probabilities", "FP32", [-1, 2]),
    ]


@pytest.mark.parametrize("how", ["binary", "json", "gzip", "deflate"])
def test_triton_gets_the_training_pipelines_answers(triton: dict[str, Any], how: str) -> None:
    """Named features as bytes, as JSON and compressed are answered as the pipeline does; NaN is null."""
    answer = triton[how]
    _check(answer)
    assert answer["shapes"] == [[4], [4, 2]]
    assert (answer["dtype"], answer["version"], answer["classes"]) == ("float32", "v1", '["no","yes"]')


def test_triton_may_speak_in_the_graphs_tensors(triton: dict[str, Any]) -> None:
    """A matrix for each of the graph's inputs is answered like the features that are its columns."""
    _check(triton["matrices"], rows=2)


def test_triton_addresses_versions_and_users(triton: dict[str, Any]) -> None:
    """A version by path, and a rollout's version by what the parameters say of the user."""
    assert triton["binary"]["id"] == "order-7"
    assert triton["v2"]["version"] == triton["rule"]["version"] == "v2"
    assert set(triton["v2"]["labels"]) == {"no"}
    assert triton["only"] == ["probabilities"]


def test_triton_tells_its_user_what_is_wrong(triton: dict[str, Any]) -> None:
    """Each refusal reaches the user as a sentence with what to change."""
    told = triton["refused"]
    expected = {
        "missing": ("422", "'age' is missing, expected float64"),
        "mistyped": ("422", "'age' is mistyped, expected float64, found string"),
        "rows": ("422", "'visits': it has 4 rows, the first tensor has 2"),
        "output": ("422", "it gives prediction, probabilities"),
        "classification": ("422", "ask for the output `probabilities`"),
        "model": ("404", "there is no model 'nobody' here, only 'churn'"),
        "version": ("404", "version 'v3' of 'churn' is not routable"),
    }
    for name, (status, text) in expected.items():
        assert told[name][0] == status
        assert text in told[name][1]


def test_kserve_sees_server_and_model(kserve: dict[str, Any]) -> None:
    """Liveness and readiness are read from the bodies, a model's readiness from the status."""
    assert (kserve["live"], kserve["ready"]) == (True, True)
    assert (kserve["model_ready"], kserve["other_ready"]) == (True, False)


@pytest.mark.parametrize("how", ["binary", "json"])
def test_kserve_gets_the_training_pipelines_answers(kserve: dict[str, Any], how: str) -> None:
    """Named features as bytes, with answers as bytes, and as JSON."""
    expected = {"labels": [label for label, _ in EXPECTED], "shape": [4, 2], "model": "churn"}
    assert expected.items() <= kserve[how].items()
    assert kserve["json"]["id"] == "order-8"
    assert kserve["version"] == "v1"


def test_kserve_addresses_users_and_outputs(kserve: dict[str, Any]) -> None:
    """The parameters say who asks, an object for the context included; outputs can be chosen."""
    assert kserve["rule"] == "rule:norway"
    assert kserve["only"] == ["prediction"]


def test_kserve_tells_its_user_what_is_wrong(kserve: dict[str, Any]) -> None:
    """The client's exception says which feature is missing."""
    assert "'age' is missing, expected float64" in kserve["error"]


def test_triton_and_a_regressor(tmp_path: Path) -> None:
    """Numbers and booleans by name, or as the graph's one matrix, give the regressor's numbers."""
    write_regressor(tmp_path / "source", "v1", bias=0.5)
    with ServingProcess(tmp_path / "pod", source_uri=(tmp_path / "source").as_uri()) as pod:
        pod.flags.write(flags("v1"))
        pod.wait_ready("v1")
        found = run_client(REGRESSION, pod.url)
    expected = [regress(row, 0.5) for row in REGRESSOR_ROWS]
    assert found["outputs"] == [{"name": "prediction", "datatype": "FP64", "shape": [-1]}]
    assert found["features"] == found["matrix"] == pytest.approx(expected)
