"""What can be typed after ``greenroom``; each command imports what it needs when it runs."""

from typing import Annotated

import typer

from greenroom.commands import cluster, local, models, plan, requests

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
        from importlib.metadata import version as installed_version  # noqa: PLC0415 each help would wait

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
        "greenroom package training:fit --data train.csv --name churn --version v3 --to s3://models/churn",
    )
)(models.package)
app.command(
    epilog=_examples(
        "greenroom verify models/churn/v3",
        "greenroom verify s3://models/churn/v3",
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
app.command(
    epilog=_examples(
        "greenroom render modeldeployment.yaml",
        "greenroom render modeldeployment.yaml --namespace ml | kubectl diff -f -",
        "greenroom render modeldeployment.yaml -o json",
    )
)(plan.render)
app.command(
    epilog=_examples(
        "greenroom predict http://127.0.0.1:8080 age=31 plan=plus income=null",
        "greenroom predict churn --namespace ml --json row.json --user u1 -o json",
        "greenroom predict churn age=31 --user u1 --attribute country=NO",
    )
)(requests.predict)
app.command(
    epilog=_examples(
        "greenroom status churn",
        "greenroom status churn --watch",
        "greenroom status churn -n ml -o json",
    )
)(cluster.status)
app.command(
    epilog=_examples(
        "greenroom promote churn v3 --file models/churn.yaml | git apply",
        "greenroom promote churn",
        "greenroom promote churn v3 --apply",
    )
)(cluster.promote)
app.command(
    epilog=_examples(
        "greenroom rollback churn --file models/churn.yaml | git apply",
        "greenroom rollback churn --apply",
    )
)(cluster.rollback)
for _act in (cluster.promote_step, cluster.abort, cluster.pause, cluster.resume, cluster.retry):
    _verb = _act.__name__.replace("_", "-")
    app.command(
        name=_verb,
        epilog=_examples(f"greenroom {_verb} churn", f"greenroom {_verb} churn -n ml --version v3"),
    )(_act)

_flags = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="Which version a user gets.")
_flags.command(
    epilog=_examples(
        "greenroom flags explain churn --user u1",
        "greenroom flags explain modeldeployment.yaml --user u1 --percent 10 --attribute country=NO",
        "greenroom flags explain flags.json --user u1 -o json",
    )
)(plan.explain)
app.add_typer(_flags, name="flags")

_logs = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="What was answered.")
_logs.command(
    epilog=_examples(
        "greenroom logs query --from predictions/",
        "greenroom logs query 'SELECT version, count(*) FROM predictions GROUP BY 1' --from s3://logs/ml/churn",
        "greenroom logs query \"SELECT * FROM predictions WHERE entity = 'u1'\" --from predictions/ -o json",
    )
)(requests.query)
app.add_typer(_logs, name="logs")
