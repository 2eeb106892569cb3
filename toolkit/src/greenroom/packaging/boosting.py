"""XGBoost's and LightGBM's models inside of scikit-learn's pipelines, by onnxmltools' converters."""

import warnings
from importlib import import_module
from typing import Any, NamedTuple

from skl2onnx import update_registered_converter
from skl2onnx.common.shape_calculator import (
    calculate_linear_classifier_output_shapes,
    calculate_linear_regressor_output_shapes,
)
from sklearn.base import is_classifier

from greenroom.packaging.errors import ExportError

_CLASSIFIER_OPTIONS = {
    "nocl": [True, False],
    "zipmap": [True, False, "columns"],
    "raw_scores": [True, False],
}


class _Library(NamedTuple):
    module: str
    """Where onnxmltools keeps the converter."""
    converter: str
    models: tuple[str, ...]


_LIBRARIES = {
    "xgboost": _Library(
        "onnxmltools.convert.xgboost.operator_converters.XGBoost",
        "convert_xgboost",
        ("XGBClassifier", "XGBRegressor"),
    ),
    "lightgbm": _Library(
        "onnxmltools.convert.lightgbm.operator_converters.LightGbm",
        "convert_lightgbm",
        ("LGBMClassifier", "LGBMRegressor"),
    ),
}


def register_boosting(pipeline: Any) -> None:
    """Let skl2onnx know the converters of what is in the pipeline; ExportError where there is none."""
    for model in _parts(pipeline):
        root = type(model).__module__.partition(".")[0]
        if root in _LIBRARIES and hasattr(model, "predict"):
            _register(model, _LIBRARIES[root])


def libraries_of(pipeline: Any) -> list[str]:
    """Return what trained the pipeline besides scikit-learn, as ``xgboost 3.2.0``."""
    roots = {type(model).__module__.partition(".")[0] for model in _parts(pipeline)}
    return [f"{root} {import_module(root).__version__}" for root in sorted(roots & _LIBRARIES.keys())]


def _parts(pipeline: Any) -> list[Any]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # parameters that a library is about to rename are not our concern
        deep = pipeline.get_params(deep=True) if hasattr(pipeline, "get_params") else {}
    return [pipeline, *deep.values()]


def _register(model: Any, library: _Library) -> None:
    kind = type(model)
    if kind.__name__ not in library.models:
        raise ExportError(
            f"{kind.__name__} cannot be exported: use one of {', '.join(library.models)}, and fit again"
        )
    classifier = is_classifier(model)
    update_registered_converter(
        kind,
        f"Greenroom{kind.__name__}",
        calculate_linear_classifier_output_shapes if classifier else calculate_linear_regressor_output_shapes,
        getattr(import_module(library.module), library.converter),
        options=_CLASSIFIER_OPTIONS if classifier else {"split": None},
    )
