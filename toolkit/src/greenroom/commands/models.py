"""The commands that make and check bundles."""

import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from greenroom.commands.options import Output
from greenroom.errors import FAILED
from greenroom.output import OutputFormat, show
from greenroom.progress import doing


def package(
    pipeline: Annotated[
        str,
        typer.Argument(
            help="A fitted pipeline: MODULE:NAME of one, or of a function that returns one; or a file saved "
            "by joblib. That is a pickle: it runs its author's code, so name only your own.",
            metavar="FILE|MODULE:NAME",
        ),
    ],
    *,
    data: Annotated[Path, typer.Option(help="The training data, as CSV or Parquet.", metavar="FILE")],
    name: Annotated[str, typer.Option(help="The model's name.")],
    version: Annotated[str, typer.Option(help="The version's name, and its directory's.")],
    to: Annotated[
        str,
        typer.Option(
            help="The source: the bundle is TO/VERSION. A directory, or s3://BUCKET/PREFIX, gs://… or az://….",
            metavar="DIR|URI",
        ),
    ],
    target: Annotated[
        str | None, typer.Option(help="The column with the labels, which are checked, too.")
    ] = None,
    sensitive: Annotated[
        list[str],
        typer.Option(
            help="A column whose values no log and no error shows; may be repeated.", metavar="COLUMN"
        ),
    ] = [],  # noqa: B006 typer copies it
    refuse_unseen: Annotated[
        list[str],
        typer.Option(
            help="A text column of which the door refuses unseen values; may be repeated.", metavar="COLUMN"
        ),
    ] = [],  # noqa: B006 typer copies it
    refuse_outside: Annotated[
        list[str],
        typer.Option(
            help="A number column of which the door refuses what is out of range; may be repeated.",
            metavar="COLUMN",
        ),
    ] = [],  # noqa: B006 typer copies it
    max_batch_rows: Annotated[int, typer.Option(help="Most rows in one run of the model.")] = 64,
    tolerance: Annotated[float, typer.Option(help="How far a score may be off.")] = 1e-5,
    parity_rows: Annotated[int, typer.Option(help="Hostile rows to agree on, at least 1000.")] = 2000,
    seed: Annotated[int, typer.Option(help="Makes these rows.")] = 0,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a version that is there.")] = False,
    output: Output = OutputFormat.TABLE,
) -> None:
    """Package a fitted scikit-learn pipeline as a bundle, proven equal to it.

    XGBoost's and LightGBM's models may be in it. What cannot be proven equal is refused, with the rows that
    differ and what to do, and nothing is written; the exit code is 1. CSV has no types: a text column of
    digits is read as numbers, so prefer Parquet.

    Into an object store bundle.json goes last, with credentials from the environment (AWS_ACCESS_KEY_ID, …).
    A version that is there is left alone: with the same bytes all is well, with others it is an error.
    """
    from greenroom.errors import CommandError  # noqa: PLC0415
    from greenroom.packaging import PackagingError  # noqa: PLC0415
    from greenroom.packaging import package as write_bundle  # noqa: PLC0415
    from greenroom.packaging.data import read_frame, split_target  # noqa: PLC0415

    fitted = _load_fitted(pipeline)

    def write(directory: Path) -> Path:
        with doing(f"packaging {name} {version}") as say:
            frame, labels = split_target(fitted, read_frame(data), target)
            return write_bundle(
                fitted,
                frame,
                labels,
                name=name,
                version=version,
                to=directory,
                sensitive=sensitive,
                refuse_unseen=refuse_unseen,
                refuse_outside=refuse_outside,
                max_batch_rows=max_batch_rows,
                tolerance=tolerance,
                parity_rows=parity_rows,
                seed=seed,
                overwrite=overwrite,
                say=say,
            )

    try:
        told = _write(write, to, version=version, overwrite=overwrite)
    except PackagingError as error:
        raise CommandError(str(error)) from error
    show(told, output, table=lambda: _summarize(told))


def _load_fitted(place: str) -> Any:
    """Return the pipeline that is named, or that the function returns that is named."""
    found = _load(place)
    if not callable(found) or hasattr(found, "predict"):
        return found
    from traceback import extract_tb  # noqa: PLC0415

    from greenroom.errors import CommandError  # noqa: PLC0415

    try:
        return found()
    except Exception as error:
        last = extract_tb(error.__traceback__)[-1]
        raise CommandError(
            f"{place} raises {type(error).__name__}: {error} ({last.filename}, line {last.lineno}): name a "
            "fitted pipeline, or a function without arguments that returns one"
        ) from error


