"""A ModelDeployment from a YAML file: checked here as far as the API server would check it."""

import re
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from greenroom.local.errors import LocalError
from greenroom_operator.api.features import BOUNDS as FEATURE_BOUNDS
from greenroom_operator.api.features import (
    COMPUTE_PATTERN,
    COMPUTE_REMEDY,
    ENTITY_KEY_PATTERN,
    ENTITY_KEY_REMEDY,
    FEAST_ADDRESS,
    MAX_MEMORY,
    MEMORY_REMEDY,
    MIN_MEMORY,
    ONE_SOURCE,
    ONE_WISH,
    REDIS_PATTERN,
    REDIS_REMEDY,
    FeatureCompute,
    Features,
)
from greenroom_operator.api.modeldeployment import API_VERSION, KIND, NAME_MAX_LENGTH, ModelDeployment
from greenroom_operator.api.predictions import (
    DISK_REMEDY,
    DISKLESS,
    MAX_DISK,
    MIN_DISK,
    NO_DISK,
    NO_URI,
    URI_PATTERNS,
    URI_REMEDIES,
    PredictionLog,
)
from greenroom_operator.api.quantities import parse_quantity
from greenroom_operator.api.rollout import Rollout, RolloutGate
from greenroom_operator.api.shadow import MIN_MEMORY as SHADOW_MIN_MEMORY
from greenroom_operator.api.shadow import Shadow, ShadowPlacement
from greenroom_operator.api.times import DurationError, parse_duration
from greenroom_operator.controller.rollout import route_users
from greenroom_operator.resources.config import build_runtime_config
from greenroom_runtime.contract import names
from greenroom_runtime.contract.flags import FlagDocumentError

MAX_BYTES = 1024 * 1024
NOT_YAML = (yaml.YAMLError, ValueError, RecursionError)
"""What PyYAML raises: ValueError for a date such as 2026-13-01, RecursionError for a thousand brackets."""
_NAME = re.compile(r"^[a-z]([-a-z0-9]*[a-z0-9])?$")
_RATIO = re.compile(r"[0-9]{1,3}([.][0-9]{1,3})?")
_VERSION = re.compile(names.VERSION_PATTERN)
_SHARE = re.compile(r"[0-9]{1,3}([.][0-9]{1,4})?")
_TOLERANCE = re.compile(r"[0-9]{1,9}([.][0-9]{1,12})?")


class ManifestError(LocalError):
    """The file holds no ModelDeployment that a cluster would take."""


def read_manifest(path: Path) -> bytes:
    """Return the file's bytes; ManifestError where there is none to read."""
    try:
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise ManifestError(f"{path}: {error.strerror}: name a YAML file with a ModelDeployment") from error
    if len(content) > MAX_BYTES:
        raise ManifestError(
            f"{path} has more than {MAX_BYTES} bytes: name a YAML file with a ModelDeployment"
        )
    return content


def parse_manifest(content: bytes, *, path: Path) -> ModelDeployment:
    """Return the one ModelDeployment of a YAML file; ManifestError names the field and the remedy."""
    try:
        documents = [document for document in yaml.safe_load_all(content) if document is not None]
    except NOT_YAML as error:
        raise ManifestError(f"{path}: {_where(error)}") from error
    found = [
        document for document in documents if isinstance(document, dict) and document.get("kind") == KIND
    ]
    if len(found) != 1:
        kinds = [document.get("kind") if isinstance(document, dict) else document for document in documents]
        told = f"{len(found)} objects of kind {KIND} (found: {kinds or 'nothing'})"
        raise ManifestError(f"{path} holds {told}: write exactly one")
    return _validate(found[0], path=path)


def _where(error: Exception) -> str:
    if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark is not None:
        mark = error.problem_mark
        return f"line {mark.line + 1}, column {mark.column + 1}: {error.problem}"
    if isinstance(error, RecursionError):
        return "not YAML of a ModelDeployment: it is nested too deeply"
    return f"not YAML: {error}"


def _validate(document: dict[str, Any], *, path: Path) -> ModelDeployment:
    if document.get("apiVersion") != API_VERSION:
        raise ManifestError(f"{path}: apiVersion is {document.get('apiVersion')!r}: write {API_VERSION}")
    try:
        deployment = ModelDeployment.model_validate(document)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        given = "" if first["type"] == "missing" else f", found {first['input']!r}"
        raise ManifestError(f"{path}: {place}: {first['msg']}{given}") from error
    known = deployment.model_dump(mode="json", by_alias=True, exclude_unset=True)
    unknown = _unknown(document.get("spec"), known.get("spec"), place="spec")
    problems = [f"{place}: no such field" for place in unknown] + _rules(deployment)
    if problems:
        raise ManifestError(f"{path}: {problems[0]}")
    return deployment


