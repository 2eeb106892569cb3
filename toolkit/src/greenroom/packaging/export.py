"""A fitted pipeline as one ONNX graph, in each arithmetic that may reproduce it."""

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import onnx
from skl2onnx import convert_sklearn
from skl2onnx.common.data_types import DoubleTensorType, FloatTensorType, StringTensorType
from skl2onnx.sklapi import CastTransformer
from sklearn.base import is_classifier
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import ExtraTreesClassifier, RandomForestClassifier
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.impute import SimpleImputer
from sklearn.pipeline import Pipeline

from greenroom.packaging.boosting import register_boosting
from greenroom.packaging.errors import ExportError
from greenroom.packaging.frame import MISSING_TEXT
from greenroom_runtime.contract.bundle import Dtype, Feature, Tensor

OPSETS = {"": 21, "ai.onnx.ml": 3}
NUMERIC_TENSOR, TEXT_TENSOR = "numeric", "text"

_LOCALE = b"C.UTF-8"
_WORD = rb"[\p{L}\p{N}_]{2,}"

Arithmetic = Literal["float64", "float64, then float32 in the model", "float32"]
ARITHMETICS: tuple[Arithmetic, ...] = ("float64", "float64, then float32 in the model", "float32")
"""Trees compare in float32 what was scaled in float64, linear models stay in float64: which one
reproduces a pipeline is measured, not guessed. Scaling in float32 moves values across tree thresholds."""


@dataclass(frozen=True, kw_only=True)
class Export:
    """A graph and how to feed it."""

    arithmetic: Arithmetic
    graph: bytes
    tensors: tuple[Tensor, ...]
    prediction: str
    probabilities: str | None
    model_input: str | None
    """The tensor that the last step reads, where there are steps before it and it reads one."""

    @property
    def outputs(self) -> tuple[str, ...]:
        """The outputs that are the answer."""
        return (self.prediction, self.probabilities) if self.probabilities else (self.prediction,)


def used_columns(pipeline: Any, columns: Sequence[str]) -> list[str]:
    """Return the columns that the pipeline reads, in the frame's order: a ColumnTransformer may drop some."""
    first = steps_of(pipeline)[0][1]
    if not isinstance(first, ColumnTransformer):
        return list(columns)
    used = {
        position
        for _, transformer, selected in first.transformers_
        if not (isinstance(transformer, str) and transformer == "drop")
        for position in np.atleast_1d(_positions(selected, columns))
    }
    return [name for position, name in enumerate(columns) if position in used]


def export_pipeline(
    pipeline: Any, features: Sequence[Feature], columns: Sequence[str], *, arithmetic: Arithmetic
) -> Export:
    """Return the graph in one arithmetic; ExportError names what has no equal in ONNX.

    ``columns`` are those that the pipeline was fitted on, ``features`` those that it reads.
    """
    register_boosting(pipeline)
    tensors = _tensors(features, "float32" if arithmetic == "float32" else "float64")
    steps = copy.deepcopy(steps_of(pipeline))
    if isinstance(steps[0][1], ColumnTransformer):
        _address_by_position(steps[0][1], columns, [name for tensor in tensors for name in tensor.features])
    elif len(tensors) > 1:
        raise ExportError(
            "text and number columns go through the same first step: begin the pipeline with a "
            "ColumnTransformer that names the columns of each, and fit again"
        )
    if arithmetic == "float64, then float32 in the model":
        steps.insert(-1, ("to_float32", CastTransformer(dtype=np.float32)))
    classifier = is_classifier(pipeline)
    graph, topology = _convert(Pipeline(steps), tensors, classifier=classifier)
    _spell_missing(graph)
    _free_of_locales(graph)
    _know_words(graph, pipeline)
    _order_opsets(graph)
    if isinstance(steps[-1][1], RandomForestClassifier | ExtraTreesClassifier):
        _break_ties(graph, steps[-1][1])
    names = [output.name for output in graph.graph.output]
    return Export(
        arithmetic=arithmetic,
        graph=graph.SerializeToString(deterministic=True),
        tensors=tensors,
        prediction=names[0],
        probabilities=names[1] if classifier else None,
        model_input=_model_input(graph, topology, steps[-1][1]) if len(steps_of(pipeline)) > 1 else None,
    )


def _model_input(graph: Any, topology: Any, model: Any) -> str | None:
    computed = {output for node in graph.graph.node for output in node.output}
    for operator in topology.unordered_operator_iterator():
        if operator.raw_operator is model:
            names = [variable.full_name for variable in operator.inputs]
            return names[0] if len(names) == 1 and names[0] in computed else None
    return None


