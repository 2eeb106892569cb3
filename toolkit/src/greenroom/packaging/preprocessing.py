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
    plain = [row.features for row in rows]
    try:
        shown = _show(export)
        found = _ask(export, shown, to_tensors(plain, features, export.tensors))
        own = Pipeline(steps_of(pipeline)[:-1]).transform(to_frame(plain, like, features))
        expected = np.asarray(own.toarray() if hasattr(own, "toarray") else own).astype(found.dtype)
        _refuse_difference(expected, found)
    except (_NotExactError, ExportError) as error:
        return Preprocessed(export=export, values=None, told=str(error))
    return Preprocessed(export=shown, values=expected, told=EXACT)


class _NotExactError(Exception):
    """Golden samples cannot hold the preprocessed features; the message says why."""


def _show(export: Export) -> Export:
    """Return the export with what its model reads as one more output."""
    if export.model_input is None:
        raise _NotExactError("the pipeline has no step before its model, or the model reads several tensors")
    model = onnx.load_from_string(export.graph)
    if inexact := sorted(_operators_before(model.graph, export.model_input) - _SAME_EVERYWHERE):
        raise _NotExactError(f"{', '.join(inexact)} may end in other bits on another processor")
    model.graph.output.append(onnx.ValueInfoProto(name=export.model_input))
    return replace(export, graph=model.SerializeToString(deterministic=True))


def _operators_before(graph: Any, tensor: str) -> set[str]:
    producers = {output: node for node in graph.node for output in node.output}
    kinds: set[str] = set()
    waiting, seen = [tensor], set()
    while waiting:
        name = waiting.pop()
        if name in producers and name not in seen:
            kinds.add(producers[name].op_type)
            waiting += producers[name].input
        seen.add(name)
    return kinds


def _ask(export: Export, shown: Export, feed: dict[str, Any]) -> Any:
    """Return the preprocessed features, once the answers are known to be the same with them and without."""
    before = run_graph(export.graph, export.outputs, feed)
    *after, found = run_graph(shown.graph, (*shown.outputs, str(shown.model_input)), feed)
    served = run_graph(shown.graph, shown.outputs, feed)
    pairs = [*zip(before, after, strict=True), *zip(before, served, strict=True)]
    if not all(_same(one, other) for one, other in pairs):
        raise _NotExactError("the graph answers otherwise when it shows them")
    return found


def _refuse_difference(expected: Any, found: Any) -> None:
    if expected.shape != found.shape or expected.ndim != 2:  # noqa: PLR2004 rows and columns
        raise _NotExactError(f"the graph's have the shape {found.shape}, the pipeline's {expected.shape}")
    if expected.shape[1] > MAX_COLUMNS:
        raise _NotExactError(f"they have {expected.shape[1]} columns, more than {MAX_COLUMNS}")
    if np.isinf(expected).any():
        raise _NotExactError("some are infinite")
    if not _same(expected, found):
        differing = int((~((expected == found) | (np.isnan(expected) & np.isnan(found)))).sum())
        raise _NotExactError(f"{differing} of {expected.size} values are not exactly the pipeline's")


def _same(one: Any, other: Any) -> bool:
    return bool(np.array_equal(one, other, equal_nan=one.dtype.kind == "f"))
