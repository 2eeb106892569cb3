"""Options that several commands have."""

from typing import Annotated

import typer

from greenroom.output import OutputFormat

Output = Annotated[OutputFormat, typer.Option("--output", "-o", help="How to print what was found.")]
