"""The preprocessed features as one more output of the graph, so that each pod can compare them, too."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import onnx
import pandas as pd
from sklearn.pipeline import Pipeline

from greenroom.packaging.errors import ExportError
from greenroom.packaging.export import Export, steps_of
from greenroom.packaging.frame import to_frame, to_tensors
from greenroom.packaging.hostile import HostileRow
from greenroom.packaging.parity import run_graph
from greenroom_runtime.contract.bundle import Feature

EXACT = "Exact"
MAX_COLUMNS = 1000
"""More would make the golden samples longer than they are worth."""
_NO_STEP = "the pipeline has no step before its model, or the model reads several tensors"
_SAME_EVERYWHERE = frozenset(
    {
        "Abs",
        "Add",
        "ArrayFeatureExtractor",
        "Binarizer",
        "Cast",
        "Clip",
        "Concat",
        "Div",
        "Equal",
        "Gather",
        "Greater",
        "GreaterOrEqual",
        "Identity",
        "IsNaN",
        "LabelEncoder",
        "Less",
        "LessOrEqual",
        "Max",
        "Min",
        "Mul",
        "Neg",
        "Not",
        "OneHot",
        "OneHotEncoder",
        "Or",
        "Reshape",
        "Shape",
        "Slice",
        "Split",
        "Squeeze",
        "Sub",
        "Transpose",
        "Unsqueeze",
        "Where",
    }
)
"""What moves values, compares them, or rounds once as IEEE 754 says. Sums over columns, exponentials and the
like may end in other bits on another processor, and exact comparison there would refuse a good model."""


@dataclass(frozen=True, kw_only=True)
class Preprocessed:
    """Whether the graph shows the preprocessed features, and if so, the pipeline's own."""

    export: Export
    """With the output added where ``values`` are there, else as it was."""
    values: Any
    """[rows, columns] in the graph's type, or None."""
    told: str
    """``Exact``, or why there are none."""

    @property
    def output(self) -> str | None:
        """Return the name of the graph's output, None where there is none."""
        return None if self.values is None else self.export.model_input

    def row(self, index: int) -> tuple[float | None, ...] | None:
        """Return one row as a golden sample holds it: null for NaN."""
        if self.values is None:
            return None
        return tuple(None if value != value else value for value in self.values[index].tolist())  # noqa: PLR0124


def expose(
    export: Export, pipeline: Any, rows: Sequence[HostileRow], like: pd.DataFrame, features: Sequence[Feature]
) -> Preprocessed:
    """Add the output where it holds, for every row, exactly what the pipeline gives its own last step.

    The answers with that output must be bit for bit those without: the runtime's optimiser sees another
    graph.
    """
    graph = onnx.load_from_string(export.graph)
    before_model = steps_of(pipeline)[:-1]
    if reason := _unfit(export, graph) if before_model else _NO_STEP:
        return Preprocessed(export=export, values=None, told=reason)
    name = str(export.model_input)
    graph.graph.output.append(onnx.ValueInfoProto(name=name))
    shown = replace(export, graph=graph.SerializeToString(deterministic=True))
    plain = [row.features for row in rows]
    feed = to_tensors(plain, features, export.tensors)
    before = run_graph(export.graph, export.outputs, feed)
    try:
        *_, found = answers = run_graph(shown.graph, (*export.outputs, name), feed)
        served = run_graph(shown.graph, export.outputs, feed)
    except ExportError as error:
        return Preprocessed(export=export, values=None, told=f"the graph cannot show them: {error}")
    if not all(
        _same(one, other)
        for after in (answers[:-1], served)
        for one, other in zip(before, after, strict=True)
    ):
        told = "the graph answers otherwise when it shows them"
        return Preprocessed(export=export, values=None, told=told)
    own = Pipeline(before_model).transform(to_frame(plain, like, features))
    expected = np.asarray(own.toarray() if hasattr(own, "toarray") else own).astype(found.dtype)
    reason = _difference(expected, found)
    if reason:
        return Preprocessed(export=export, values=None, told=reason)
    return Preprocessed(export=shown, values=expected, told=EXACT)


def _unfit(export: Export, graph: Any) -> str:
    if export.model_input is None:
        return _NO_STEP
    producers = {output: node for node in graph.graph.node for output in node.output}
    kinds: set[str] = set()
    waiting, seen = [export.model_input], set()
    while waiting:
        name = waiting.pop()
        node = producers.get(name)
        if node is None or name in seen:
            continue
        seen.add(name)
        kinds.add(node.op_type)
        waiting += node.input
    if inexact := sorted(kinds - _SAME_EVERYWHERE):
        return f"{', '.join(inexact)} may end in other bits on another processor"
    return ""


def _difference(expected: Any, found: Any) -> str:
    if expected.shape != found.shape or expected.ndim != 2:  # noqa: PLR2004 rows and columns
        return f"the graph's have the shape {found.shape}, the pipeline's {expected.shape}"
    if expected.shape[1] > MAX_COLUMNS:
        return f"they have {expected.shape[1]} columns, more than {MAX_COLUMNS}"
    if np.isinf(expected).any():
        return "some are infinite"
    if not _same(expected, found):
        differing = int((~((expected == found) | (np.isnan(expected) & np.isnan(found)))).sum())
        return f"{differing} of {expected.size} values are not exactly the pipeline's"
    return ""


def _same(one: Any, other: Any) -> bool:
    return bool(np.array_equal(one, other, equal_nan=one.dtype.kind == "f"))
