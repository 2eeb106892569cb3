"""Everybody's answers beside the golden samples."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from greenroom.sensitive import public_row, spell_error
from greenroom.verification.compare import Answer, Judge
from greenroom.verification.diagnose import diagnose
from greenroom.verification.errors import SubjectError, UnverifiableError
from greenroom.verification.report import Check, Outcome, Part
from greenroom_runtime.contract.bundle import GOLDEN_FILE, Bundle, GoldenSample
from greenroom_runtime.models.failures import VersionError
from greenroom_runtime.models.session import ModelSession
from greenroom_runtime.models.verification import read_golden


@dataclass(frozen=True, kw_only=True)
class Verifier:
    """Compares everybody with the golden samples, by the bundle's own session."""

    session: ModelSession
    samples: Sequence[GoldenSample]
    judge: Judge
    say: Callable[[str], None]
    dtype: Any
    """The type of the preprocessed features, None where the samples hold none."""

    @classmethod
    def open(cls, place: Path, bundle: Bundle, *, say: Callable[[str], None]) -> "Verifier":
        """Load the bundle in this process, which its proof has shown to be safe, and read its samples."""
        golden = any(file.path == GOLDEN_FILE for file in bundle.files)
        session = ModelSession(place, bundle=bundle)
        try:
            samples = list(read_golden(session, place / GOLDEN_FILE)) if golden else []
        except VersionError as error:
            raise UnverifiableError(f"{place}: {error.failure.message}: package the model again") from error
        shown = bundle.signature.outputs.preprocessed is not None and samples and samples[0].preprocessed
        dtype = session.preprocess([samples[0].features]).dtype if shown else None
        return cls(session=session, samples=samples, judge=Judge(bundle=bundle), say=say, dtype=dtype)

    def compare(
        self, against: Any, preprocessing: Callable[..., Any] | None, *, rows: int, seed: int
    ) -> tuple[list[Check], list[str]]:
        """Return the checks of whatever there is to compare, and what may have caused differences."""
        if not self.samples:
            if against is not None or preprocessing is not None:
                raise UnverifiableError(
                    f"the bundle has no {GOLDEN_FILE}, so there is nothing to verify against: package the "
                    "model with greenroom.package"
                )
            message = f"the bundle has no {GOLDEN_FILE}: nobody knows whether it answers as trained"
            absent = Check(part=Part.GOLDEN, name="all", outcome=Outcome.SKIPPED, message=message)
            return [absent], []
        self.say(f"{len(self.samples)} golden samples")
        checks, causes = self._judge_all(Part.GOLDEN, self._ask_graph())
        for part, ask in (
            (Part.PIPELINE, None if against is None else lambda: self._ask_subject(against)),
            (Part.PREPROCESSING, None if preprocessing is None else lambda: self._preprocess(preprocessing)),
        ):
            if ask is not None:
                self.say(str(part))
                more, why = self._judge_all(part, ask())
                checks, causes = [*checks, *more], [*causes, *why]
        if against is not None and rows:
            self.say(f"{rows} hostile rows")
            checks.append(self._hostile(against, count=rows, seed=seed))
        return checks, causes

    def _ask_graph(self) -> list[Answer]:
        return [self._graph_answer(sample.features) for sample in self.samples]

    def _graph_answer(self, row: Any) -> Answer:
        try:
            (answer,) = self.session.predict([row])
            preprocessed = None if self.dtype is None else self.session.preprocess([row])[0]
        except Exception as error:  # noqa: BLE001 onnxruntime's own errors have no common base
            return Answer(prediction=f"an error: {spell_error(error, self._features)}")
        return Answer(
            prediction=answer.prediction, probabilities=answer.probabilities, preprocessed=preprocessed
        )

    def _ask_subject(self, own: Any) -> list[Answer]:
        """Return its answers to the samples, with missing texts spelled as it likes them best."""
        from greenroom.verification.subject import Subject  # noqa: PLC0415 scikit-learn: two seconds

        subject = Subject(own=own, bundle=self.session.bundle)
        rows = [sample.features for sample in self.samples]
        spelled = (subject.answer(rows, null=null, dtype=self.dtype) for null in self._nulls())
        return min(spelled, key=lambda answers: sum(map(self._differs, self.samples, answers)))

    def _nulls(self) -> list[Any]:
        """Return how a missing text may be spelled: a frame has NaN or None, and a pipeline learns which."""
        texts = any(feature.dtype == "string" and feature.nullable for feature in self._features)
        return [np.nan, None] if texts else [np.nan]

    @property
    def _features(self) -> Any:
        return self.session.bundle.signature.features

    def _differs(self, sample: GoldenSample, found: Answer) -> bool:
        return bool(self.judge.findings(self.judge.expected_of(sample, self.dtype), found))

    def _preprocess(self, function: Callable[..., Any]) -> list[Answer]:
        from greenroom.verification.subject import frame_of, matrix_of  # noqa: PLC0415

        if self.dtype is None:
            why = self.session.bundle.parity.preprocessed if self.session.bundle.parity else ""
            raise UnverifiableError(
                f"the golden samples hold no preprocessed features ({why or 'they were not recorded'}): "
                "verify the whole pipeline with --against"
            )
        rows = [sample.features for sample in self.samples]
        spelled = []
        for null in self._nulls():
            frame = frame_of(rows, self._features, null=null)
            try:
                values = function(frame)
            except Exception as error:
                told = spell_error(error, self._features)
                raise SubjectError(f"the preprocessing raises on the golden samples' rows: {told}") from error
            matrix = matrix_of(values, self.dtype)
            if matrix.ndim != 2 or len(matrix) != len(rows):  # noqa: PLR2004
                raise SubjectError(
                    f"the preprocessing gives {matrix.shape} for {len(rows)} rows: give one for each"
                )
            spelled.append([Answer(preprocessed=row) for row in matrix])
        return min(spelled, key=lambda answers: sum(map(self._differs, self.samples, answers)))

    def _judge_all(self, part: Part, answers: Sequence[Answer]) -> tuple[list[Check], list[str]]:
        expected = [self.judge.expected_of(sample, self.dtype) for sample in self.samples]
        checks = [
            self.judge.check(
                part, f"golden sample {at}", row=sample.features, expected=expected[at], found=answers[at]
            )
            for at, sample in enumerate(self.samples)
        ]
        causes = diagnose(
            [sample.features for sample in self.samples],
            [check.outcome is Outcome.FAILED for check in checks],
            _stack(expected),
            _stack(answers),
        )
        return checks, list(causes)

    def _hostile(self, own: Any, *, count: int, seed: int) -> Check:
        """Compare code and graph on rows made of the samples; the worst one is told."""
        from greenroom.packaging.hostile import hostile_rows  # noqa: PLC0415
        from greenroom.verification.subject import Subject  # noqa: PLC0415

        made = hostile_rows(
            [sample.features for sample in self.samples], self._features, count=count, seed=seed
        )
        rows = [row.features for row in made]
        subject = Subject(own=own, bundle=self.session.bundle)
        graph = [self._graph_answer(row) for row in rows]
        spelled = [subject.answer(rows, null=null, dtype=None) for null in self._nulls()]
        found = min(
            (
                [pair for pair in enumerate(map(self.judge.findings, answers, graph)) if pair[1]]
                for answers in spelled
            ),
            key=len,
        )
        name = f"{count} rows"
        if not found:
            return Check(part=Part.HOSTILE, name=name)
        at, findings = found[0]
        message = (
            f"the code answers {len(found)} of {count} rows otherwise than the graph, the first of them of "
            f"kind {made[at].kind!r}; expected is the code's answer"
        )
        return Check(
            part=Part.HOSTILE,
            name=name,
            outcome=Outcome.FAILED,
            message=message,
            features=public_row(rows[at], self._features),
            findings=findings,
        )


def _stack(answers: Sequence[Answer]) -> Any:
    vectors = [answer.preprocessed for answer in answers]
    if any(vector is None for vector in vectors) or len({vector.shape for vector in vectors}) != 1:
        return None
    return np.stack(vectors)
