"""Kubernetes' own schemas of the pod fields that a ModelDeployment passes on, kept in ``podschemas.json``.

In a free-form object a typo would pass silently. Renew the file after a change of ``POD_TYPES`` with

    kubectl get --raw /openapi/v3/api/v1 | python -m greenroom_operator.api.podschemas
"""

import json
import sys
from functools import cache
from pathlib import Path
from typing import Any, Final

Schema = dict[str, Any]

POD_TYPES: Final = ("Affinity", "ResourceRequirements", "Toleration", "TopologySpreadConstraint")
SCHEMAS_PATH: Final = Path(__file__).with_suffix(".json")
INT_OR_STRING: Final[Schema] = {
    "anyOf": [{"type": "integer"}, {"type": "string"}],
    "x-kubernetes-int-or-string": True,
}

_REF_PREFIX = "#/components/schemas/"
_PACKAGE = "io.k8s.api.core.v1."
_QUANTITY = "io.k8s.apimachinery.pkg.api.resource.Quantity"
_DROPPED = frozenset(
    {"default", "description", "x-kubernetes-patch-merge-key", "x-kubernetes-patch-strategy"}
)
_UNSUPPORTED = {"ResourceRequirements": ("claims",)}
"""Members that need something elsewhere in the pod which a ModelDeployment does not offer."""


@cache
def pod_schema(name: str) -> Schema:
    """Return the schema of one of ``POD_TYPES``; not to be modified."""
    schemas: dict[str, Schema] = json.loads(SCHEMAS_PATH.read_text(encoding="utf-8"))
    return schemas[name]


def trim(openapi: Schema) -> dict[str, Schema]:
    """Return the schemas of ``POD_TYPES``, self-contained and without descriptions.

    ``openapi`` is what an API server answers at ``/openapi/v3/api/v1``.
    """
    definitions = openapi["components"]["schemas"]
    trimmed = {}
    for name in POD_TYPES:
        schema = _inline(definitions[_PACKAGE + name], definitions=definitions)
        for member in _UNSUPPORTED.get(name, ()):
            del schema["properties"][member]
        trimmed[name] = schema
    return trimmed


def _inline(schema: Schema, *, definitions: dict[str, Schema]) -> Schema:
    result: Schema = {}
    for keyword, value in schema.items():
        if keyword == "$ref":
            result |= _resolve(value.removeprefix(_REF_PREFIX), definitions=definitions)
        elif keyword == "allOf":
            for part in value:
                result |= _inline(part, definitions=definitions)
        elif keyword == "properties":
            result[keyword] = {
                name: _inline(member, definitions=definitions) for name, member in value.items()
            }
        elif keyword in ("items", "additionalProperties"):
            result[keyword] = _inline(value, definitions=definitions)
        elif keyword not in _DROPPED:
            result[keyword] = value
    return result


def _resolve(name: str, *, definitions: dict[str, Schema]) -> Schema:
    return INT_OR_STRING if name == _QUANTITY else _inline(definitions[name], definitions=definitions)


def main() -> None:
    """Write ``podschemas.json`` from the OpenAPI document on standard input."""
    text = json.dumps(trim(json.load(sys.stdin)), indent=1, sort_keys=True)
    SCHEMAS_PATH.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
