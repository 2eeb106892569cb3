"""The commands that look at a ModelDeployment in a cluster, and act on it with the user's own rights."""

import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any
from uuid import uuid4

import typer

from greenroom.commands.completing import complete_version
from greenroom.commands.options import Context, Name, Namespace, Output
from greenroom.errors import CommandError
from greenroom.output import OutputFormat, open_console, show

if TYPE_CHECKING:
    from greenroom.cluster import Cluster
    from greenroom_operator.api.modeldeployment import ModelDeployment

_LOOK_SECONDS = 1.0
_ACKNOWLEDGED_SECONDS = 30.0
_ARGO = ("argocd.argoproj.io/tracking-id", "argocd.argoproj.io/instance")

Version = Annotated[
    str | None,
    typer.Option(
        "--version",
        help="The version; without it the one that is being rolled out.",
        autocompletion=complete_version,
    ),
]
Apply = Annotated[bool, typer.Option("--apply", help="Make the change in the cluster, with your own rights.")]
File = Annotated[
    Path | None,
    typer.Option("--file", "-f", help="The YAML in your clone: the change is printed as git apply takes it."),
]


def status(
    name: Name,
    *,
    watch: Annotated[
        bool, typer.Option("--watch", "-w", help="Go on looking, each second, until Ctrl-C.")
    ] = False,
    namespace: Namespace = None,
    context: Context = None,
    output: Output = OutputFormat.TABLE,
) -> None:
    """Show how a ModelDeployment is: rollout, versions by pod, the last failure, what happened lately.

    Versions by pod come from the pods themselves, through the API server; without the right to get
    pods/proxy they are left out.
    """
    from greenroom.cluster import Cluster  # noqa: PLC0415
    from greenroom.status import draw, look  # noqa: PLC0415

    with Cluster(context=context, namespace=namespace) as cluster:
        if not watch:
            seen = look(cluster, name)
            show(seen.to_data(), output, table=lambda: draw(seen))
            return
        _watch(cluster, name, output)


def _watch(cluster: "Cluster", name: str, output: OutputFormat) -> None:
    from greenroom.status import draw, look  # noqa: PLC0415

    console = open_console()
    if console.is_terminal and output is OutputFormat.TABLE:
        from rich.live import Live  # noqa: PLC0415

        with Live(console=console, screen=True, auto_refresh=False) as live:
            while True:
                live.update(draw(look(cluster, name)), refresh=True)
                time.sleep(_LOOK_SECONDS)
    before: Any = None
    while True:
        seen = look(cluster, name)
        if (told := seen.to_data()) != before:
            show(told, output, table=lambda found=seen: draw(found))  # type: ignore[misc]
            sys.stdout.flush()
        before = told
        time.sleep(_LOOK_SECONDS)


def promote_step(
    name: Name, *, version: Version = None, namespace: Namespace = None, context: Context = None
) -> None:
    """Raise a rollout to its next step now, whatever its hold and its gate say."""
    _act("promote-step", name, version=version, namespace=namespace, context=context)


def abort(
    name: Name, *, version: Version = None, namespace: Namespace = None, context: Context = None
) -> None:
    """Take a rollout's version from everybody at once; production goes on."""
    _act("abort", name, version=version, namespace=namespace, context=context)


def pause(
    name: Name, *, version: Version = None, namespace: Namespace = None, context: Context = None
) -> None:
    """Keep a rollout at its present share. Its gate goes on watching, and may still abort it."""
    _act("pause", name, version=version, namespace=namespace, context=context)


def resume(
    name: Name, *, version: Version = None, namespace: Namespace = None, context: Context = None
) -> None:
    """Let a rollout that was paused by `greenroom pause` go on."""
    _act("resume", name, version=version, namespace=namespace, context=context)


def retry(
    name: Name, *, version: Version = None, namespace: Namespace = None, context: Context = None
) -> None:
    """Try a version again that was refused, or whose rollout has ended.

    Without --version that is the rollout's where it has ended, else spec.version.
    """
    _act("retry", name, version=version, namespace=namespace, context=context)


def _act(verb: str, name: str, *, version: str | None, namespace: str | None, context: str | None) -> None:
    """Annotate, and wait until the operator acknowledges; what has no effect is refused before."""
    from greenroom.cluster import Cluster  # noqa: PLC0415
    from greenroom_operator.controller.actions import Action, Verb, find_objection  # noqa: PLC0415
    from greenroom_runtime.contract import names  # noqa: PLC0415

    with Cluster(context=context, namespace=namespace) as cluster:
        deployment = _read(cluster.get_deployment(name))
        chosen = version or _version_of(verb, deployment)
        text = f"{verb}/{chosen}/{datetime.now(UTC):%Y%m%dT%H%M%SZ}-{uuid4().hex[:8]}"
        if told := find_objection(Action(text=text, verb=Verb(verb), version=chosen), deployment):
            raise CommandError(told)
        cluster.patch_deployment(name, {"metadata": {"annotations": {names.ANNOTATION_ACTION: text}}})
        deadline = time.monotonic() + _ACKNOWLEDGED_SECONDS
        while time.monotonic() < deadline:
            found = cluster.get_deployment(name).get("status") or {}
            if found.get("lastHandledAction") == text:
                typer.echo(f"{verb} of {chosen}: done; {_outcome(found, chosen)}")
                return
            time.sleep(_LOOK_SECONDS / 4)
    raise CommandError(
        f"{verb} of {chosen} is asked for, and nobody has answered within {_ACKNOWLEDGED_SECONDS:g} s: does "
        "the operator run, and does it watch this namespace?"
    )


