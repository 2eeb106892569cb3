"""Versions that pass their proof and go wrong on requests: what gates are for, and what shadows may harm."""

import json
from enum import StrEnum
from hashlib import sha256
from pathlib import Path
from typing import Any

import onnx
from onnx import TensorProto, helper

HEAVY = 4500.0
"""Grams above which some of the penguins are, and none of a fragile version's golden samples."""
EVERY = 0.0
"""Grams above which every penguin is whose weight is known."""
BODY_MASS = "body_mass_g"
_SLOW_ROUNDS = 20_000
"""Some ten milliseconds of work, where the models take some tenths of one."""
_ENDLESS_ROUNDS = 2**62
_MILLION = 2**20
"""Numbers that a round of a leak keeps."""


class Fault(StrEnum):
    """What a version does with a heavy penguin, or with whatever else has much of a feature."""

    RAISES = "raises"
    HANGS = "hangs"
    SLOW = "slow"
    LEAKS = "leaks"
    """Takes ever more memory, until there is none."""


def write_faulty(
    source: Path,
    *,
    version: str,
    fault: Fault = Fault.RAISES,
    above: float = HEAVY,
    feature: str = BODY_MASS,
) -> Path:
    """Write beside a bundle another one with a fault for rows with more than so much of a feature; return it.

    The feature is one of the numbers of the graph's first input. Rows with that much of it are no golden
    samples of the other one, nor its warm-up, so that it passes its proof.
    """
    target = source.parent / version
    target.mkdir(exist_ok=True)
    bundle = json.loads((source / "bundle.json").read_text())
    place = bundle["signature"]["tensors"][0]["features"].index(feature)
    model = _with_fault(onnx.load(source / "model.onnx"), fault, place=place, above=above)
    files = {"model.onnx": model.SerializeToString()}

    def passes(features: dict[str, Any]) -> bool:
        return (features[feature] or 0.0) <= above

    samples = (source / "golden.jsonl").read_text().splitlines()
    if golden := "".join(f"{line}\n" for line in samples if passes(json.loads(line)["features"])):
        files["golden.jsonl"] = golden.encode()
    for path, content in files.items():
        (target / path).write_bytes(content)
    bundle["version"] = version
    bundle["warmup"] = [row for row in bundle["warmup"] if passes(row)]
    bundle["files"] = [
        {"path": path, "sha256": sha256(content).hexdigest(), "size": len(content)}
        for path, content in sorted(files.items())
    ]
    (target / "bundle.json").write_text(json.dumps(bundle))
    return target


def write_corrupt(source: Path, *, version: str) -> Path:
    """Write beside a bundle another one with a model file that is not what its bundle.json says."""
    target = source.parent / version
    target.mkdir(exist_ok=True)
    for path in source.iterdir():
        (target / path.name).write_bytes(path.read_bytes())
    bundle = json.loads((source / "bundle.json").read_text()) | {"version": version}
    (target / "bundle.json").write_text(json.dumps(bundle))
    (target / "model.onnx").write_bytes((source / "model.onnx").read_bytes()[:-1] + b"\0")
    return target


def _with_fault(model: onnx.ModelProto, fault: Fault, *, place: int, above: float) -> onnx.ModelProto:
    """Let the numbers pass through what goes wrong above the limit, and adds nothing to them otherwise."""
    graph = model.graph
    numbers = graph.input[0].name
    for node in graph.node:
        node.input[:] = [f"checked_{numbers}" if name == numbers else name for name in node.input]
    kind = graph.input[0].type.tensor_type.elem_type
    graph.initializer.extend(
        [
            helper.make_tensor("fault_place", TensorProto.INT64, [1], [place]),
            helper.make_tensor("fault_limit", kind, [1], [above]),
        ]
    )
    heavy = [
        helper.make_node("Gather", [numbers, "fault_place"], ["fault_mass"], axis=1),
        helper.make_node("Greater", ["fault_mass", "fault_limit"], ["fault_heavy"]),
        helper.make_node("Cast", ["fault_heavy"], ["fault_index"], to=TensorProto.INT64),
    ]
    nodes = [
        *heavy,
        *(_raise(graph, kind) if fault is Fault.RAISES else _loop(graph, kind, fault)),
        helper.make_node("Add", [numbers, "fault_nothing"], [f"checked_{numbers}"]),
    ]
    for number, node in enumerate(nodes):
        graph.node.insert(number, node)
    return model


def _raise(graph: onnx.GraphProto, kind: int) -> list[onnx.NodeProto]:
    """Choose an element of a table that there is not, which onnxruntime refuses."""
    graph.initializer.append(helper.make_tensor("fault_table", kind, [1], [0.0]))
    return [helper.make_node("Gather", ["fault_table", "fault_index"], ["fault_nothing"], axis=0)]


def _loop(graph: onnx.GraphProto, kind: int, fault: Fault) -> list[onnx.NodeProto]:
    """Go round and round; each round of a leak keeps some megabytes more."""
    rounds = _SLOW_ROUNDS if fault is Fault.SLOW else _ENDLESS_ROUNDS
    leaks = fault is Fault.LEAKS
    graph.initializer.extend(
        [
            helper.make_tensor("fault_rounds", TensorProto.INT64, [], [rounds]),
            helper.make_tensor("fault_on", TensorProto.BOOL, [], [True]),
            helper.make_tensor("fault_sum", kind, [1], [0.0]),
            helper.make_tensor("fault_zero", kind, [], [0.0]),
        ]
    )
    keep = helper.make_node("Expand", ["fault_next", "fault_size"], ["fault_kept"])
    kept = helper.make_tensor_value_info("fault_kept", kind, [_MILLION])
    size = helper.make_tensor("fault_size", TensorProto.INT64, [1], [_MILLION])
    body = helper.make_graph(
        [
            helper.make_node("Identity", ["fault_goes"], ["fault_goes_on"]),
            helper.make_node("Sin", ["fault_last"], ["fault_next"]),
            *([keep] if leaks else []),
        ],
        "fault",
        [
            helper.make_tensor_value_info("fault_round", TensorProto.INT64, []),
            helper.make_tensor_value_info("fault_goes", TensorProto.BOOL, []),
            helper.make_tensor_value_info("fault_last", kind, [1]),
        ],
        [
            helper.make_tensor_value_info("fault_goes_on", TensorProto.BOOL, []),
            helper.make_tensor_value_info("fault_next", kind, [1]),
            *([kept] if leaks else []),
        ],
        initializer=[size] if leaks else [],
    )
    ends = ["fault_end", "fault_all"] if leaks else ["fault_end"]
    total = [helper.make_node("ReduceSum", ["fault_all"], ["fault_total"], keepdims=0)] if leaks else []
    return [
        helper.make_node("ReduceMax", ["fault_index"], ["fault_times"], keepdims=0),
        helper.make_node("Mul", ["fault_times", "fault_rounds"], ["fault_trips"]),
        helper.make_node("Loop", ["fault_trips", "fault_on", "fault_sum"], ends, body=body),
        *total,
        helper.make_node("Mul", ["fault_total" if leaks else "fault_end", "fault_zero"], ["fault_nothing"]),
    ]
