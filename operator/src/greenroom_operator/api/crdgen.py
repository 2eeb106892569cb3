"""Write ``crds/`` from the models: ``python -m greenroom_operator.api.crdgen``, or ``make crds``.

A CRD wants a structural schema: no references, no null, no titles, every bound spelled out. This module
turns what pydantic emits into that, and refuses what has no structural form.
"""

import argparse
import difflib
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final

import yaml

from greenroom_operator.api import modeldeployment as md
from greenroom_operator.api.base import CEL_RULES, KUBERNETES_TYPE, SERVER_DEFAULT, ApiModel
from greenroom_operator.api.podschemas import Schema, pod_schema

HEADER: Final = "# Generated from operator/src/greenroom_operator/api by `make crds`. Do not edit.\n"

_KEPT = frozenset(
    {
        "description",
        "enum",
        "format",
        "maximum",
        "maxItems",
        "maxLength",
        "maxProperties",
        "minimum",
        "minItems",
        "minLength",
        "minProperties",
        "nullable",
        "pattern",
        "required",
        "type",
        "x-kubernetes-list-map-keys",
        "x-kubernetes-list-type",
        "x-kubernetes-preserve-unknown-fields",
        CEL_RULES,
    }
)
_NESTED = frozenset({"properties", "items", "additionalProperties"})
_DROPPED = frozenset({"title", "default", "$defs"})
"""Defaults live in Python; the few that the API server writes are marked as such."""

_QUANTITY_RULE = {
    "rule": "isQuantity(string(self)) && !quantity(string(self)).isLessThan(quantity('0'))",
    "message": "must be a quantity, such as 500m, 2 or 512Mi",
}
_FOREIGN_BOUNDS: Final[Mapping[str, Schema]] = {
    "array": {"maxItems": 32, "x-kubernetes-list-type": "atomic"},
    "string": {"maxLength": 512},
}
"""What Kubernetes' own schemas lack: the cost of a rule is estimated from these."""


class UnsupportedSchemaError(ValueError):
    """A model uses something that no structural schema can say."""


def structural(schema: Schema, *, definitions: Mapping[str, Schema], path: str = "") -> Schema:
    """Return the structural form of a JSON schema as pydantic emits it.

    ``definitions`` are its ``$defs``; ``path`` is where it stands, for errors. Raises UnsupportedSchemaError.
    """
    merged = _without_indirection(schema, definitions=definitions, path=path)
    if (name := merged.get(KUBERNETES_TYPE)) is not None:
        described = {key: merged[key] for key in ("description", CEL_RULES) if key in merged}
        return _tidied(described | _bounded(pod_schema(name)))
    result: Schema = {}
    for keyword, value in merged.items():
        if keyword in _NESTED:
            result[keyword] = _nested(keyword, value, definitions=definitions, path=path)
        elif keyword == SERVER_DEFAULT:
            result["default"] = value
        elif keyword in _KEPT:
            result[keyword] = value
        elif keyword not in _DROPPED:
            raise UnsupportedSchemaError(f"{path or '.'}: {keyword} has no structural form")
    return _tidied(result)


def _nested(keyword: str, value: Any, *, definitions: Mapping[str, Schema], path: str) -> Schema:
    if keyword == "properties":
        return {
            name: structural(member, definitions=definitions, path=f"{path}.{name}")
            for name, member in value.items()
        }
    if not isinstance(value, dict):
        message = f"{path or '.'}: a free-form object lets typos pass; name its members"
        raise UnsupportedSchemaError(message)
    return structural(value, definitions=definitions, path=f"{path}[]")


def _without_indirection(schema: Schema, *, definitions: Mapping[str, Schema], path: str) -> Schema:
    """Replace a reference, or "X or null", by what it stands for; what the field says of itself wins."""
    rest = {keyword: value for keyword, value in schema.items() if keyword not in ("$ref", "anyOf")}
    if "$ref" in schema:
        target = definitions[schema["$ref"].removeprefix("#/$defs/")]
    elif "anyOf" in schema:
        options = [option for option in schema["anyOf"] if option.get("type") != "null"]
        if len(options) != 1:
            raise UnsupportedSchemaError(f"{path or '.'}: alternatives have no structural form")
        target = options[0]
    else:
        return schema
    inner = _without_indirection(target, definitions=definitions, path=path)
    combined = inner | rest
    if CEL_RULES in inner and CEL_RULES in rest:
        combined[CEL_RULES] = [*inner[CEL_RULES], *rest[CEL_RULES]]
    return combined


def _tidied(schema: Schema) -> Schema:
    """Spell the types' details as a CRD does: text on one line, 64-bit integers, mappings bounded by name."""
    if "description" in schema:
        schema["description"] = " ".join(schema["description"].split())
    if schema.get("type") == "integer":
        schema.setdefault("format", "int64")
    return dict(sorted(schema.items()))