def _unknown(given: Any, known: Any, *, place: str) -> list[str]:
    """Return the fields that the model did not take: typos, which the API server would refuse."""
    if isinstance(given, dict) and isinstance(known, dict):
        return [
            found
            for key, value in given.items()
            for found in (
                _unknown(value, known[key], place=f"{place}.{key}") if key in known else [f"{place}.{key}"]
            )
        ]
    if isinstance(given, list) and isinstance(known, list):
        pairs = enumerate(zip(given, known, strict=True))
        return [found for at, pair in pairs for found in _unknown(*pair, place=f"{place}[{at}]")]
    return []


def _rules(deployment: ModelDeployment) -> list[str]:
    """Check what the CRD says in CEL and what matters on one machine."""
    problems = []
    name, spec = deployment.metadata.name, deployment.spec
    if len(name) > NAME_MAX_LENGTH or not _NAME.fullmatch(name):
        problems.append(
            f"metadata.name: {name!r} should be at most {NAME_MAX_LENGTH} lower-case letters, digits "
            "and '-', beginning with a letter, such as churn"
        )
    if problem := find_version_problem(spec.version):
        problems.append(f"spec.version: {problem}")
    for place, text in (("progressDeadline", spec.progress_deadline), ("drain", spec.drain)):
        try:
            parse_duration(text)
        except DurationError as error:
            problems.append(f"spec.{place}: {error}")
    problems += _log_rules(spec.prediction_log)
    if spec.rollout is not None:
        problems += [f"spec.rollout: {problem}" for problem in _rollout_rules(spec.rollout)]
    if spec.shadow is not None:
        problems += [f"spec.shadow{problem}" for problem in _shadow_rules(spec.shadow)]
    if spec.features is not None:
        problems += [f"spec.features{problem}" for problem in _feature_rules(spec.features)]
    return problems or _build_rules(deployment)


def find_version_problem(version: str) -> str:
    """Return why a cluster would not take this for a version's name, empty where it would."""
    if version in (names.ALIAS_PRODUCTION, names.ALIAS_PREVIOUS):
        return f"{version} is an alias: name the version itself, such as v2"
    if not _VERSION.fullmatch(version) or len(version) > names.VERSION_MAX_LENGTH:
        return (
            f"{version!r} is no version: it is the name of a directory under source.uri, "
            "of lower-case letters, digits, '-' and '.', such as v2 or 2026.11.3"
        )
    return ""


def _rollout_rules(rollout: Rollout) -> list[str]:
    """Check what the CRD says of a rollout in CEL."""
    problems = []
    if rollout.version in (names.ALIAS_PRODUCTION, names.ALIAS_PREVIOUS) or not _VERSION.fullmatch(
        rollout.version
    ):
        problems.append(f"version: {rollout.version!r} is no version's name: write one such as v3")
    if rollout.percent is not None and rollout.steps is not None:
        problems.append("percent is a fixed share, steps raise it by themselves: give one of them")
    shares = [step.percent for step in rollout.steps or ()]
    if any(not 0 < share < 100 for share in shares):  # noqa: PLR2004 percent
        problems.append(
            "steps: a step is above 0 and below 100: all users follow the last step by themselves"
        )
    if shares != sorted(set(shares)):
        problems.append(
            "steps: the percentages of the steps must rise: write each share once, smallest first"
        )
    if any(round(share, 2) != share for share in (*shares, rollout.percent or 0)):
        problems.append("a percentage has at most two decimals, such as 10 or 0.5")
    for step in rollout.steps or ():
        try:
            parse_duration(step.hold)
        except DurationError as error:
            problems.append(f"steps: hold: {error}")
    try:
        route_users(rollout, hundredths=0, salt="namespace/name")
    except FlagDocumentError as error:
        problems.append(str(error))
    return problems + _gate_rules(rollout.gate)


def _gate_rules(gate: RolloutGate | None) -> list[str]:
    ratios = () if gate is None else (gate.max_error_ratio, gate.max_latency_ratio)
    return [f"gate: {problem}" for ratio in ratios for problem in _ratio_rules(ratio)]


def _ratio_rules(ratio: str) -> list[str]:
    if _RATIO.fullmatch(ratio) and 1 < float(ratio) <= 100:  # noqa: PLR2004
        return []
    return [f'{ratio!r}: a ratio is a number above 1 and at most 100 in quotes, such as "1.5"']


