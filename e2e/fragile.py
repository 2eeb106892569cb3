"""A version that passes its proof and fails on some of its users' requests: what a rollout's gate is for."""

import json
from hashlib import sha256
from pathlib import Path
from typing import Any

import onnx
from onnx import TensorProto, helper

HEAVY = 4500.0
"""Grams above which the fragile version fails; none of its golden samples is heavier."""
_BODY_MASS = 3
"""Its place among the graph's numbers."""


def write_fragile(source: Path, *, version: str) -> Path:
    """Write beside a penguins' bundle another one whose graph raises for heavy penguins; return it."""
    target = source.parent / version
    target.mkdir(exist_ok=True)
    graph = _with_fault(onnx.load(source / "model.onnx")).SerializeToString()
    (target / "model.onnx").write_bytes(graph)
    samples = [line for line in (source / "golden.jsonl").read_text().splitlines() if _is_light(line)]
    golden = "".join(f"{line}\n" for line in samples).encode()
    (target / "golden.jsonl").write_bytes(golden)
    bundle = json.loads((source / "bundle.json").read_text())
    bundle["version"] = version
    bundle["warmup"] = [row for row in bundle["warmup"] if (row["body_mass_g"] or 0) <= HEAVY]
    bundle["files"] = [
        {"path": path, "sha256": sha256(content).hexdigest(), "size": len(content)}
        for path, content in (("golden.jsonl", golden), ("model.onnx", graph))
    ]
    (target / "bundle.json").write_text(json.dumps(bundle))
    return target


def _is_light(line: str) -> bool:
    features: dict[str, Any] = json.loads(line)["features"]
    return (features["body_mass_g"] or 0) <= HEAVY


def _with_fault(model: onnx.ModelProto) -> onnx.ModelProto:
    """Let a heavy penguin choose an element of a table that there is not, which onnxruntime refuses."""
    graph = model.graph
    numbers = graph.input[0].name
    for node in graph.node:
        node.input[:] = [f"checked_{numbers}" if name == numbers else name for name in node.input]
    kind = graph.input[0].type.tensor_type.elem_type
    tensors = {
        "fault_place": helper.make_tensor("fault_place", TensorProto.INT64, [1], [_BODY_MASS]),
        "fault_limit": helper.make_tensor("fault_limit", kind, [1], [HEAVY]),
        "fault_table": helper.make_tensor("fault_table", kind, [1], [0.0]),
    }
    graph.initializer.extend(tensors.values())
    checks = [
        helper.make_node("Gather", [numbers, "fault_place"], ["fault_mass"], axis=1),
        helper.make_node("Greater", ["fault_mass", "fault_limit"], ["fault_heavy"]),
        helper.make_node("Cast", ["fault_heavy"], ["fault_index"], to=TensorProto.INT64),
        helper.make_node("Gather", ["fault_table", "fault_index"], ["fault_nothing"], axis=0),
        helper.make_node("Add", [numbers, "fault_nothing"], [f"checked_{numbers}"]),
    ]
    for place, node in enumerate(checks):
        graph.node.insert(place, node)
    return model
