"""A fitted scikit-learn pipeline as a bundle that the runtime serves, proven equal to it."""

import json
import re
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pandas as pd
import sklearn
from sklearn.base import is_classifier
from sklearn.utils.validation import NotFittedError, check_is_fitted

from greenroom.packaging.blame import find_culprit
from greenroom.packaging.boosting import libraries_of
from greenroom.packaging.errors import (
    Difference,
    ExportError,
    FrameError,
    PackagingError,
    ParityError,
    VersionExistsError,
)
from greenroom.packaging.export import ARITHMETICS, export_pipeline, used_columns
from greenroom.packaging.frame import Policies, check_frame, publish, read_features, to_rows
from greenroom.packaging.hostile import HostileRow, hostile_rows
from greenroom.packaging.parity import (
    Answers,
    Comparison,
    ask_frame,
    ask_graph,
    ask_pipeline,
    compare,
    plain,
    refuse,
)
from greenroom.packaging.preprocessing import Preprocessed, expose
from greenroom.packaging.reference import read_reference
from greenroom.packaging.write import check_target, describe, write_bundle
from greenroom_runtime.contract import names
from greenroom_runtime.contract.bundle import (
    GOLDEN_FILE,
    MODEL_FILE,
    REFERENCE_FILE,
    Batching,
    Bundle,
    Feature,
    GoldenSample,
    Outputs,
    Signature,
    Value,
)
from greenroom_runtime.models.failures import VersionError
from greenroom_runtime.models.session import ModelSession
from greenroom_runtime.models.verification import replay

__all__ = [
    "Difference",
    "ExportError",
    "FrameError",
    "PackagingError",
    "ParityError",
    "VersionExistsError",
    "package",
]

MIN_PARITY_ROWS = 1000
GOLDEN_SAMPLES = 60
WARMUP_ROWS = 8
MAX_BATCH_ROWS = 65536


def package(
    pipeline: Any,
    X: pd.DataFrame,  # noqa: N803 scikit-learn's name for it
    y: Sequence[Value] | None = None,
    *,
    name: str,
    version: str,
    to: str | Path,
    sensitive: Collection[str] = (),
    refuse_unseen: Collection[str] = (),
    refuse_outside: Collection[str] = (),
    max_batch_rows: int = 64,
    tolerance: float = 1e-5,
    parity_rows: int = 2000,
    seed: int = 0,
    overwrite: bool = False,
    created: datetime | None = None,
    say: Callable[[str], None] | None = None,
) -> Path:
    """Write a fitted pipeline as the bundle ``to/version`` and return that directory.

    ``X`` is the frame that the pipeline was fitted on (the signature and the hostile rows come from it),
    ``y`` its labels, which are checked against the pipeline's classes where given. ``tolerance`` bounds
    the difference of a probability; for a regressor it is relative to the median of its predictions. The same
    arguments, ``created`` included, give the same bytes.

    Three collections of columns: the values of ``sensitive`` are shown by no log and no error; a text of
    ``refuse_unseen`` that is none of the categories of ``X``, and a number of ``refuse_outside`` beyond the
    range of ``X``, are refused at the door and never reach the model. ``max_batch_rows`` bounds the rows of
    one run of the model. ``say`` is told what is under way.

    Raises FrameError for a frame that cannot be described, ExportError for a step without an equal in
    ONNX, ParityError when the export answers any of ``parity_rows`` hostile rows otherwise than the
    pipeline, VersionExistsError for a version that is there; all are PackagingErrors, and nothing is
    written then.
    """
    _check_arguments(name, version, tolerance, parity_rows, max_batch_rows)
    if "://" in str(to):
        raise PackagingError(
            f"{to} is no directory: package into one, and publish that; the command `greenroom package "
            "--to` does both"
        )
    target = Path(to) / version
    check_target(target, overwrite=overwrite)
    check_frame(X)
    _check_pipeline(pipeline, X, y)
    columns = list(X.columns)
    used = X[used_columns(pipeline, columns)]
    policies = _policies(
        list(used.columns), sensitive=sensitive, refuse_unseen=refuse_unseen, refuse_outside=refuse_outside
    )
    features = read_features(used, policies)
    trained_on = to_rows(used, features)
    rows = hostile_rows(trained_on, features, count=parity_rows, seed=seed)
    tell = say or (lambda _: None)
    tell(f"asking the pipeline {len(rows)} hostile rows")
    expected = ask_pipeline(pipeline, rows, used, features)
    best = _best_export(
        pipeline, features, columns, rows, expected, like=used, tolerance=tolerance, tell=tell
    )
    tell("golden samples and reference")
    preprocessed = expose(best.export, pipeline, rows, used, features)
    files = {
        MODEL_FILE: preprocessed.export.graph,
        GOLDEN_FILE: _golden(rows, expected, best, preprocessed),
        REFERENCE_FILE: _reference(pipeline, used, trained_on, features, best),
    }
    bundle = Bundle(
        name=name,
        version=version,
        created=(created or datetime.now(UTC)).astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        framework=", ".join([f"scikit-learn {sklearn.__version__}", *libraries_of(pipeline)]),
        signature=_signature(pipeline, features, best, preprocessed),
        files=describe(files),
        parity=best.parity.model_copy(update={"preprocessed": preprocessed.told}),
        warmup=tuple(row.features for row in rows if row.kind == "ordinary")[:WARMUP_ROWS],
        batching=Batching(max_rows=max_batch_rows),
    )
    write_bundle(target, bundle, files, overwrite=overwrite, prove=lambda stage: _replay(stage, bundle))
    return target


