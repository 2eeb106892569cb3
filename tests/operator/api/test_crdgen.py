"""The generator: from models to a structural schema, and the lint that every CRD of ours passes."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import pytest
import yaml
from pydantic import ConfigDict, Field

from greenroom_operator.api import crdgen
from greenroom_operator.api.base import ApiModel, Rule, list_map, rules, server_default
from greenroom_operator.api.crdgen import UnsupportedSchemaError, structural
from greenroom_operator.api.modeldeployment import ModelDeployment

CRDS = Path(__file__).parents[3] / "crds"
PATTERN = re.compile(r"r'(\^.*?\$)'")


def schema_of(model: type[ApiModel]) -> dict[str, Any]:
    """Return a model's structural schema, without the root's treatment."""
    emitted = model.model_json_schema(by_alias=True)
    return structural(emitted, definitions=emitted.get("$defs", {}))


def walk(schema: dict[str, Any], path: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield every schema below this one with its path."""
    yield path, schema
    for name, member in schema.get("properties", {}).items():
        yield from walk(member, f"{path}.{name}")
    for keyword in ("items", "additionalProperties"):
        if keyword in schema:
            yield from walk(schema[keyword], f"{path}[]")


NODES = list(walk(crdgen.build_schema(ModelDeployment)))


class Part(ApiModel):
    """A part."""

    name: str


class Whole(ApiModel):
    """A whole."""

    model_config = ConfigDict(json_schema_extra=rules(Rule("self.a != self.b", "they differ")))

    a_part: Annotated[Part, Rule("self.name != ''", "a part has a name")]
    """What the field says wins
    over what the part says of itself."""
    maybe: Annotated[str, Field(max_length=3)] | None = None
    count: Annotated[int, Field(ge=0), server_default(1)] = 1
    parts: Annotated[tuple[Part, ...], Field(max_length=2), list_map("name")] = ()


def test_references_and_nulls_are_resolved() -> None:
    """The API server gets a tree: no references, no alternatives, no titles; None is absence."""
    schema = schema_of(Whole)
    assert schema["properties"]["maybe"] == {"type": "string", "maxLength": 3}
    assert schema["properties"]["aPart"] == {
        "type": "object",
        "description": "What the field says wins over what the part says of itself.",
        "properties": {"name": {"type": "string"}},
        "required": ["name"],
        "x-kubernetes-validations": [{"rule": "self.name != ''", "message": "a part has a name"}],
    }
    assert schema["required"] == ["aPart"]
    assert schema["x-kubernetes-validations"] == [{"rule": "self.a != self.b", "message": "they differ"}]


def test_only_marked_defaults_reach_the_server() -> None:
    """A default in Python stays there; a live object shows what its file says."""
    properties = schema_of(Whole)["properties"]
    assert properties["count"]["default"] == 1
    assert "default" not in properties["parts"]


def test_lists_carry_their_merge_keys() -> None:
    """A list map's keys are what server-side apply merges by."""
    parts = schema_of(Whole)["properties"]["parts"]
    assert parts["x-kubernetes-list-type"] == "map"
    assert parts["x-kubernetes-list-map-keys"] == ["name"]
    assert parts["maxItems"] == 2


class FreeForm(ApiModel):
    """Anything goes."""

    anything: dict[str, Any]


class Either(ApiModel):
    """This or that."""

    either: int | str


class Narrow(ApiModel):
    """A bound that OpenAPI 3.0 spells differently."""

    ratio: Annotated[float, Field(gt=0)]


@pytest.mark.parametrize(
    ("model", "text"),
    [
        (FreeForm, ".anything: a free-form object lets typos pass"),
        (Either, ".either: alternatives have no structural form"),
        (Narrow, ".ratio: exclusiveMinimum has no structural form"),
    ],
)
def test_what_no_structural_schema_can_say_is_refused(model: type[ApiModel], text: str) -> None:
    """The generator fails at once and names the field, rather than the API server much later."""
    with pytest.raises(UnsupportedSchemaError, match=re.escape(text)):
        schema_of(model)


def test_a_rule_quotes_the_offending_text_only_where_there_is_one() -> None:
    """Quotation marks in a message do not end the CEL string that carries it."""
    assert Rule("r", "it's wrong").to_dict() == {"rule": "r", "message": "it's wrong"}
    assert Rule("r", "it's wrong", subject="self").to_dict()["messageExpression"] == (
        """'"' + self + '": it\\'s wrong'"""
    )


