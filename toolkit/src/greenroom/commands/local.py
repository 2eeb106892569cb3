"""The commands that serve on this machine."""

from pathlib import Path
from typing import Annotated

import typer

Port = Annotated[
    int, typer.Option("--port", min=0, max=65535, help="Port of the predictions; 0 takes a free one.")
]
AdminPort = Annotated[
    int,
    typer.Option(
        "--admin-port", min=0, max=65535, help="Port of health, metrics and report; 0 takes a free one."
    ),
]


def serve(
    directory: Annotated[
        Path,
        typer.Argument(
            help="A bundle, a directory with a plain model.onnx or with MLflow's MLmodel, or one that "
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
    """
    from greenroom.local.serve import serve_bundle  # noqa: PLC0415

    raise typer.Exit(serve_bundle(directory, version=version, port=port, admin_port=admin_port))


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
    """Run a ModelDeployment and its shadow on this machine, with no cluster, whatever replicas says.

    The file is watched. Edit version: the new one is proven beside the old one, then takes over without a
    restart; one that fails its proof changes nothing. Credentials for s3:// come from this shell's
    environment (AWS_ACCESS_KEY_ID, …), where a cluster takes them from secretRef. Ctrl-C ends it.
    """
    from greenroom.local.run import run_deployment  # noqa: PLC0415

    raise typer.Exit(run_deployment(manifest, source=source, port=port, admin_port=admin_port))
