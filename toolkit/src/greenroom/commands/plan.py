"""The commands that say what a ModelDeployment comes to."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from greenroom.commands.completing import complete_name
from greenroom.commands.options import Attributes, Context, Namespace, Output, read_attributes
from greenroom.errors import CommandError
from greenroom.output import OutputFormat, show, spell, tabulate

if TYPE_CHECKING:
    from rich.console import RenderableType

    from greenroom.plan import Explanation
    from greenroom_runtime.contract.flags import FlagStore


def render(
    manifest: Annotated[
        Path, typer.Argument(help="A YAML file with one ModelDeployment.", metavar="MODELDEPLOYMENT.YAML")
    ],
    *,
    namespace: Annotated[
        str | None, typer.Option("--namespace", "-n", help="Namespace, where the YAML names none.")
    ] = None,
    runtime_image: Annotated[
        str | None,
        typer.Option(
            help="Serving image where spec.image is not set, as the operator's own flag of this name."
        ),
    ] = None,
    output: Annotated[OutputFormat, typer.Option("--output", "-o", help="yaml or json.")] = OutputFormat.YAML,
) -> None:
    """Print the objects that the operator would apply for a new ModelDeployment.

    By the operator's own code, without a cluster. Owner references are left out: they need the uid that a
    cluster gives. What is wrong with the YAML is told as the API server would.
    """
    from importlib.metadata import version as installed_version  # noqa: PLC0415

    from greenroom.plan import load_deployment  # noqa: PLC0415
    from greenroom.plan import render as build  # noqa: PLC0415

    deployment = load_deployment(manifest)
    if namespace is not None and "namespace" not in deployment.metadata.model_fields_set:
        metadata = deployment.metadata.model_copy(update={"namespace": namespace})
        deployment = deployment.model_copy(update={"metadata": metadata})
    image = runtime_image or f"greenroom-runtime:{installed_version('greenroom')}"
    children = build(deployment, image=image)
    if output is OutputFormat.JSON:
        sys.stdout.write(spell({"apiVersion": "v1", "kind": "List", "items": children}, output))
    else:
        sys.stdout.write("---\n".join(spell(child, OutputFormat.YAML) for child in children))


def explain(
    target: Annotated[
        str,
        typer.Argument(
            help="A ModelDeployment's YAML, a flags.json, or the name of a ModelDeployment in the cluster.",
            metavar="FILE|NAME",
            autocompletion=complete_name,
        ),
    ],
    *,
    user: Annotated[
        str | None, typer.Option("--user", help="The user's key: user_id, or what spec.rollout.key names.")
    ] = None,
    attribute: Attributes = [],  # noqa: B006 typer copies it
    request_id: Annotated[
        str | None,
        typer.Option(help="The request's X-Request-Id: tells whether a shadow is asked, too."),
    ] = None,
    percent: Annotated[
        float | None,
        typer.Option(min=0, max=100, help="With a YAML: the share to ask about, instead of the first one."),
    ] = None,
    namespace: Namespace = None,
    context: Context = None,
    output: Output = OutputFormat.TABLE,
) -> None:
    """Say which version a user gets, and why: rules, percentage, or production; and whom a shadow sees.

    The runtime's own router decides. A pod that does not hold the version answers with production all the
    same (X-Version-Reason: fallback).
    """
    from greenroom.plan import explain as decide  # noqa: PLC0415

    flags = _flags_of(target, percent=percent, namespace=namespace, context=context)
    if request_id is not None and flags.shadow is None:
        raise CommandError("--request-id needs a shadow: there is none, it is over, or not begun")
    found = decide(flags, user=user, context=read_attributes(attribute), request_id=request_id)
    show(found.to_data(), output, table=lambda: _draw(found))


def _flags_of(
    target: str, *, percent: float | None, namespace: str | None, context: str | None
) -> "FlagStore":
    from greenroom.plan import load_deployment, planned_flags, read_flag_file  # noqa: PLC0415

    path = Path(target)
    if path.suffix == ".json":
        return read_flag_file(path)
    if path.suffix in (".yaml", ".yml") or path.is_file():
        return planned_flags(load_deployment(path), percent=percent)
    from greenroom.cluster import Cluster  # noqa: PLC0415
    from greenroom_operator.resources.flags import read_flags  # noqa: PLC0415

    with Cluster(context=context, namespace=namespace) as cluster:
        cluster.get_deployment(target)  # for its clearer error
        flags = read_flags(cluster.get_config_map(f"{target}-flags"))
    if flags is None:
        raise CommandError(
            f"the flag store {target}-flags is spoilt: the operator writes it anew at its next pass"
        )
    return flags


def _draw(found: "Explanation") -> "RenderableType":
    user = found.user or "(nobody)"
    rows = [("user", user), ("version", found.decision.version), ("reason", found.decision.reason)]
    rows += [
        (f"rule {rule.name}", f"{'matches' if rule.matches else 'no'}: {rule.attribute} is {rule.found!r}")
        for rule in found.rules
    ]
    rows.append(("why", found.why()))
    if found.mirror is not None:
        rows.append(("mirrored", found.mirror.why()))
    return tabulate(("", ""), rows)
