"""The commands that ask for predictions, and that look at those that were made."""

import json
import os
import sys
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from greenroom.commands.completing import complete_name
from greenroom.commands.options import Attributes, Context, Namespace, Output, read_attributes
from greenroom.errors import CommandError
from greenroom.output import OutputFormat, show, tabulate

if TYPE_CHECKING:
    from rich.console import RenderableType

Day = Annotated[datetime | None, typer.Option(formats=["%Y-%m-%d"], help="A day, UTC, included.")]


def predict(
    target: Annotated[
        str,
        typer.Argument(
            help="A URL, or a ModelDeployment's name in the cluster, asked through the API server.",
            metavar="URL|NAME",
            autocompletion=complete_name,
        ),
    ],
    features: Annotated[
        list[str], typer.Argument(help="The features, typed as /schema says.", metavar="NAME=VALUE")
    ] = [],  # noqa: B006 typer copies it
    *,
    body: Annotated[
        Path | None,
        typer.Option(
            "--json", help="A file with the features as a JSON object; - is standard input.", metavar="FILE"
        ),
    ] = None,
    user: Annotated[str | None, typer.Option("--user", help="Who asks: user_id of the request.")] = None,
    attribute: Attributes = [],  # noqa: B006
    namespace: Namespace = None,
    context: Context = None,
    output: Output = OutputFormat.TABLE,
) -> None:
    """Ask for one prediction, and say which version made it and why.

    What the model's door refuses is told feature by feature; the exit code is 1. In a cluster it takes the
    right to create services/proxy.
    """
    from greenroom.asking import ask_url  # noqa: PLC0415

    if ":" in target:  # no name has one
        answer = _predict(ask_url(target), features, body, user, attribute)
    else:
        from greenroom.cluster import Cluster  # noqa: PLC0415

        with Cluster(context=context, namespace=namespace) as cluster:
            answer = _predict(
                lambda method, path, content: cluster.ask_service(
                    target, method=method, path=path, body=content
                ),
                features,
                body,
                user,
                attribute,
            )
    show(answer, output, table=lambda: _draw_answer(answer))


def _predict(
    ask: Any, features: list[str], body: Path | None, user: str | None, attribute: list[str]
) -> dict[str, Any]:
    from greenroom.asking import predict as ask_for  # noqa: PLC0415
    from greenroom.asking import read_features  # noqa: PLC0415

    request: dict[str, Any] = {"features": {**_read_body(body), **read_features(features, ask)}}
    if user is not None:
        request["user_id"] = user
    if attribute:
        request["context"] = read_attributes(attribute)
    return ask_for(ask, request)


def _read_body(path: Path | None) -> dict[str, Any]:
    if path is None:
        return {}
    try:
        text = sys.stdin.read() if str(path) == "-" else path.read_text(encoding="utf-8")
        found = json.loads(text)
    except (OSError, ValueError) as error:
        raise CommandError(f"{path} holds no JSON: {error}") from error
    if not isinstance(found, dict):
        raise CommandError(f'{path} holds no JSON object: write the features by name, as {{"age": 31}}')
    features = found.get("features")
    return features if isinstance(features, dict) else found


def _draw_answer(answer: dict[str, Any]) -> "RenderableType":
    scores = answer.get("probabilities") or {}
    ranked = sorted(scores.items(), key=lambda item: -item[1])
    rows = [
        ("prediction", str(answer.get("prediction"))),
        *((f"  {label}", f"{score:.4f}") for label, score in ranked),
        ("version", f"{answer.get('version')} ({answer.get('reason')})"),
        ("features", f"from {answer.get('feature_source') or 'the request'}"),
        ("request", str(answer.get("request_id"))),
    ]
    return tabulate(("", ""), rows)


def query(
    sql: Annotated[
        str | None,
        typer.Argument(help="SQL over the view predictions; a summary by version without it.", metavar="SQL"),
    ] = None,
    *,
    source: Annotated[
        str,
        typer.Option(
            "--from",
            help="Where the log is: a pod's directory, or the uri of spec.predictionLog (s3://, gs://, az://).",
            metavar="DIR|URI",
        ),
    ],
    since: Day = None,
    until: Day = None,
    output: Output = OutputFormat.TABLE,
) -> None:
    """Ask the prediction log by SQL, with DuckDB.

    Each record is there once, even where a segment was sent twice. The columns are those of
    docs/predictions.md; features and prediction are JSON: (features->>'age')::DOUBLE.

    Object stores are read with the credentials of this shell's environment, by the variables that pods have:
    AWS_ACCESS_KEY_ID and so on for s3://, GOOGLE_APPLICATION_CREDENTIALS for gs://, for az:// the variables
    AZURE_STORAGE_ACCOUNT_NAME and AZURE_STORAGE_ACCOUNT_KEY; one with the prefix GREENROOM_PREDICTIONS_ wins.
    What went to the sinks Http and Stdout is not to be asked here.
    """
    from greenroom.predictions import DEFAULT_QUERY, Period  # noqa: PLC0415
    from greenroom.predictions import query as ask  # noqa: PLC0415

    period = Period(since=since and since.date(), until=until and until.date())
    found = ask(sql or DEFAULT_QUERY, source=source, period=period, environment=os.environ)
    data = found.to_data()
    rows = [["" if value is None else str(value) for value in row.values()] for row in data]
    show(data, output, table=lambda: tabulate(found.columns, rows))
