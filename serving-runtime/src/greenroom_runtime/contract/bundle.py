"""A version's files: ``bundle.json`` and the golden samples beside it.

``<source>/<version>/`` holds ``bundle.json`` (a :class:`Bundle`), the files that it lists with their
digests (``model.onnx`` among them), ``golden.jsonl`` (a :class:`GoldenSample` a line), and where it was
packaged with one ``reference.json`` (a :class:`Reference`).
"""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

BUNDLE_FILE = "bundle.json"
MODEL_FILE = "model.onnx"
GOLDEN_FILE = "golden.jsonl"
REFERENCE_FILE = "reference.json"
SCHEMA_VERSION = 1

Dtype = Literal["float32", "float64", "int64", "string", "bool"]
Value = bool | int | float | str | None
"""A feature's value as JSON carries it."""


class BundleModel(BaseModel):
    """Base of the bundle's parts: frozen; a newer packager's fields are ignored."""

    model_config = ConfigDict(frozen=True, extra="ignore", use_attribute_docstrings=True)


class Feature(BundleModel):
    """One named input of the model, as the training frame had it."""

    name: str = Field(min_length=1, max_length=256)
    dtype: Dtype
    nullable: bool = False
    """Whether JSON null is an answer. A null number becomes NaN, a null string ``null_as``."""
    null_as: str = ""
    """What the exported graph takes for a missing string."""
    categories: tuple[str, ...] | None = None
    """The categories seen in training."""
    unseen: Literal["Accept", "Refuse"] = "Accept"
    """What the door does with a text that is none of ``categories``."""
    minimum: float | None = None
    """Smallest value seen in training."""
    maximum: float | None = None
    """Largest value seen in training."""
    outside: Literal["Accept", "Refuse"] = "Accept"
    """What the door does with a number below ``minimum`` or above ``maximum``."""
    not_finite: bool = False
    """Whether NaN and the infinities are values; JSON has none, the Open Inference Protocol has."""
    sensitive: bool = False
    """Whether the prediction log may not show its values."""


class Tensor(BundleModel):
    """One input of the ONNX graph: a matrix of shape [rows, len(features)]."""

    name: str
    dtype: Dtype
    features: tuple[str, ...] = Field(min_length=1)
    """The features that are its columns, in the graph's own order."""


class Outputs(BundleModel):
    """Which outputs of the graph are the answer."""

    prediction: str
    """Name of the graph output with the label or the value, shape [rows] or [rows, 1]."""
    probabilities: str | None = None
    """Name of the graph output with class probabilities, shape [rows, classes]; None for regressors."""
    classes: tuple[Value, ...] | None = None
    """The labels in the order of the probabilities' columns; None for regressors."""
    preprocessed: str | None = None
    """Name of the graph output with the preprocessed features, shape [rows, columns]; for golden replay."""


class Batching(BundleModel):
    """How requests may share a run of the model."""

    max_rows: int = Field(default=64, ge=1, le=65536)
    """Most rows in one run; 1 keeps every request alone, as a graph with a fixed first dimension needs."""


class Signature(BundleModel):
    """The model's typed inputs and outputs."""

    features: tuple[Feature, ...] = Field(min_length=1, max_length=10_000)
    tensors: tuple[Tensor, ...] = Field(min_length=1)
    outputs: Outputs

    @model_validator(mode="after")
    def _each_feature_goes_somewhere(self) -> "Signature":
        declared = [feature.name for feature in self.features]
        used = [name for tensor in self.tensors for name in tensor.features]
        if len(set(declared)) != len(declared):
            message = f"features are declared twice: {sorted({n for n in declared if declared.count(n) > 1})}"
            raise ValueError(message)
        if unknown := sorted(set(used) - set(declared)):
            message = f"tensors name features that are not declared: {unknown}"
            raise ValueError(message)
        if unused := sorted(set(declared) - set(used)):
            message = f"features that no tensor takes: {unused}"
            raise ValueError(message)
        return self


class BundleFile(BundleModel):
    """One file of the bundle, besides ``bundle.json`` itself."""

    path: Annotated[str, Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9._-]*(/[A-Za-z0-9_][A-Za-z0-9._-]*)*$")]
    """Relative to the bundle; no part of it starts with a dot."""
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    size: int = Field(ge=0)
    """Bytes."""


class Parity(BundleModel):
    """How the export compared with the training pipeline, row by row, when it was packaged."""

    rows: int = Field(ge=0)
    label_flips: int = Field(ge=0)
    """Rows whose label differed; ``package`` refuses anything but 0."""
    max_abs_error: float = Field(ge=0)
    """Largest difference of a score."""
    tolerance: float = Field(ge=0)
    """The bound that the runtime holds golden scores to."""
    preprocessed: str = ""
    """``Exact`` where golden samples hold the preprocessed features too, else why not; for people."""


class Bundle(BundleModel):
    """The content of ``bundle.json``; its own SHA-256 identifies the version's bytes."""

    schema_version: int = SCHEMA_VERSION
    name: str
    version: str
    created: str
    """RFC 3339, UTC."""
    framework: str
    """What trained it, with versions, for people: ``scikit-learn 1.9.1``."""
    signature: Signature
    files: tuple[BundleFile, ...] = Field(min_length=1)
    parity: Parity | None = None
    warmup: tuple[dict[str, Value], ...] = ()
    """Rows of raw features to warm the session with."""
    batching: Batching = Batching()


class GoldenSample(BundleModel):
    """Raw features and what the training pipeline itself answered: a line of ``golden.jsonl``."""

    features: dict[str, Value]
    prediction: Value
    probabilities: tuple[float, ...] | None = None
    """In the order of ``outputs.classes``."""
    preprocessed: tuple[Value, ...] | None = None
    """What the model itself was given, in the order of the columns of ``outputs.preprocessed``."""


class Distribution(BundleModel):
    """How often which values occurred, in bins; without any where the values are sensitive."""

    name: str
    """A feature's, or a label's; ``prediction`` for the predictions."""
    missing: int = Field(ge=0)
    """Nulls; they are in no bin."""
    edges: tuple[float, ...] | None = None
    """Of numbers, rising: a bin holds what is above the edge before it and at most its own; there is one
    bin more than there are edges, for what is above the last."""
    categories: tuple[str, ...] | None = None
    """Of texts and labels, sorted, each a bin; there is one bin more, for all others."""
    counts: tuple[int, ...] = ()
    """Rows in each bin."""

    @model_validator(mode="after")
    def _a_count_for_each_bin(self) -> "Distribution":
        bins = self.edges if self.edges is not None else self.categories
        expected = 0 if bins is None else len(bins) + 1
        if len(self.counts) != expected or (self.edges is not None and self.categories is not None):
            message = (
                f"{self.name!r} has {len(self.counts)} counts, not {expected}: edges or categories, and one"
            )
            raise ValueError(message)
        return self


class Reference(BundleModel):
    """The content of ``reference.json``: the training data, which live data is compared with for drift."""

    schema_version: int = SCHEMA_VERSION
    rows: int = Field(ge=0)
    """Rows of the training frame."""
    features: tuple[Distribution, ...]
    """In the order of the signature."""
    prediction: Distribution
    """What the training pipeline answered to the training frame."""
    probabilities: tuple[Distribution, ...] = ()
    """Of each class, in their order; none for regressors."""
