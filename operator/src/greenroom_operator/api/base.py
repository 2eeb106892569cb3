"""What the custom resources' models share: their base, and the marks that only a CRD understands."""

from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, ConfigDict, GetJsonSchemaHandler
from pydantic.alias_generators import to_camel
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema

CEL_RULES = "x-kubernetes-validations"


class ApiModel(BaseModel):
    """Base of every part of a custom resource: frozen, camel case in YAML, snake case in Python.

    Unknown fields are ignored, since an operator of an older release may read what a newer CRD allows;
    typos are refused by the API server, which knows the schema. No model validates more than its CRD.
    """

    model_config = ConfigDict(
        frozen=True,
        extra="ignore",
        alias_generator=to_camel,
        validate_by_name=True,
        validate_by_alias=True,
        serialize_by_alias=True,
        use_attribute_docstrings=True,
    )


@dataclass(frozen=True)
class Rule:
    """A CEL rule that the API server checks; ``self`` is the value that carries it."""

    rule: str
    message: str
    """What is wrong and what to write instead. One line."""
    subject: str = ""
    """CEL of the offending text, such as ``self`` or ``self.name``, which then begins the message: by itself
    the API server shows only the value's type. Empty where the value is no text."""

    def to_dict(self) -> dict[str, str]:
        """Return the entry of ``x-kubernetes-validations``."""
        entry = {"rule": self.rule, "message": self.message}
        if self.subject:
            quoted = self.message.replace("'", "\\'")
            entry["messageExpression"] = f"""'"' + {self.subject} + '": {quoted}'"""
        return entry

    def __get_pydantic_json_schema__(
        self, schema: CoreSchema, handler: GetJsonSchemaHandler, /
    ) -> JsonSchemaValue:
        described = handler(schema)
        described[CEL_RULES] = [*described.get(CEL_RULES, []), self.to_dict()]
        return described


def rules(*members: Rule) -> dict[str, Any]:
    """Return the ``json_schema_extra`` of a model whose rules compare several of its fields."""
    return {CEL_RULES: [member.to_dict() for member in members]}


@dataclass(frozen=True)
class Extension:
    """Keywords that a CRD's schema has and JSON schema has not."""

    keywords: tuple[tuple[str, Any], ...]

    def __get_pydantic_json_schema__(
        self, schema: CoreSchema, handler: GetJsonSchemaHandler, /
    ) -> JsonSchemaValue:
        return handler(schema) | dict(self.keywords)


def list_map(*keys: str) -> Extension:
    """Make a list merge by its items' keys; no two items may have the same."""
    return Extension((("x-kubernetes-list-type", "map"), ("x-kubernetes-list-map-keys", list(keys))))


def atomic_list() -> Extension:
    """Make a list one value, replaced as a whole."""
    return Extension((("x-kubernetes-list-type", "atomic"),))


SERVER_DEFAULT = "x-server-default"
KUBERNETES_TYPE = "x-kubernetes-type"


def server_default(value: Any) -> Extension:
    """Let the API server write this value where the field is left out.

    All other defaults live in Python only, so that a live object shows what Git says and no more.
    """
    return Extension(((SERVER_DEFAULT, value),))


def kubernetes_type(name: str) -> Extension:
    """Let the CRD carry Kubernetes' own schema of this type, such as ``Affinity``."""
    return Extension(((KUBERNETES_TYPE, name),))
