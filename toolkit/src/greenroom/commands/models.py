"""The commands that make and check bundles."""

from pathlib import Path
from typing import Annotated, Any

import typer

from greenroom.commands.options import Output
from greenroom.errors import FAILED
from greenroom.output import OutputFormat


def verify(
    bundle: Annotated[Path, typer.Argument(help="A bundle's directory.", metavar="BUNDLE")],
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
    from greenroom.output import show  # noqa: PLC0415
    from greenroom.progress import doing  # noqa: PLC0415
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