def _write(write: Callable[[Path], Path], to: str, *, version: str, overwrite: bool) -> dict[str, Any]:
    """Write the bundle into a directory, or publish it from one that goes afterwards; describe it."""
    from greenroom.stores import local_path  # noqa: PLC0415

    if (directory := local_path(to)) is not None:
        return _describe(write(directory))
    from greenroom.packaging.publishing import Publication  # noqa: PLC0415
    from greenroom_runtime.models.manifest import digest_of  # noqa: PLC0415

    publication = Publication.open(to, version, overwrite=overwrite, environment=os.environ)
    with tempfile.TemporaryDirectory(prefix="greenroom-") as staging:
        path = write(Path(staging))
        told = {**_describe(path), "bundle": publication.remote.uri}
        digest = digest_of(publication.publish(path))
    if digest != told["digest"]:
        typer.echo(f"greenroom: {told['bundle']} has the same model already: nothing was written", err=True)
    return {**told, "digest": digest}


def _describe(path: Path) -> dict[str, Any]:
    from greenroom_runtime.contract.bundle import BUNDLE_FILE, Bundle  # noqa: PLC0415
    from greenroom_runtime.models.manifest import digest_of  # noqa: PLC0415

    raw = (path / BUNDLE_FILE).read_bytes()
    bundle = Bundle.model_validate_json(raw)
    return {
        "bundle": str(path),
        "model": bundle.name,
        "version": bundle.version,
        "digest": digest_of(raw),
        "framework": bundle.framework,
        "features": len(bundle.signature.features),
        "parity": bundle.parity.model_dump(mode="json") if bundle.parity else None,
    }


def _summarize(told: dict[str, Any]) -> str:
    parity = told["parity"]
    return (
        f"{told['bundle']}: {parity['rows']} hostile rows answered as by the pipeline, largest score error "
        f"{parity['max_abs_error']:.2g}; preprocessing {parity['preprocessed']}"
    )


def verify(
    bundle: Annotated[
        str,
        typer.Argument(
            help="A bundle's directory, or its URI: s3://BUCKET/PREFIX/VERSION, gs://…, az://… or https://….",
            metavar="BUNDLE",
        ),
    ],
    *,
    against: Annotated[
        str | None,
        typer.Option(
            help="The code that must answer alike: a fitted pipeline saved by joblib, or MODULE:NAME of a "
            "pipeline, or of a function that takes a DataFrame. A joblib file is a pickle: it runs its "
            "author's code, so name only your own.",
            metavar="FILE|MODULE:NAME",
        ),
    ] = None,
    preprocessing: Annotated[
        str | None,
        typer.Option(
            help="A function from a DataFrame to the preprocessed features; these must be equal.",
            metavar="MODULE:FUNCTION",
        ),
    ] = None,
    rows: Annotated[
        int, typer.Option(min=0, max=1_000_000, help="Hostile rows on which --against must agree, too.")
    ] = 1000,
    seed: Annotated[int, typer.Option(help="Makes these rows.")] = 0,
    junit: Annotated[
        Path | None, typer.Option(help="Write the checks as JUnit XML to this file.", metavar="FILE")
    ] = None,
    every: Annotated[bool, typer.Option("--all", help="Show every row that differs.")] = False,
    output: Output = OutputFormat.TABLE,
) -> None:
    """Verify that a bundle answers as its training pipeline did, and that today's code does.

    The exit code is 0 where all holds, 1 where something differs, 2 where that cannot be found out.
    """
    from greenroom.verification import verify as verify_bundle  # noqa: PLC0415
    from greenroom.verification.junit import to_junit, write_junit  # noqa: PLC0415
    from greenroom.verification.screen import draw  # noqa: PLC0415

    with doing(f"verifying {bundle}") as say:
        found = verify_bundle(
            bundle,
            against=_load(against),
            preprocessing=_load(preprocessing),
            rows=rows,
            seed=seed,
            say=say,
        )
    if junit is not None:
        write_junit(junit, to_junit(found))
    show(found.to_data(), output, table=lambda: draw(found, every=every))
    raise typer.Exit(0 if found.ok else FAILED)


def _load(place: str | None) -> Any:
    if place is None:
        return None
    from greenroom.verification.subject import load  # noqa: PLC0415 scikit-learn: two seconds

    return load(place)
