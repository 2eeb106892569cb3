"""How a row is asked about, and how the answer is read: ours, and each peer's own."""

import json
import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.serving.model import NAME, Answer, Row
from benchmarks.serving.process import Response
from benchmarks.serving.servers.scoring import NUMBERS, NUMERIC_INPUT, TEXT_INPUT, TEXTS

_JSON_LENGTH = "Inference-Header-Content-Length"
"""Of the binary tensor extension: how much of a body is JSON."""
_NUMPY = {"INT64": "<i8", "FP32": "<f4", "FP64": "<f8"}


@dataclass(frozen=True, kw_only=True)
class Question:
    """What is sent for one row."""

    body: bytes
    headers: Mapping[str, str]


@dataclass(frozen=True, kw_only=True)
class Protocol:
    """One request format."""

    path: str
    encode: Callable[[Row, str], Question]
    """A row and the id of its user."""
    decode: Callable[[Response], Answer]

    def raw(self, row: Row, user: str) -> bytes:
        """Return the whole HTTP request."""
        question = self.encode(row, user)
        fields = {"Host": "127.0.0.1", **question.headers, "Content-Length": str(len(question.body))}
        lines = [f"POST {self.path} HTTP/1.1", *(f"{name}: {value}" for name, value in fields.items())]
        return "\r\n".join([*lines, "", ""]).encode() + question.body


def _as_json(document: Mapping[str, Any]) -> Question:
    return Question(body=json.dumps(document).encode(), headers={"Content-Type": "application/json"})


def _named(row: Row, user: str) -> Question:
    return _as_json({"features": row, "user_id": user})


def _instances(row: Row, _: str) -> Question:
    return _as_json({"instances": [row]})


def _tensors(row: Row, _: str) -> Question:
    return _as_json({"inputs": _inputs(row)})


def _tensors_of_user(row: Row, user: str) -> Question:
    return _as_json({"inputs": _inputs(row), "parameters": {"user_id": user}})


def _inputs(row: Row) -> list[dict[str, Any]]:
    columns = ((NUMERIC_INPUT, "FP64", NUMBERS), (TEXT_INPUT, "BYTES", TEXTS))
    return [
        {"name": name, "datatype": datatype, "shape": [1, len(of)], "data": [row[each] for each in of]}
        for name, datatype, of in columns
    ]


def _binary_of_user(row: Row, user: str) -> Question:
    """Send the tensors as tritonclient does: their bytes behind the JSON, and the answer's likewise."""
    numbers, texts = _inputs(row)
    words = [word.encode() for word in texts.pop("data")]
    parts = [
        struct.pack(f"<{len(NUMBERS)}d", *numbers.pop("data")),
        b"".join(struct.pack("<I", len(word)) + word for word in words),
    ]
    for tensor, part in zip((numbers, texts), parts, strict=True):
        tensor["parameters"] = {"binary_data_size": len(part)}
    parameters = {"user_id": user, "binary_data_output": True}
    head = json.dumps({"inputs": [numbers, texts], "parameters": parameters}).encode()
    headers = {"Content-Type": "application/octet-stream", _JSON_LENGTH: str(len(head))}
    return Question(body=b"".join((head, *parts)), headers=headers)


def _greenroom_answer(response: Response) -> Answer:
    answer = json.loads(response.body)
    return Answer(
        label=answer["prediction"],
        probability=answer["probabilities"]["1"],
        version=answer.get("version"),
    )


def _plain_answer(response: Response) -> Answer:
    return _plain(json.loads(response.body))


def _first_prediction(response: Response) -> Answer:
    return _plain(json.loads(response.body)["predictions"][0])


def _plain(answer: Mapping[str, Any]) -> Answer:
    return Answer(label=answer["prediction"], probability=answer["probability"])


def _tensors_answer(response: Response) -> Answer:
    document = json.loads(response.body)
    return _labelled({output["name"]: output["data"] for output in document["outputs"]}, version=None)


def _versioned_tensors_answer(response: Response) -> Answer:
    """Read our own answer: the version is part of it, and outputs may be bytes behind the JSON."""
    length = int(response.headers.get(_JSON_LENGTH.lower(), len(response.body)))
    document, tail = json.loads(response.body[:length]), response.body[length:]
    data: dict[str, Sequence[Any]] = {}
    for output in document["outputs"]:
        size = output.get("parameters", {}).get("binary_data_size", 0)
        values = np.frombuffer(tail[:size], _NUMPY[output["datatype"]]).tolist()
        data[output["name"]] = output.get("data", values)
        tail = tail[size:]
    return _labelled(data, version=document["model_version"])


def _labelled(data: Mapping[str, Sequence[Any]], *, version: str | None) -> Answer:
    label = data["label" if "label" in data else "prediction"]
    return Answer(label=int(label[0]), probability=float(data["probabilities"][1]), version=version)


_INFER = f"/v2/models/{NAME}/infer"
NAMED = Protocol(path="/predict", encode=_named, decode=_greenroom_answer)
NAMED_PLAIN = Protocol(path="/predict", encode=_named, decode=_plain_answer)
MOSEC = Protocol(path="/inference", encode=_named, decode=_plain_answer)
KSERVE_V1 = Protocol(path=f"/v1/models/{NAME}:predict", encode=_instances, decode=_first_prediction)
V2 = Protocol(path=_INFER, encode=_tensors, decode=_tensors_answer)
V2_OF_USER = Protocol(path=_INFER, encode=_tensors_of_user, decode=_versioned_tensors_answer)
V2_BINARY_OF_USER = Protocol(path=_INFER, encode=_binary_of_user, decode=_versioned_tensors_answer)


def write_requests(path: Path, protocol: Protocol, rows: Sequence[Row]) -> None:
    """Write what ``replay.lua`` sends: each row of a user of its own."""
    with path.open("wb") as file:
        for index, row in enumerate(rows):
            raw = protocol.raw(row, f"user-{index}")
            file.write(f"{len(raw)}\n".encode() + raw)