def _shadow_rules(shadow: Shadow) -> list[str]:
    """Check what the CRD says of a shadow in CEL."""
    problems, gate = [], shadow.gate
    if shadow.version in (names.ALIAS_PRODUCTION, names.ALIAS_PREVIOUS) or not _VERSION.fullmatch(
        shadow.version
    ):
        problems.append(f".version: {shadow.version!r} is no version's name: write one such as v3")
    if round(shadow.percent, 2) != shadow.percent:
        problems.append(".percent: a percentage has at most two decimals, such as 10 or 0.5")
    if not _TOLERANCE.fullmatch(shadow.tolerance):
        problems.append(
            f".tolerance: {shadow.tolerance!r}: a tolerance is a number of at least 0 in quotes, such as "
            '"0.1" or "0"'
        )
    for place, share in (
        ("maxDisagreementPercent", gate.max_disagreement_percent),
        ("maxErrorPercent", gate.max_error_percent),
    ):
        if not (_SHARE.fullmatch(share) and 0 < float(share) < 100):  # noqa: PLR2004 percent
            problems.append(
                f".gate.{place}: {share!r}: a share that is tolerated is a percentage above 0 and below 100 "
                'in quotes, such as "0.1"'
            )
    problems += [f".gate.maxLatencyRatio: {problem}" for problem in _ratio_rules(gate.max_latency_ratio)]
    if shadow.replicas is not None and shadow.placement is ShadowPlacement.SIDECAR:
        problems.append(": a sidecar is in every pod: remove replicas, or set placement: Deployment")
    return problems + _memory_rules(shadow)


def _memory_rules(shadow: Shadow) -> list[str]:
    if shadow.resources is None:
        return []
    limit = str((shadow.resources.get("limits") or {}).get("memory", ""))
    try:
        if parse_quantity(limit) >= parse_quantity(SHADOW_MIN_MEMORY):
            return []
    except ValueError:
        pass
    return [
        f".resources: a shadow needs limits.memory of at least {SHADOW_MIN_MEMORY}, or leave resources out"
    ]


def _log_rules(log: PredictionLog) -> list[str]:
    """Check what the CRD says of the prediction log in CEL."""
    problems, pattern = [], URI_PATTERNS.get(log.sink)
    if pattern is not None and not re.fullmatch(pattern, log.uri or ""):
        problems.append(URI_REMEDIES[log.sink])
    if pattern is None and log.uri is not None:
        problems.append(NO_URI)
    if log.sink in DISKLESS and "max_disk" in log.model_fields_set:
        problems.append(NO_DISK)
    if not _is_between(log.max_disk, MIN_DISK, MAX_DISK):
        problems.append(f'maxDisk: "{log.max_disk}": {DISK_REMEDY}')
    return [f"spec.predictionLog: {problem}" for problem in problems]


def _feature_rules(features: Features) -> list[str]:
    """Check what the CRD says of the feature cache in CEL."""
    problems, redis, compute = [], features.redis, features.compute
    if redis is None and compute is None:
        problems.append(f": {ONE_SOURCE}")
    if not _is_between(features.max_memory, MIN_MEMORY, MAX_MEMORY):
        problems.append(f'.maxMemory: "{features.max_memory}": {MEMORY_REMEDY}')
    if redis is not None and not re.fullmatch(REDIS_PATTERN, redis.url):
        problems.append(f".redis.url: {REDIS_REMEDY}")
    if compute is not None:
        problems += _compute_rules(compute)
    if not re.fullmatch(ENTITY_KEY_PATTERN, features.entity_key):
        problems.append(f'.entityKey: "{features.entity_key}": {ENTITY_KEY_REMEDY}')
    durations = {"ttl": features.ttl, "staleFor": features.stale_for}
    durations |= {"redis.timeout": redis.timeout, "redis.ttl": redis.ttl} if redis else {}
    durations |= {"compute.timeout": compute.timeout} if compute else {}
    for place, text in durations.items():
        problems += _duration_rules(place, text, *FEATURE_BOUNDS[place])
    return problems


def _duration_rules(place: str, text: str, least: str, most: str) -> list[str]:
    try:
        if parse_duration(least) <= parse_duration(text) <= parse_duration(most):
            return []
    except DurationError as error:
        return [f".{place}: {error}"]
    return [f'.{place}: "{text}": must be between {least} and {most}']


def _compute_rules(compute: FeatureCompute) -> list[str]:
    problems, feast = [], compute.feast
    if not re.fullmatch(COMPUTE_PATTERN, compute.url):
        problems.append(f".compute.url: {COMPUTE_REMEDY}")
    if feast is not None and "{entity}" in compute.url:
        problems.append(f".compute: {FEAST_ADDRESS}")
    if feast is not None and (feast.service is None) == (feast.features is None):
        problems.append(f".compute.feast: {ONE_WISH}")
    return problems


def _is_between(text: str, least: str, most: str) -> bool:
    try:
        return parse_quantity(least) <= parse_quantity(text) <= parse_quantity(most)
    except ValueError:
        return False


def _build_rules(deployment: ModelDeployment) -> list[str]:
    """Build what a pod would be started with: so quantities, and the path of a claim, are checked too."""
    try:
        build_runtime_config(deployment)
    except ValidationError as error:
        first = error.errors()[0]
        return [f"spec: {first['msg']}, found {first['input']!r}"]
    except ValueError as error:
        return [f"spec: {error}"]
    return []
