"""A ModelDeployment as its operator and its pods see it: gathered, and drawn for a person."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from rich.console import Group, RenderableType
from rich.text import Text

from greenroom.cluster import Cluster, ClusterError, complaint
from greenroom.output import tabulate
from greenroom.shadow_view import ShadowSeen, draw_shadow, without_machinery
from greenroom_runtime.contract import names
from greenroom_runtime.contract.report import MAX_BYTES, PodReport
from greenroom_runtime.contract.shadow import ShadowReport

_GOOD, _BAD, _BUSY, _QUIET = "green", "bold red", "cyan", "dim"
_STATES = {
    "Ready": _GOOD,
    "Failed": _BAD,
    "Complete": _GOOD,
    "Promoted": _GOOD,
    "Passed": _GOOD,
    "Refused": _BAD,
    "Aborted": _BAD,
    "RolloutAborted": _BAD,
    "RolloutRefused": _BAD,
    "Preparing": _BUSY,
    "Committing": _BUSY,
    "Running": _BUSY,
    "Holding": _BUSY,
    "Paused": "yellow",
    "no": _BAD,
    "yes": _GOOD,
}

Report = TypeVar("Report", bound=BaseModel)


@dataclass(frozen=True, kw_only=True)
class PodSeen:
    """One pod, and what it says of itself."""

    name: str
    phase: str
    ready: bool
    report: PodReport | None = None
    silence: str = ""
    """Why there is no report."""


@dataclass(frozen=True, kw_only=True)
class Seen:
    """What was gathered at one look."""

    deployment: dict[str, Any]
    pods: tuple[PodSeen, ...]
    """Those that serve."""
    shadows: tuple[ShadowSeen, ...] = ()
    """Beside them, or in pods of their own."""

    def to_data(self) -> dict[str, Any]:
        """Return it as JSON carries it; what only the operator reads is left out."""
        metadata, status = self.deployment["metadata"], dict(self.deployment.get("status") or {})
        if "rollout" in status:
            rollout = {key: value for key, value in status["rollout"].items() if key != "evidence"}
            status["rollout"] = rollout
        if "shadow" in status:
            status["shadow"] = without_machinery(status["shadow"])
        fields = ("version", "replicas", "rollout", "shadow")
        return {
            "name": metadata["name"],
            "namespace": metadata["namespace"],
            "spec": {key: self.deployment["spec"].get(key) for key in fields},
            "status": status,
            "pods": [
                {
                    "name": pod.name,
                    "phase": pod.phase,
                    "ready": pod.ready,
                    "silence": pod.silence,
                    "report": pod.report.model_dump(mode="json", exclude={"evidence"})
                    if pod.report
                    else None,
                }
                for pod in self.pods
            ],
            "shadows": [shadow.to_data() for shadow in self.shadows],
        }


def look(cluster: Cluster, name: str) -> Seen:
    """Gather everything; ClusterError without the ModelDeployment. Pods that do not answer are told."""
    deployment, pods = cluster.get_deployment(name), cluster.list_pods(name)
    return Seen(
        deployment=deployment,
        pods=tuple(_see(cluster, pod) for pod in pods if has_container(pod, names.SERVING_CONTAINER)),
        shadows=tuple(
            _see_shadow(cluster, pod) for pod in pods if has_container(pod, names.SHADOW_CONTAINER)
        ),
    )


def has_container(pod: Mapping[str, Any], name: str) -> bool:
    """Tell whether a pod serves, or shadows: a shadow is beside the serving container, or on its own."""
    return any(container.get("name") == name for container in pod["spec"]["containers"])


def _see_shadow(cluster: Cluster, pod: Mapping[str, Any]) -> ShadowSeen:
    name, report, silence = str(pod["metadata"]["name"]), None, "it has no address yet"
    if (pod.get("status") or {}).get("podIP"):
        report, silence = _ask(
            cluster, name, port=find_port(pod, "shadow", names.SHADOW_PORT), kind=ShadowReport
        )
    return ShadowSeen(pod=name, report=report, silence=silence)


def _see(cluster: Cluster, pod: Mapping[str, Any]) -> PodSeen:
    name, status = str(pod["metadata"]["name"]), pod.get("status") or {}
    conditions = {one["type"]: one["status"] for one in status.get("conditions") or ()}
    ready = conditions.get("Ready") == "True"
    report, silence = None, "it has no address yet"
    if status.get("podIP"):
        report, silence = _ask(cluster, name, port=find_port(pod, "admin", names.ADMIN_PORT), kind=PodReport)
    return PodSeen(
        name=name, phase=str(status.get("phase") or "Pending"), ready=ready, report=report, silence=silence
    )


def find_port(pod: Mapping[str, Any], name: str, fallback: int) -> int:
    """Return the port of this name, ``fallback`` where no container names one."""
    ports = [port for container in pod["spec"]["containers"] for port in container.get("ports") or ()]
    named = [int(port["containerPort"]) for port in ports if port.get("name") == name]
    return named[0] if named else fallback


def _ask(cluster: Cluster, pod: str, *, port: int, kind: type[Report]) -> tuple[Report | None, str]:
    try:
        reply = cluster.ask_pod(pod, port=port, path=names.REPORT_PATH)
    except ClusterError as error:
        return None, str(error)
    if reply.status != 200:  # noqa: PLR2004 OK
        return None, complaint(reply)
    try:
        return kind.model_validate_json(reply.body[: MAX_BYTES + 1]), ""
    except ValidationError as error:
        return None, f"it reports what this release does not understand: {error.errors()[0]['msg']}"


def draw(seen: Seen) -> RenderableType:
    """Return one look as a screenful."""
    parts: list[RenderableType] = []
    for title, part in _sections(seen):
        parts += [Text(), Text(title, style="bold"), part] if title else [part]
    return Group(*parts)


def _sections(seen: Seen) -> Iterator[tuple[str, RenderableType]]:
    status = seen.deployment.get("status") or {}
    yield "", _headline(seen.deployment, status)
    if rollout := status.get("rollout"):
        yield "rollout", _rollout(rollout)
    if shadow := status.get("shadow"):
        yield "shadow", draw_shadow(shadow, seen.shadows)
    promotion = status.get("promotion")
    if promotion and promotion.get("state") != "Complete":
        told = f"{promotion['version']}: {promotion['state']}  {promotion.get('message', '')}"
        yield "promotion", Text(told, style=_STATES.get(promotion["state"], ""))
    if failure := status.get("lastFailure"):
        yield "last failure", _failure(failure)
    yield "pods", _pods(seen.pods)
    if features := status.get("features"):
        yield "features", _features(features)
    if log := status.get("predictionLog"):
        told = f"{log.get('podsFailing', 0)} pods cannot write it, {log.get('dropped', 0)} records lost"
        yield "prediction log", Text(f"{told}; {log['pod']}: {log.get('error', '')}", style=_BAD)
    if history := status.get("history"):
        rows = [
            (entry["time"], entry["version"], entry["event"], entry.get("message") or "") for entry in history
        ]
        yield "history", tabulate(("TIME", "VERSION", "EVENT", "MESSAGE"), rows, styles=_STATES)


def _headline(deployment: Mapping[str, Any], status: Mapping[str, Any]) -> Text:
    metadata, spec = deployment["metadata"], deployment["spec"]
    conditions = {condition["type"]: condition for condition in status.get("conditions") or ()}
    ready = conditions.get("Ready", {"status": "Unknown", "reason": "NotObserved", "message": ""})
    good = ready["status"] == "True" and conditions.get("Degraded", {}).get("status") != "True"
    text = Text.assemble(
        (f"{metadata['namespace']}/{metadata['name']}", "bold"),
        f"  production {status.get('version') or '–'}",  # noqa: RUF001 a dash
        f"  replicas {status.get('replicaSummary') or '–'}  ",  # noqa: RUF001
        (str(ready["reason"]), _GOOD if good else _BAD),
    )
    if spec["version"] != status.get("version"):
        text.append(f"  asked for {spec['version']}", style=_BUSY)
    for condition in conditions.values():
        if condition["type"] == "Ready" or (
            condition["type"] == "Degraded" and condition["status"] == "True"
        ):
            text.append(f"\n{condition['message']}" if condition.get("message") else "", style=_QUIET)
    return text


def _rollout(rollout: Mapping[str, Any]) -> Text:
    state = str(rollout["state"])
    step = f"  step {rollout['step']} of {rollout['steps']}" if rollout.get("step") else ""
    text = Text.assemble(
        (f"{rollout.get('summary') or rollout['version']}  ", "bold"), (state, _STATES.get(state, "")), step
    )
    if rollout.get("requests") is not None:
        buckets = f"{rollout.get('userBucketsWithErrors') or 0} of {rollout.get('userBuckets') or 0}"
        text.append(f"\n{rollout['requests']} requests; buckets of users that met an error: {buckets}")
    if rollout.get("verdict"):
        verdict = str(rollout["verdict"])
        style = {"Pass": _GOOD, "Fail": _BAD}.get(verdict, "yellow")
        text.append("\ngate: ").append(verdict, style=style)
    if rollout.get("message"):
        text.append(f"\n{rollout['message']}", style=_QUIET)
    return text


def _failure(failure: Mapping[str, Any]) -> Text:
    where = f" on {failure['pod']}" if failure.get("pod") else ""
    text = Text(f"{failure['version']}{where}: {failure['reason']}: {failure['message']}", style=_BAD)
    for key in ("expected", "found"):
        if failure.get(key):
            text.append(f"\n{key:8}  {failure[key]}", style="")
    return text


def _features(features: Mapping[str, Any]) -> Text:
    text = Text(f"rows by source: {features['summary']}")
    for source in ("redis", "compute"):
        if features.get(source) == "LeftAlone":
            text.append(f"\n{source} fails, and is left alone", style=_BAD)
    if features.get("error"):
        text.append(f"\n{features.get('pod', '')}: {features['error']}", style=_BAD)
    return text


def _pods(pods: Sequence[PodSeen]) -> RenderableType:
    if not pods:
        return Text("none", style=_QUIET)
    rows = []
    for pod in pods:
        report = pod.report
        if report is None:
            rows.append((pod.name, "yes" if pod.ready else "no", "", f"no report: {pod.silence}"))
            continue
        told = ", ".join(
            f"{version.name} {version.state}" + (f" ({version.failure.reason})" if version.failure else "")
            for version in report.versions
        )
        rows.append((pod.name, "yes" if pod.ready else "no", report.production, told))
    return tabulate(("POD", "READY", "PRODUCTION", "VERSIONS"), rows, styles=_STATES)