def _outcome(status: dict[str, Any], version: str) -> str:
    """Return how far the version is: in its rollout, else in its promotion, else what production is."""
    rollout, promotion = status.get("rollout") or {}, status.get("promotion") or {}
    if rollout.get("version") == version and rollout.get("summary"):
        return str(rollout["summary"])
    if promotion.get("version") == version and promotion.get("state") != "Complete":
        return f"{version} ({promotion['state'].lower()})"
    return f"production {status.get('version') or 'none yet'}"


def _read(body: dict[str, Any]) -> "ModelDeployment":
    from pydantic import ValidationError  # noqa: PLC0415

    from greenroom_operator.api.modeldeployment import ModelDeployment  # noqa: PLC0415

    try:
        return ModelDeployment.model_validate(body)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        raise CommandError(
            f"this release does not understand the object: {place}: {first['msg']}: use the "
            "operator's release"
        ) from error


def _version_of(verb: str, deployment: "ModelDeployment") -> str:
    rollout, spec = deployment.status.rollout, deployment.spec
    if verb == "retry":
        ended = rollout is not None and rollout.state in ("Refused", "Aborted", "Promoted")
        return spec.rollout.version if ended and spec.rollout else spec.version
    if spec.rollout is None:
        raise CommandError(f"{deployment.metadata.name} has no spec.rollout, so there is nothing to {verb}")
    return spec.rollout.version


def promote(
    name: Name,
    version: Annotated[
        str | None,
        typer.Argument(
            help="The version; without it the one that is rolled out.",
            metavar="VERSION",
            autocompletion=complete_version,
        ),
    ] = None,
    *,
    file: File = None,
    apply: Apply = False,
    namespace: Namespace = None,
    context: Context = None,
) -> None:
    """Print the change that makes a version production; --apply makes it.

    Git is the truth: the operator never writes spec. The version is proven on every pod before the
    alias flips.
    """
    _change(name, version, file=file, apply=apply, back=False, namespace=namespace, context=context)


def rollback(
    name: Name,
    version: Annotated[
        str | None,
        typer.Argument(
            help="The version; without it the one before production.",
            metavar="VERSION",
            autocompletion=complete_version,
        ),
    ] = None,
    *,
    file: File = None,
    apply: Apply = False,
    namespace: Namespace = None,
    context: Context = None,
) -> None:
    """Print the change that makes the version before production again; --apply makes it.

    It is still loaded on every pod, so that it is back within a second.
    """
    _change(name, version, file=file, apply=apply, back=True, namespace=namespace, context=context)


def _change(
    name: str,
    version: str | None,
    *,
    file: Path | None,
    apply: bool,
    back: bool,
    namespace: str | None,
    context: str | None,
) -> None:
    from greenroom.gitchange import describe_live, set_version  # noqa: PLC0415

    if file is not None and version is not None and not apply:
        _print_diff(set_version(file, version, name=name).diff(), version)
        return
    from greenroom.cluster import Cluster  # noqa: PLC0415

    with Cluster(context=context, namespace=namespace) as cluster:
        body = cluster.get_deployment(name)
        deployment = _read(body)
        chosen = version or _other_version(deployment, back=back)
        if file is not None:
            _print_diff(set_version(file, chosen, name=name).diff(), chosen)
        elif chosen == deployment.spec.version:
            _say(f"{name} asks for {chosen} already")
        else:
            typer.echo(describe_live(name, before=deployment.spec.version, after=chosen), nl=False)
        if not apply:
            if chosen != deployment.spec.version:
                _say("this is what to commit; --apply makes the change in the cluster now")
            return
        if chosen != deployment.spec.version:
            cluster.patch_deployment(name, {"spec": {"version": chosen}})
            _say(f"applied: {name} asks for {chosen}; see `greenroom status {name} --watch`")
        labels = {**body["metadata"].get("labels", {}), **body["metadata"].get("annotations", {})}
        if any(key in labels for key in _ARGO):
            _say("Argo CD looks after this object, and will set it back: commit the change, too")


def _other_version(deployment: "ModelDeployment", *, back: bool) -> str:
    spec, status = deployment.spec, deployment.status
    if back:
        if not status.previous_version:
            raise CommandError(f"{deployment.metadata.name} had no version before: name one")
        return status.previous_version
    if spec.rollout is None:
        raise CommandError(f"{deployment.metadata.name} rolls nothing out: name the version to promote")
    state = status.rollout.state if status.rollout else None
    if state not in ("Complete", "Promoted"):
        _say(
            f"the rollout of {spec.rollout.version} is {state or 'not begun'}: promoting it now ends it early"
        )
    return spec.rollout.version


def _print_diff(diff: str, version: str) -> None:
    if diff:
        typer.echo(diff, nl=False)
    else:
        _say(f"the file asks for {version} already")


def _say(text: str) -> None:
    """Tell a person, and leave standard output to the change."""
    typer.echo(f"greenroom: {text}", err=True)
