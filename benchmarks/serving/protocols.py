"""How a row is asked about, and how the answer is read: ours, and each peer's own."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.serving.model import NAME, Answer, Row
from benchmarks.serving.servers.scoring import NUMBERS, NUMERIC_INPUT, TEXT_INPUT, TEXTS


@dataclass(frozen=True, kw_only=True)
class Protocol:
    """One request format."""

    path: str
    encode: Callable[[Row, str], bytes]
    """A row and the id of its user as a body."""
    decode: Callable[[bytes], Answer]
    headers: Mapping[str, str]

    def raw(self, row: Row, user: str) -> bytes:
        """Return the whole HTTP request."""
        body = self.encode(row, user)
        fields = {"Host": "127.0.0.1", **self.headers, "Content-Length": str(len(body))}
        lines = [f"POST {self.path} HTTP/1.1", *(f"{name}: {value}" for name, value in fields.items())]
        return "\r\n".join([*lines, "", ""]).encode() + body


JSON = {"Content-Type": "application/json"}


def _named(row: Row, user: str) -> bytes:
    return json.dumps({"features": row, "user_id": user}).encode()


def _greenroom_answer(body: bytes) -> Answer:
    answer = json.loads(body)
    return Answer(
        label=answer["prediction"],
        probability=answer["probabilities"]["1"],
        version=answer.get("version"),
    )


def _plain_answer(body: bytes) -> Answer:
    answer = json.loads(body)
    return Answer(label=answer["prediction"], probability=answer["probability"])


def _instances(row: Row, _: str) -> bytes:
    return json.dumps({"instances": [row]}).encode()


def _first_prediction(body: bytes) -> Answer:
    return _plain_answer(json.dumps(json.loads(body)["predictions"][0]).encode())


def _tensors(row: Row, _: str) -> bytes:
    return json.dumps(
        {
            "inputs": [
                {
                    "name": NUMERIC_INPUT,
                    "datatype": "FP64",
                    "shape": [1, len(NUMBERS)],
                    "data": [row[name] for name in NUMBERS],
                },
                {
                    "name": TEXT_INPUT,
                    "datatype": "BYTES",
                    "shape": [1, len(TEXTS)],
                    "data": [row[name] for name in TEXTS],
                },
            ]
        }
    ).encode()


def _tensors_answer(body: bytes) -> Answer:
    outputs: Sequence[Mapping[str, Any]] = json.loads(body)["outputs"]
    data = {output["name"]: output["data"] for output in outputs}
    return Answer(label=int(data["label"][0]), probability=float(data["probabilities"][1]))


NAMED = Protocol(path="/predict", encode=_named, decode=_greenroom_answer, headers=JSON)
NAMED_PLAIN = Protocol(path="/predict", encode=_named, decode=_plain_answer, headers=JSON)
MOSEC = Protocol(path="/inference", encode=_named, decode=_plain_answer, headers=JSON)
KSERVE_V1 = Protocol(
    path=f"/v1/models/{NAME}:predict", encode=_instances, decode=_first_prediction, headers=JSON
)
V2 = Protocol(path=f"/v2/models/{NAME}/infer", encode=_tensors, decode=_tensors_answer, headers=JSON)


def write_requests(path: Path, protocol: Protocol, rows: Sequence[Row]) -> None:
    """Write what ``replay.lua`` sends: each row of a user of its own."""
    with path.open("wb") as file:
        for index, row in enumerate(rows):
            raw = protocol.raw(row, f"user-{index}")
            file.write(f"{len(raw)}\n".encode() + raw)