def _check_arguments(
    name: str, version: str, tolerance: float, parity_rows: int, max_batch_rows: int
) -> None:
    if not name:
        raise PackagingError("name is empty: give the model's name, as in name='churn'")
    aliases = (names.ALIAS_PRODUCTION, names.ALIAS_PREVIOUS)
    if (
        len(version) > names.VERSION_MAX_LENGTH
        or not re.match(names.VERSION_PATTERN, version)
        or version in aliases
    ):
        raise PackagingError(
            f"{version!r} is no version's name: use lower-case letters, digits, '-' and '.', like v2 or "
            f"2026.11.3, at most {names.VERSION_MAX_LENGTH} characters, and neither of {aliases}"
        )
    if tolerance <= 0:
        raise PackagingError(f"tolerance is {tolerance}: it is a positive number, like 1e-5")
    if parity_rows < MIN_PARITY_ROWS:
        raise PackagingError(f"parity_rows is {parity_rows}: fewer than {MIN_PARITY_ROWS} prove little")
    if not 1 <= max_batch_rows <= MAX_BATCH_ROWS:
        raise PackagingError(
            f"max_batch_rows is {max_batch_rows}: it is 1, which runs every row alone, to {MAX_BATCH_ROWS}"
        )


def _policies(columns: Sequence[str], **named: Collection[str]) -> Policies:
    for parameter, names_given in named.items():
        if isinstance(names_given, str):
            raise PackagingError(
                f"{parameter} is a text: pass several names, as in {parameter}=[{names_given!r}]"
            )
        if unknown := [name for name in names_given if name not in columns]:
            raise PackagingError(
                f"{parameter} names what is no feature of the pipeline: {unknown}; it reads {list(columns)}"
            )
    return Policies(**{parameter: frozenset(given) for parameter, given in named.items()})


def _check_pipeline(pipeline: Any, frame: pd.DataFrame, y: Sequence[Value] | None) -> None:
    try:
        check_is_fitted(pipeline)
    except (NotFittedError, TypeError) as error:
        raise PackagingError(f"the pipeline is not a fitted scikit-learn estimator: {error}") from error
    fitted = getattr(pipeline, "feature_names_in_", None)
    if fitted is None:
        raise PackagingError("the pipeline was fitted without column names: fit it on a pandas DataFrame")
    if list(fitted) != list(frame.columns):
        raise FrameError(
            f"the pipeline was fitted on the columns {list(fitted)}, X has {list(frame.columns)}: "
            "pass the same frame, in the same order"
        )
    if is_classifier(pipeline) and not hasattr(pipeline, "predict_proba"):
        raise ExportError(
            "the classifier has no probabilities, and answers are compared by them: use one that has, "
            "or wrap it in CalibratedClassifierCV, and fit again"
        )
    if y is not None and len(y) != len(frame):
        raise FrameError(f"y has {len(y)} values and X {len(frame)} rows: pass those of the same frame")
    if y is not None and is_classifier(pipeline):
        known = {plain(label) for label in pipeline.classes_}
        if strangers := sorted({str(label) for label in y if plain(label) not in known}):
            raise FrameError(f"y has labels that the pipeline never learned: {strangers[:5]}: pass its own y")


