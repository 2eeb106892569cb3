"""Options that several commands have."""

import json
from collections.abc import Sequence
from typing import Annotated, Any

import typer

from greenroom.commands.completing import complete_name
from greenroom.errors import CommandError
from greenroom.output import OutputFormat

Output = Annotated[OutputFormat, typer.Option("--output", "-o", help="How to print what was found.")]
Namespace = Annotated[
    str | None, typer.Option("--namespace", "-n", help="Namespace; the context's without it.")
]
Context = Annotated[
    str | None, typer.Option("--context", help="Context of the kubeconfig; the current one without.")
]
Name = Annotated[
    str, typer.Argument(help="A ModelDeployment's name.", metavar="NAME", autocompletion=complete_name)
]
Attributes = Annotated[
    list[str],
    typer.Option(
        "--attribute",
        "-a",
        help="An attribute of who asks, for a rollout's rules: country=NO, or cohorts='[\"beta\"]'; "
        "may be repeated.",
        metavar="NAME=VALUE",
    ),
]


def read_attributes(given: Sequence[str]) -> dict[str, Any]:
    """Return the context of a request; a value is JSON where it can be, else a text."""
    context: dict[str, Any] = {}
    for pair in given:
        name, equals, text = pair.partition("=")
        if not equals or not name:
            raise CommandError(f"{pair!r} is no attribute: write NAME=VALUE, such as country=NO")
        try:
            context[name] = json.loads(text)
        except ValueError:
            context[name] = text
    return context
