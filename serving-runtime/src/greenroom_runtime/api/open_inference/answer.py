"""An inference response of the Open Inference Protocol: from answers to bytes."""

from collections.abc import Sequence
from dataclasses import replace
from itertools import chain
from typing import Any

import orjson

from greenroom_runtime.api.open_inference.layout import PREDICTION, Layout
from greenroom_runtime.api.open_inference.request import InferenceRequest, RequestedOutput
from greenroom_runtime.api.open_inference.tensors import DATATYPES, to_bytes
from greenroom_runtime.api.predict import malformed
from greenroom_runtime.api.predictor import Answer


def encode_answers(
    answers: Sequence[Answer], *, request: InferenceRequest, layout: Layout, model: str, request_id: str
) -> tuple[bytes, int | None]:
    """Return the response's body, and how much of it is JSON where bytes follow that.

    ``layout`` is that of the version that answered, one for all rows. ProblemError where that does not give
    the outputs that are wanted.
    """
    wanted = request.outputs or [RequestedOutput(name, request.binary) for name in layout.outputs]
    parts: list[bytes] = []
    document = {
        "model_name": model,
        "model_version": answers[0].version.name,
        "id": request.id or request_id,
        "outputs": [_encode(output, answers, layout, parts) for output in wanted],
    }
    head = orjson.dumps(document)
    return (b"".join((head, *parts)), len(head)) if parts else (head, None)


def _encode(
    output: RequestedOutput, answers: Sequence[Answer], layout: Layout, parts: list[bytes]
) -> dict[str, Any]:
    """Return a tensor's JSON; where it is wanted as bytes they are added to ``parts``."""
    if output.name not in layout.outputs:
        detail = f"version {answers[0].version.name} has no output {output.name!r}"
        raise replace(malformed(detail), counted=True)  # it was answered, and is told otherwise
    datatype = layout.outputs[output.name]
    shape, elements = _elements(output.name, answers)
    tensor: dict[str, Any] = {"name": output.name, "datatype": datatype, "shape": shape}
    parameters: dict[str, Any] = {}
    if layout.classes and output.name != PREDICTION:
        parameters["classes"] = layout.classes
    if output.binary:
        parts.append(to_bytes(elements, datatype=DATATYPES[datatype]))
        parameters["binary_data_size"] = len(parts[-1])
    else:
        tensor["data"] = elements
    if parameters:
        tensor["parameters"] = parameters
    return tensor


def _elements(name: str, answers: Sequence[Answer]) -> tuple[list[int], Sequence[Any]]:
    if name == PREDICTION:
        return [len(answers)], [answer.prediction for answer in answers]
    rows = [answer.probabilities or [] for answer in answers]
    return [len(rows), len(rows[0])], rows[0] if len(rows) == 1 else list(chain.from_iterable(rows))
