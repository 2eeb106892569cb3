"""A ModelDeployment from a YAML file: checked here as far as the API server would check it."""

import re
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from greenroom.local.errors import LocalError
from greenroom_operator.api.modeldeployment import API_VERSION, KIND, NAME_MAX_LENGTH, ModelDeployment
from greenroom_operator.api.times import DurationError, parse_duration
from greenroom_runtime.contract import names

MAX_BYTES = 1024 * 1024
_NAME = re.compile(r"^[a-z]([-a-z0-9]*[a-z0-9])?$")
_VERSION = re.compile(names.VERSION_PATTERN)


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
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ManifestError(f"{path}: {_where(error)}") from error
    found = [
        document for document in documents if isinstance(document, dict) and document.get("kind") == KIND
    ]
    if len(found) != 1:
        kinds = [document.get("kind") if isinstance(document, dict) else document for document in documents]
        told = f"{len(found)} objects of kind {KIND} (found: {kinds or 'nothing'})"
        raise ManifestError(f"{path} holds {told}: write exactly one")
    return _validate(found[0], path=path)


def _where(error: yaml.YAMLError | UnicodeDecodeError) -> str:
    if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark is not None:
        mark = error.problem_mark
        return f"line {mark.line + 1}, column {mark.column + 1}: {error.problem}"
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
    if len(name) > NAME_MAX_LENGTH or not _NAME.match(name):
        problems.append(
            f"metadata.name: {name!r} should be at most {NAME_MAX_LENGTH} lower-case letters, digits "
            "and '-', beginning with a letter, such as churn"
        )
    if spec.version in (names.ALIAS_PRODUCTION, names.ALIAS_PREVIOUS):
        problems.append(f"spec.version: {spec.version} is an alias: name the version itself, such as v2")
    elif not _VERSION.match(spec.version):
        problems.append(
            f"spec.version: {spec.version!r} is no version: it is the name of a directory under source.uri, "
            "of lower-case letters, digits, '-' and '.', such as v2 or 2026.11.3"
        )
    for place, text in (("progressDeadline", spec.progress_deadline), ("drain", spec.drain)):
        try:
            parse_duration(text)
        except DurationError as error:
            problems.append(f"spec.{place}: {error}")
    return problems
