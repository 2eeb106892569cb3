"""What can be typed after ``greenroom``; each command imports what it needs when it runs."""

from importlib.metadata import version as installed_version
from typing import Annotated

import typer

from greenroom.commands import local, models

app = typer.Typer(
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
    rich_markup_mode=None,  # rich's help takes three times as long to appear, each time somebody asks
    help="Serve machine-learning models so that an unproven one never answers.",
    epilog="Shell completion: greenroom --install-completion",
)


def _print_version(value: bool) -> None:  # noqa: FBT001 typer's own way
    if value:
        typer.echo(f"greenroom {installed_version('greenroom')}")
        raise typer.Exit


@app.callback()
def _root(
    *,
    version: Annotated[
        bool,
        typer.Option("--version", help="Say which release this is.", callback=_print_version, is_eager=True),
    ] = False,
) -> None:
    pass


def _examples(*lines: str) -> str:
    return "\b\nExamples:\n" + "\n".join(f"  {line}" for line in lines)  # \b: not to be wrapped


app.command(
    epilog=_examples(
        "greenroom package pipeline.joblib --data train.parquet --name churn --version v3 --to models/churn",
        "greenroom package training:fit --data train.csv --target left --name churn --version v3 --to m",
        "greenroom package training:fit --data train.csv --name churn --version v3 --to m --sensitive age",
    )
)(models.package)
app.command(
    epilog=_examples(
        "greenroom verify models/churn/v3",
        "greenroom verify models/churn/v3 --against training:pipeline --junit verify.xml",
        "greenroom verify models/churn/v3 --against pipeline.joblib -o json",
        "greenroom verify models/churn/v3 --preprocessing serving.features:to_matrix",
    )
)(models.verify)
app.command(
    epilog=_examples(
        "greenroom serve models/penguins/v1",
        "greenroom serve models/penguins --version v2 --port 9000",
        "greenroom serve ./my_model",
    )
)(local.serve)
app.command(
    epilog=_examples(
        "greenroom run modeldeployment.yaml",
        "greenroom run modeldeployment.yaml --source models/penguins --port 9000",
    )
)(local.run)