@pytest.mark.parametrize(("path", "schema"), NODES, ids=[path or "root" for path, _ in NODES])
def test_everything_is_bounded(path: str, schema: dict[str, Any]) -> None:
    """Every string, list and map has a largest size: the cost of CEL rules is estimated from them."""
    if path == ".metadata":
        assert schema == {"type": "object"}
        return
    if path == ".spec.features.defaults[]":  # a scalar of any kind, for which a CRD has no words
        assert schema == {"nullable": True, "x-kubernetes-preserve-unknown-fields": True}
        return
    kind = schema.get("type", "int-or-string" if "x-kubernetes-int-or-string" in schema else None)
    match kind:
        case "string" | "int-or-string":
            assert "maxLength" in schema or "enum" in schema
        case "array":
            assert {"maxItems", "x-kubernetes-list-type"} <= schema.keys()
        case "object":
            assert "properties" in schema or "maxProperties" in schema
        case "number":
            assert {"minimum", "maximum"} <= schema.keys()
        case _:
            assert kind in {"integer", "boolean"}


def test_every_field_of_ours_is_explained() -> None:
    """`kubectl explain` has a sentence for each field, down to where Kubernetes' own types begin."""
    foreign = (
        ".spec.affinity.",
        ".spec.resources.",
        ".spec.shadow.resources.",
        ".spec.tolerations[]",
        ".spec.topologySpreadConstraints[]",
    )
    silent = [
        path
        for path, schema in NODES
        if not path.endswith("[]")
        and path not in (".apiVersion", ".kind", ".metadata")
        and not path.startswith(foreign)
        and not schema.get("description")
    ]
    assert silent == []


def test_rules_speak_in_one_line_of_a_readable_length() -> None:
    """The API server refuses a message with a line break, and people refuse a long one."""
    found = [rule for _, schema in NODES for rule in schema.get("x-kubernetes-validations", ())]
    assert found
    assert [rule["message"] for rule in found if "\n" in rule["message"] or len(rule["message"]) > 400] == []


def test_the_patterns_of_rules_compile() -> None:
    """A pattern in a CEL raw string is a regular expression without a quotation mark."""
    texts = [rule["rule"] for _, schema in NODES for rule in schema.get("x-kubernetes-validations", ())]
    patterns = {pattern for text in texts for pattern in PATTERN.findall(text)}
    assert patterns
    for pattern in patterns:
        re.compile(pattern)


def test_the_committed_crds_are_the_models() -> None:
    """`crds/` holds exactly what the generator writes, small enough for a client-side apply."""
    files = crdgen.build_files()
    assert {path.name for path in CRDS.iterdir()} == files.keys()
    assert crdgen.differences(CRDS, files=files) == []
    assert all(len(text.encode()) < 200 * 1024 for text in files.values())


def test_the_text_parses_to_what_was_built() -> None:
    """Nothing is lost in YAML, and no anchors puzzle a reader."""
    crd = crdgen.build_model_deployment_crd()
    text = crdgen.render(crd)
    assert text.startswith("# Generated")
    assert yaml.safe_load(text) == crd
    assert not re.search(r"[&*]id\d", text)


def test_check_fails_and_shows_what_differs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`--check` writes nothing, and says which command makes it right."""
    assert crdgen.main(["--directory", str(tmp_path), "--check"]) == 1
    assert list(tmp_path.iterdir()) == []
    assert crdgen.main(["--directory", str(tmp_path)]) == 0
    assert crdgen.main(["--directory", str(tmp_path), "--check"]) == 0
    assert capsys.readouterr().err.endswith("The CRDs differ from the models: run `make crds`.\n")
    path = next(tmp_path.iterdir())
    path.write_text(
        path.read_text(encoding="utf-8").replace("maximum: 1000\n", "maximum: 9\n"), encoding="utf-8"
    )
    assert crdgen.main(["--directory", str(tmp_path), "--check"]) == 1
    shown = capsys.readouterr().err.splitlines()
    assert any(line.startswith("-") and line.endswith("maximum: 9") for line in shown)
    assert any(line.startswith("+") and line.endswith("maximum: 1000") for line in shown)