def _bounded(schema: Schema) -> Schema:
    """Give one of Kubernetes' own schemas the bounds that a CRD's rules and our own lint ask for."""
    result = dict(schema)
    if result.get("x-kubernetes-int-or-string"):
        return result | {"maxLength": 32, CEL_RULES: [_QUANTITY_RULE]}
    for keyword, value in _FOREIGN_BOUNDS.get(result.get("type", ""), {}).items():
        result.setdefault(keyword, value)
    if "properties" in result:
        result["properties"] = {name: _bounded(member) for name, member in result["properties"].items()}
    if "items" in result:
        result["items"] = _bounded(result["items"])
    if "additionalProperties" in result:
        result["additionalProperties"] = _bounded(result["additionalProperties"])
        result.setdefault("maxProperties", 32)
    return dict(sorted(result.items()))


def build_schema(model: type[ApiModel]) -> Schema:
    """Return the structural schema of a custom resource, with the root that the API server expects."""
    emitted = model.model_json_schema(by_alias=True)
    emitted["properties"]["metadata"] = {"type": "object"}
    schema = structural(emitted, definitions=emitted["$defs"])
    schema["properties"] = {
        "apiVersion": {"type": "string", "maxLength": 128},
        "kind": {"type": "string", "maxLength": 64},
    } | schema["properties"]
    schema["required"] = ["metadata", "spec"]
    return schema


def build_model_deployment_crd() -> dict[str, Any]:
    """Return the CustomResourceDefinition of the ModelDeployment."""
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{md.PLURAL}.{md.GROUP}"},
        "spec": {
            "group": md.GROUP,
            "names": {
                "kind": md.KIND,
                "listKind": f"{md.KIND}List",
                "plural": md.PLURAL,
                "singular": md.SINGULAR,
                "shortNames": list(md.SHORT_NAMES),
                "categories": list(md.CATEGORIES),
            },
            "scope": "Namespaced",
            "versions": [
                {
                    "name": md.VERSION,
                    "served": True,
                    "storage": True,
                    "subresources": {
                        "status": {},
                        "scale": {
                            "specReplicasPath": ".spec.replicas",
                            "statusReplicasPath": ".status.replicas",
                            "labelSelectorPath": ".status.selector",
                        },
                    },
                    "additionalPrinterColumns": _printer_columns(),
                    "schema": {"openAPIV3Schema": build_schema(md.ModelDeployment)},
                }
            ],
        },
    }


def _printer_columns() -> list[dict[str, Any]]:
    ready = ".status.conditions[?(@.type=='Ready')]"
    shown = [
        ("Version", ".status.version"),
        ("Rollout", ".status.rollout.summary"),
        ("Shadow", ".status.shadow.version"),
        ("Disagree", ".status.shadow.summary"),
        ("Ready", f"{ready}.status"),
        ("Replicas", ".status.replicaSummary"),
    ]
    wide = [
        ("Reason", f"{ready}.reason"),
        ("Promotion", ".status.promotion.state"),
        ("URL", ".status.url"),
    ]
    return [
        *({"name": name, "type": "string", "jsonPath": path} for name, path in shown),
        *({"name": name, "type": "string", "jsonPath": path, "priority": 1} for name, path in wide),
        {"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"},
    ]


class _Dumper(yaml.SafeDumper):
    """Writes every value out; anchors have no place in a manifest."""

    def ignore_aliases(self, _data: Any) -> bool:
        return True


def render(crd: dict[str, Any]) -> str:
    """Return the file's text, the header included."""
    return HEADER + yaml.dump(crd, Dumper=_Dumper, sort_keys=False, width=110, allow_unicode=True)


def build_files() -> dict[str, str]:
    """Return every generated file's name and text."""
    crds = [build_model_deployment_crd()]
    return {f"{crd['spec']['group']}_{crd['spec']['names']['plural']}.yaml": render(crd) for crd in crds}


def differences(directory: Path, *, files: Mapping[str, str]) -> list[str]:
    """Return the unified diff from what lies in the directory to what should; empty when they agree."""
    lines: list[str] = []
    for name, wanted in files.items():
        path = directory / name
        found = path.read_text(encoding="utf-8") if path.exists() else ""
        lines += difflib.unified_diff(
            found.splitlines(),
            wanted.splitlines(),
            fromfile=f"{path} (committed)",
            tofile=f"{path} (from the models)",
            lineterm="",
        )
    return lines


def main(arguments: Iterable[str] | None = None) -> int:
    """Write the files, or with ``--check`` only compare; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m greenroom_operator.api.crdgen", description=__doc__)
    parser.add_argument("--directory", type=Path, default=Path("crds"), help="where the files lie (crds)")
    parser.add_argument("--check", action="store_true", help="write nothing; fail when the files differ")
    options = parser.parse_args(None if arguments is None else list(arguments))
    files = build_files()
    if options.check:
        lines = differences(options.directory, files=files)
        if lines:
            sys.stderr.write("\n".join([*lines, "", "The CRDs differ from the models: run `make crds`.", ""]))
        return 1 if lines else 0
    options.directory.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (options.directory / name).write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
