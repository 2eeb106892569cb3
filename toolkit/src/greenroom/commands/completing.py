"""What the cluster knows, for a shell that completes a word: soon, or not at all."""

from collections.abc import Mapping
from typing import Any, Final

import typer

_SECONDS: Final = 2.0
"""A person waits with a finger on Tab: what takes longer is not worth it."""


def complete_name(ctx: typer.Context) -> list[str]:
    """Return the names of the namespace's ModelDeployments; none where the cluster does not answer soon."""
    return [line.split()[0] for line in _ask(ctx, "--no-headers").splitlines() if line.strip()]


def complete_version(ctx: typer.Context) -> list[str]:
    """Return the versions that the ModelDeployment on the command line is about; none in the same cases."""
    import json  # noqa: PLC0415 each help would wait for it

    # Behind an option whose value is to come, arguments are left as they were typed.
    name = ctx.params.get("name") or next(iter(ctx.args), None)
    told = _ask(ctx, str(name), "--output=json") if name else ""
    try:
        return list_versions(json.loads(told))
    except (ValueError, AttributeError, TypeError):
        return []


def list_versions(deployment: Mapping[str, Any]) -> list[str]:
    """Return the versions that a ModelDeployment names, each once: what is new to it first."""
    spec, status = deployment.get("spec") or {}, deployment.get("status") or {}
    former = {"version": status.get("previousVersion")}
    places = [spec.get("rollout"), spec.get("shadow"), spec, status, former, *(status.get("history") or [])]
    found = [(place or {}).get("version") for place in places]
    return [version for version in dict.fromkeys(found) if version]


def _ask(ctx: typer.Context, *arguments: str) -> str:
    """Return what ``kubectl get`` prints of ModelDeployments, empty where it complains."""
    from greenroom.cluster import peek  # noqa: PLC0415

    context, namespace = ctx.params.get("context"), ctx.params.get("namespace")
    return peek(arguments, context=context, namespace=namespace, seconds=_SECONDS)
