"""What can be typed after ``greenroom``; each command imports what it needs when it runs."""

from importlib.metadata import version as installed_version
from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    rich_markup_mode="markdown",
    help="Serve machine-learning models so that an unproven one never answers.",
)

Port = Annotated[
    int, typer.Option("--port", min=0, max=65535, help="Port of the predictions; 0 takes a free one.")
]
AdminPort = Annotated[
    int,
    typer.Option(
        "--admin-port", min=0, max=65535, help="Port of health, metrics and report; 0 takes a free one."
    ),
]


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


@app.command()
def serve(
    directory: Annotated[
        Path,
        typer.Argument(
            help="A bundle, a directory with a plain `model.onnx` or with MLflow's `MLmodel`, or one that "
            "holds such directories, one a version.",
            metavar="DIR",
        ),
    ],
    version: Annotated[
        str | None, typer.Option("--version", help="Which version, where DIR holds several.")
    ] = None,
    port: Port = 8080,
    admin_port: AdminPort = 0,
) -> None:
    """Serve one version of a model on this machine, proven first as in a cluster. Ctrl-C ends it.

    Without a bundle there are no golden samples, so nobody knows whether it answers as trained. Predictions
    are not recorded.

    **Examples**

    `greenroom serve models/penguins/v1`

    `greenroom serve models/penguins --version v2 --port 9000`

    `greenroom serve ./my_model`
    """
    from greenroom.local.serve import serve_bundle  # noqa: PLC0415

    raise typer.Exit(serve_bundle(directory, version=version, port=port, admin_port=admin_port))


@app.command()
def run(
    manifest: Annotated[
        Path, typer.Argument(help="A YAML file with one ModelDeployment.", metavar="MODELDEPLOYMENT.YAML")
    ],
    source: Annotated[
        str | None,
        typer.Option(
            "--source", help="Take the versions from here instead: a directory, file:///… or s3://…"
        ),
    ] = None,
    port: Port = 8080,
    admin_port: AdminPort = 0,
) -> None:
    """Run a ModelDeployment on this machine, with no cluster: one serving process, whatever `replicas` says.

    The file is watched. Edit `version`: the new one is proven beside the old one, then takes over without a
    restart; one that fails its proof changes nothing. Credentials for s3:// come from this shell's
    environment (AWS_ACCESS_KEY_ID, …), where a cluster takes them from `secretRef`. Ctrl-C ends it.

    **Examples**

    `greenroom run modeldeployment.yaml`

    `greenroom run modeldeployment.yaml --source models/penguins --port 9000`
    """
    from greenroom.local.run import run_deployment  # noqa: PLC0415

    raise typer.Exit(run_deployment(manifest, source=source, port=port, admin_port=admin_port))