def _best_export(
    pipeline: Any,
    features: Sequence[Feature],
    columns: Sequence[str],
    rows: Sequence[HostileRow],
    expected: Answers,
    *,
    like: pd.DataFrame,
    tolerance: float,
    tell: Callable[[str], None],
) -> Comparison:
    comparisons: list[Comparison] = []
    failures: list[ExportError] = []
    for arithmetic in ARITHMETICS:
        tell(f"exporting in {arithmetic}, and comparing")
        try:
            candidate = export_pipeline(pipeline, features, columns, arithmetic=arithmetic)
            found = ask_graph(candidate, rows, features)
        except ExportError as error:
            failures.append(error)
            continue
        comparisons.append(compare(candidate, rows, expected, found, tolerance=tolerance))
    if not comparisons:
        raise failures[-1]
    best = min(comparisons, key=lambda comparison: comparison.badness)
    if best.differences:
        culprit = find_culprit(best.export, pipeline, rows, like, features)
        raise refuse(best, [str(failure) for failure in failures], features, culprit=culprit)
    return best


def _replay(stage: Path, bundle: Bundle) -> None:
    """Load the written bundle as a pod would and replay its golden samples, before anybody can see it."""
    try:
        replay(ModelSession(stage, bundle=bundle), stage)
    except VersionError as error:
        raise ExportError(
            f"the serving runtime refuses the bundle: {error}: choose a simpler pipeline"
        ) from error


def _golden(
    rows: Sequence[HostileRow], expected: Answers, best: Comparison, preprocessed: Preprocessed
) -> bytes:
    """Return the first rows of each kind, the kinds taking turns, with the training pipeline's answers."""
    classifier = best.export.probabilities is not None
    lines = []
    for index, row in enumerate(rows[:GOLDEN_SAMPLES]):
        scores = expected.scores[index] if classifier else None
        sample = GoldenSample(
            features=row.features,
            prediction=best.label(expected.predictions[index]),
            probabilities=None if scores is None else tuple(float(score) for score in scores),
            preprocessed=preprocessed.row(index),
        )
        lines.append(json.dumps(sample.model_dump(mode="json"), ensure_ascii=False, allow_nan=False) + "\n")
    return "".join(lines).encode()


def _reference(
    pipeline: Any,
    frame: pd.DataFrame,
    rows: Sequence[dict[str, Value]],
    features: Sequence[Feature],
    best: Comparison,
) -> bytes:
    answers = ask_frame(pipeline, frame)
    classes = None
    if is_classifier(pipeline):
        classes = [best.label(plain(label)) for label in pipeline.classes_]
        answers = replace(answers, predictions=[best.label(label) for label in answers.predictions])
    reference = read_reference(rows, features, answers, classes)
    text = json.dumps(reference.model_dump(mode="json"), ensure_ascii=False, allow_nan=False)
    return f"{text}\n".encode()


def _signature(
    pipeline: Any, features: Sequence[Feature], best: Comparison, preprocessed: Preprocessed
) -> Signature:
    return Signature(
        features=tuple(publish(feature) for feature in features),
        tensors=best.export.tensors,
        outputs=Outputs(
            prediction=best.export.prediction,
            probabilities=best.export.probabilities,
            classes=tuple(best.label(plain(label)) for label in pipeline.classes_)
            if is_classifier(pipeline)
            else None,
            preprocessed=preprocessed.output,
        ),
    )