def _convert(pipeline: Any, tensors: Sequence[Tensor], *, classifier: bool) -> tuple[Any, Any]:
    """Return the graph, and skl2onnx's account of which part of it each step has become."""
    kinds = {"float32": FloatTensorType, "float64": DoubleTensorType, "string": StringTensorType}
    inputs = [(tensor.name, kinds[tensor.dtype]([None, len(tensor.features)])) for tensor in tensors]
    try:
        graph, topology = convert_sklearn(
            pipeline,
            name="greenroom",
            initial_types=inputs,
            options={"zipmap": False} if classifier else None,
            target_opset=OPSETS,
            custom_conversion_functions={SimpleImputer: _convert_imputer},
            custom_shape_calculators={SimpleImputer: _imputer_shape},
            intermediate=True,
        )
    except ExportError:
        raise
    except Exception as error:  # the converters raise whatever they like
        lines = [line for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
        raise ExportError(
            f"the pipeline cannot be exported to ONNX: {lines[0]}: replace that step by one that has a "
            "converter in skl2onnx, or do its work before the pipeline"
        ) from error
    return graph, topology


def steps_of(pipeline: Any) -> list[tuple[str, Any]]:
    """Return the steps that do something; an estimator alone is one."""
    if not isinstance(pipeline, Pipeline):
        return [("model", pipeline)]
    return [(name, step) for name, step in pipeline.steps if step is not None and not isinstance(step, str)]


def _tensors(features: Sequence[Feature], numeric: Dtype) -> tuple[Tensor, ...]:
    numbers = tuple(feature.name for feature in features if feature.dtype != "string")
    texts = tuple(feature.name for feature in features if feature.dtype == "string")
    tensors = []
    if numbers:
        tensors.append(Tensor(name=NUMERIC_TENSOR, dtype=numeric, features=numbers))
    if texts:
        tensors.append(Tensor(name=TEXT_TENSOR, dtype="string", features=texts))
    return tuple(tensors)


def _address_by_position(transformer: Any, columns: Sequence[str], order: Sequence[str]) -> None:
    """Let a fitted ColumnTransformer select by position in the graph's inputs instead of by name.

    One matrix a type costs half of what one input a column does (26 against 42 us a row).
    """
    place = {name: position for position, name in enumerate(order)}
    moved: list[tuple[str, Any, int | list[int]]] = []
    for name, step, selected in transformer.transformers_:
        if isinstance(step, str) and step == "drop":
            continue
        positions = _positions(selected, columns)
        if isinstance(positions, int):
            moved.append((name, step, place[columns[positions]]))
        elif positions:
            moved.append((name, step, [place[columns[position]] for position in positions]))
    transformer.transformers_ = moved


def _positions(selected: Any, columns: Sequence[str]) -> int | list[int]:
    if isinstance(selected, str):
        return columns.index(selected)
    if isinstance(selected, int | np.integer):
        return int(selected)
    if isinstance(selected, slice):
        names = [columns.index(at) if isinstance(at, str) else at for at in (selected.start, selected.stop)]
        inclusive = 1 if isinstance(selected.stop, str) else 0
        stop = None if names[1] is None else names[1] + inclusive
        return list(range(len(columns)))[names[0] : stop : selected.step]
    chosen = list(selected)
    if chosen and all(isinstance(item, bool | np.bool_) for item in chosen):
        return [position for position, wanted in enumerate(chosen) if wanted]
    return [columns.index(item) if isinstance(item, str) else int(item) % len(columns) for item in chosen]


def _spell_missing(model: Any) -> None:
    """Let encoders that learned NaN as a category know it by our spelling; skl2onnx writes ``nan``."""
    for node in model.graph.node:
        for attribute in node.attribute:
            if node.op_type == "OneHotEncoder" and attribute.name == "cats_strings":
                attribute.strings[:] = [
                    MISSING_TEXT.encode() if text in (b"nan", b"None") else text for text in attribute.strings
                ]


def _free_of_locales(model: Any) -> None:
    """Let texts be lower-cased by the locale that every image has; onnxruntime's default is en_US.UTF-8."""
    for node in model.graph.node:
        if node.op_type == "StringNormalizer":
            others = [attribute for attribute in node.attribute if attribute.name != "locale"]
            del node.attribute[:]
            node.attribute.extend([*others, onnx.helper.make_attribute("locale", _LOCALE)])


def _know_words(model: Any, pipeline: Any) -> None:
    """Let words be what scikit-learn's default pattern takes for words, in every script.

    skl2onnx writes a pattern of ASCII letters for it; ONNX's regular expressions, RE2's, know classes of
    Unicode only by another name.
    """
    found = [value for value in pipeline.get_params(deep=True).values() if isinstance(value, CountVectorizer)]
    if {(one.analyzer, one.token_pattern) for one in found} != {("word", CountVectorizer().token_pattern)}:
        return
    for node in model.graph.node:
        for attribute in node.attribute:
            if node.op_type == "Tokenizer" and attribute.name == "tokenexp":
                attribute.s = _WORD


def _order_opsets(model: Any) -> None:
    """Sort what skl2onnx writes in the order of a set, so that equal graphs are equal bytes."""
    opsets = sorted((opset.domain, opset.version) for opset in model.opset_import)
    del model.opset_import[:]
    model.opset_import.extend(onnx.helper.make_opsetid(domain, version) for domain, version in opsets)


def _break_ties(model: Any, forest: Any) -> None:
    """Take the label from scores rounded to whole votes of the trees; a tie goes to the first class.

    Ties are common in a forest. scikit-learn counts votes exactly and takes the first class, the graph
    adds up float32 shares, whose last bits would decide.
    """
    trees = len(forest.estimators_)
    steps_per_score = trees * max(1, 2**21 // trees)
    labels = [label.item() for label in np.asarray(forest.classes_)]
    texts = isinstance(labels[0], str)
    kind = onnx.TensorProto.STRING if texts else onnx.TensorProto.INT64
    values = [label.encode() for label in labels] if texts else [int(label) for label in labels]
    graph = model.graph
    old, scores = (output.name for output in graph.output)
    graph.initializer.extend(
        [
            onnx.helper.make_tensor("steps_per_score", onnx.TensorProto.FLOAT, [1], [steps_per_score]),
            onnx.helper.make_tensor("labels", kind, [len(labels)], values),
        ]
    )
    graph.node.extend(
        [
            onnx.helper.make_node("Mul", [scores, "steps_per_score"], ["steps"]),
            onnx.helper.make_node("Round", ["steps"], ["votes"]),
            onnx.helper.make_node("ArgMax", ["votes"], ["winner"], axis=1, keepdims=0),
            onnx.helper.make_node("Gather", ["labels", "winner"], [f"{old}_by_votes"]),
        ]
    )
    graph.output[0].CopyFrom(onnx.helper.make_tensor_value_info(f"{old}_by_votes", kind, [None]))


def _imputer_shape(operator: Any) -> None:
    kind = type(operator.inputs[0].type)
    rows = operator.inputs[0].get_first_dimension()
    operator.outputs[0].type = kind([rows, len(operator.raw_operator.statistics_)])


def _convert_imputer(scope: Any, operator: Any, container: Any) -> None:
    """Convert SimpleImputer for text and float64 too; ONNX's own Imputer knows float32 only."""
    imputer = operator.raw_operator
    is_text = isinstance(operator.inputs[0].type, StringTensorType)
    _check_imputer(imputer, is_text=is_text)
    joined, is_missing, fill = (
        scope.get_unique_variable_name(name) for name in ("joined", "is_missing", "fill")
    )

    def add(kind: str, inputs: list[str], output: str, **attributes: Any) -> None:
        name = scope.get_unique_operator_name(kind)
        container.add_node(kind, inputs, output, name=name, op_version=OPSETS[""], **attributes)

    add("Concat", [variable.full_name for variable in operator.inputs], joined, axis=1)
    shape = [len(imputer.statistics_)]
    if is_text:
        spelling = scope.get_unique_variable_name("spelling")
        container.add_initializer(spelling, onnx.TensorProto.STRING, [1], [MISSING_TEXT.encode()])
        texts = [str(value).encode() for value in imputer.statistics_]
        container.add_initializer(fill, onnx.TensorProto.STRING, shape, texts)
        add("Equal", [joined, spelling], is_missing)
    else:
        double = isinstance(operator.inputs[0].type, DoubleTensorType)
        kind = onnx.TensorProto.DOUBLE if double else onnx.TensorProto.FLOAT
        container.add_initializer(fill, kind, shape, [float(value) for value in imputer.statistics_])
        add("IsNaN", [joined], is_missing)
    add("Where", [is_missing, fill, joined], operator.outputs[0].full_name)


def _check_imputer(imputer: Any, *, is_text: bool) -> None:
    if imputer.add_indicator:
        raise ExportError(
            "SimpleImputer(add_indicator=True) cannot be exported, nor can MissingIndicator: leave it out, "
            "or make 'is null' a column of the frame, and fit again"
        )
    marker = imputer.missing_values
    if not (marker is None or (isinstance(marker, float) and np.isnan(marker))):
        raise ExportError(
            f"SimpleImputer(missing_values={marker!r}) cannot be exported: replace {marker!r} by null in the "
            "frame and impute that"
        )
    if not is_text and not np.isfinite(np.asarray(imputer.statistics_, dtype="float64")).all():
        raise ExportError(
            "a SimpleImputer saw a column without any value: leave that column out and fit again"
        )
