"""The documentation says what the code says: every name that users meet, and no name that is gone."""

import ast
import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, get_args

import pytest
import typer
from prometheus_client import CollectorRegistry, generate_latest
from starlette.routing import Route

import greenroom
from greenroom.commands import app
from greenroom_operator import __main__ as operator_main
from greenroom_operator import app as operator_app
from greenroom_operator.api.base import ApiModel
from greenroom_operator.api.features import Features
from greenroom_operator.api.modeldeployment import ModelDeploymentSpec, ModelDeploymentStatus, PromotionState
from greenroom_operator.controller.conditions import TRUTH_TABLE, Reason, Row, Situation
from greenroom_operator.metrics import Metrics as OperatorMetrics
from greenroom_runtime.api import predict
from greenroom_runtime.api.admin import build_admin
from greenroom_runtime.api.open_inference.describe import describe_operations
from greenroom_runtime.api.public import build_public
from greenroom_runtime.contract.config import Compute, FeatureCache, RedisCache, ShadowConfig
from greenroom_runtime.contract.report import FailureReason, VersionState
from greenroom_runtime.features.metrics import FeatureCollector
from greenroom_runtime.features.opening import open_features
from greenroom_runtime.metrics import Metrics as RuntimeMetrics
from greenroom_runtime.shadow.mirror import open_mirror
from greenroom_runtime.shadow.mirror_metrics import MirrorCollector

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
SOURCES = ("operator/src", "serving-runtime/src", "toolkit/src", "charts/greenroom/templates", "crds")
PAGES = sorted(
    [
        *DOCS.glob("*.md"),
        *(ROOT / name for name in ("README.md", "ARCHITECTURE.md", "CONTRIBUTING.md")),
        ROOT / "charts" / "greenroom" / "README.md",
        ROOT / "e2e" / "cluster" / "README.md",
    ]
)
PAGE_NAMES = [str(page.relative_to(ROOT)) for page in PAGES]

_CODE = re.compile(r"`([^`\n]+)`")
_METRIC = re.compile(r"\bgreenroom_[a-z_]*[a-z]\b")
_ONE_WORD = re.compile(r"([A-Z][a-z]+){2,}")
_LINK = re.compile(r"\]\(([^)\s]+)\)")
_HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)


def read(name: str) -> str:
    """Return a page of docs/."""
    return (DOCS / name).read_text(encoding="utf-8")


def code(name: str) -> set[str]:
    """Return what a page has in code font, outside of its blocks."""
    prose = re.sub(r"^```.*?^```", "", read(name), flags=re.MULTILINE | re.DOTALL)
    return set(_CODE.findall(prose))


def metric_names(registry: CollectorRegistry) -> set[str]:
    """Return our metrics as Prometheus knows them, without the parts of a histogram."""
    types = re.findall(r"^# TYPE (\S+)", generate_latest(registry).decode(), re.MULTILINE)
    return {name for name in types if name.startswith("greenroom_") and not name.endswith("_created")}


def runtime_metrics() -> set[str]:
    """Return the names that a serving pod exposes."""
    metrics = RuntimeMetrics()
    report = SimpleNamespace(versions=(), ready=True, flags_error="", revision="", production="")
    metrics.observe_state(lambda: report)  # type: ignore[arg-type, return-value]
    return metric_names(metrics.registry)


def feature_metrics() -> set[str]:
    """Return the names that a pod exposes where it fetches features."""
    settings = FeatureCache(redis=RedisCache(url="redis://a"), compute=Compute(url="http://a/{entity}"))
    cache = open_features(settings, model="churn", namespace="ml", environment={})
    registry = CollectorRegistry()
    registry.register(FeatureCollector(cache))
    return metric_names(registry)


def mirror_metrics() -> set[str]:
    """Return the names that a pod exposes where it mirrors to a shadow."""
    registry = CollectorRegistry()
    registry.register(MirrorCollector(open_mirror(ShadowConfig())))
    return metric_names(registry)


def fields(model: type[ApiModel], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield each field's path as written in YAML, with its default; parts of our own are entered."""
    for name, field in model.model_fields.items():
        path = f"{prefix}{field.alias or name}"
        part = _part(field.annotation)
        if part is not None:
            yield from fields(part, f"{path}.")
        else:
            yield path, field.default


def _part(annotation: Any) -> type[ApiModel] | None:
    """Return the part of our own that a field is, or may be where features.md explains it."""
    if inspect.isclass(annotation) and issubclass(annotation, ApiModel):
        return annotation
    optional = (kind for kind in get_args(annotation) if inspect.isclass(kind) and issubclass(kind, ApiModel))
    return next((kind for kind in optional if kind.__module__ == Features.__module__), None)


def cell(*, value: bool | None, reason: Reason | None = None) -> str:
    """Return a condition as the truth table in docs/ writes it."""
    return "kept" if value is None else f"{value}{f' `{reason}`' if reason else ''}"


def test_the_truth_table_is_the_code_s() -> None:
    """Each row of the table is a situation's, and there are no others."""

    def line(situation: Situation, row: Row) -> str:
        cells = [
            situation.value,
            f"`{row.reason}`",
            cell(value=row.ready),
            cell(value=row.progressing, reason=row.progressing_reason),
            cell(value=row.degraded),
            "True" if row.reconciling else "–",  # noqa: RUF001 a dash
            "True" if row.stalled else "–",  # noqa: RUF001
        ]
        return f"| {' | '.join(cells)} |"

    page = read("conditions.md")
    table = page.partition("## Truth table")[2].partition("## ")[0]
    rows = [text.rpartition(" | ")[0] + " |" for text in table.splitlines() if text.startswith("| ")][1:]
    assert rows == [line(situation, row) for situation, row in TRUTH_TABLE.items()]


@pytest.mark.parametrize("name", [*Reason, *FailureReason, *PromotionState])
def test_every_reason_is_explained(name: str) -> None:
    """What a condition, an event, a failure or a promotion may say is in conditions.md."""
    assert name in code("conditions.md")


@pytest.mark.parametrize("state", VersionState)
def test_every_state_of_a_version_is_explained(state: str) -> None:
    """So are the states in a pod's report."""
    assert state in code("serving.md")


@pytest.mark.parametrize("page", ["conditions.md", "serving.md", "operator.md", "gitops.md"])
def test_names_in_the_documentation_exist(page: str) -> None:
    """A reason, a state or a kind that these pages name is a word of the code."""
    words = {
        word
        for source in SOURCES
        for path in (ROOT / source).rglob("*")
        if path.suffix in (".py", ".yaml")
        for word in re.findall(r"\w+", path.read_text(encoding="utf-8"))
    }
    named = {text for text in code(page) if _ONE_WORD.fullmatch(text)}
    assert named
    assert named - words - {"InProgress"} == set()  # kstatus' own word


def test_every_metric_is_explained() -> None:
    """What a pod or the operator exposes has a line on its page."""
    assert runtime_metrics() - code("serving.md") == set()
    assert feature_metrics() - code("features.md") == set()
    assert mirror_metrics() - code("shadow.md") == set()
    assert metric_names(OperatorMetrics().registry) - code("operator.md") == set()


@pytest.mark.parametrize("page", PAGES, ids=PAGE_NAMES)
def test_metrics_in_the_documentation_exist(page: Path) -> None:
    """A metric that a page names is exposed by a pod or by the operator."""
    known = (
        runtime_metrics() | feature_metrics() | mirror_metrics() | metric_names(OperatorMetrics().registry)
    )
    modules = {"greenroom_operator", "greenroom_runtime"}
    assert set(_METRIC.findall(page.read_text(encoding="utf-8"))) - known - modules == set()


@pytest.mark.parametrize(("path", "default"), list(fields(ModelDeploymentSpec)), ids=str)
def test_every_field_of_spec_is_explained(path: str, default: object) -> None:
    """Each field has a row on its page, with its default where that is a number or a text."""
    page, inner = (
        ("features.md", path.removeprefix("features.")) if "features." in path else ("serving.md", path)
    )
    rows = [line for line in read(page).splitlines() if line.startswith(f"| `{inner}` |")]
    assert len(rows) == 1
    if isinstance(default, int | str):
        assert f"| `{default}` |" in rows[0]


@pytest.mark.parametrize("name", [field.alias for field in ModelDeploymentStatus.model_fields.values()])
def test_every_field_of_status_is_explained(name: str) -> None:
    """So has each field of status in conditions.md."""
    assert name in code("conditions.md")


def paths() -> set[str]:
    """Return every path that a serving pod or the operator answers."""
    anything: Any = SimpleNamespace(production=None, model="churn", features=None)
    admin = build_admin(residents=anything, metrics=anything, started=lambda: True, pod=anything)
    public = build_public({}, open_inference=anything, predictor=anything, version="v1")
    apps: tuple[Any, ...] = (admin, inspect.getclosurevars(public).nonlocals["app"])
    pod = {route.path for app in apps for route in app.routes if isinstance(route, Route)}
    protocol = {path.replace("{version}", "{v}") for path in describe_operations("{m}", None)}
    operator = re.findall(r'web\.get\("([^"]+)"', inspect.getsource(operator_app.serve_health))
    assert operator
    return {predict.PATH, predict.BATCH_PATH, *pod, *protocol, *operator}


def test_every_path_is_explained() -> None:
    """What answers HTTP is on the page of the program that answers."""
    found = paths()
    assert {"/predict", "/schema", "/docs", "/report", "/health/ready", "/livez"} <= found
    assert found - code("serving.md") - code("open-inference.md") - code("operator.md") == set()


def test_every_flag_of_the_operator_is_explained() -> None:
    """Each long option has a line in operator.md, and no option there is unknown."""
    parser = operator_main._parser({})
    flags = {flag for action in parser._actions for flag in action.option_strings if flag.startswith("--")}
    rows = [line for line in read("operator.md").splitlines() if line.startswith("| `--")]
    told = {flag for row in rows for flag in re.findall(r"`(--[a-z-]+)`", row.split("|")[1])}
    assert told == flags


def arguments_of_package() -> dict[str, str]:
    """Return each parameter of greenroom.package and its default as written, without its slow import."""
    source = ROOT / "toolkit" / "src" / "greenroom" / "packaging" / "__init__.py"
    tree = ast.parse(source.read_text(encoding="utf-8"))
    (function,) = (node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == "package")
    defaults = {argument.arg: "" for argument in function.args.args}
    for argument, default in zip(function.args.kwonlyargs, function.args.kw_defaults, strict=True):
        defaults[argument.arg] = ast.unparse(default) if default is not None else ""
    return defaults


def test_every_argument_of_package_is_explained() -> None:
    """Each parameter has a row in bundles.md, with its default, and every error has one too."""
    rows = {line.split("`")[1]: line for line in read("bundles.md").splitlines() if line.startswith("| `")}
    for name, default in arguments_of_package().items():
        assert name in rows
        if default not in ("", "None"):
            told = rows[name].split("`")[3]
            assert ast.literal_eval(told) == ast.literal_eval(default)
    rows |= {line.split("`")[1]: line for line in read("verify.md").splitlines() if line.startswith("| `")}
    assert {name for name in greenroom.__all__ if name.endswith("Error")} <= rows.keys()


def commands(group: Any, *above: str) -> Iterator[tuple[str, Any]]:
    """Yield each command of `greenroom` as it is typed."""
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from commands(command, *above, name)
        else:
            yield " ".join((*above, name)), command


def test_every_command_and_option_is_explained() -> None:
    """Each command has a heading of its own in toolkit.md, and below it each of its options."""
    sections = dict(
        re.findall(r"^## `?([a-z, -]+)`?\n(.*?)(?=^## |\Z)", read("toolkit.md"), re.MULTILINE | re.DOTALL)
    )
    common = sections.pop("everywhere")
    for name, command in commands(typer.main.get_command(app)):
        told = next(text for title, text in sections.items() if name in title.split(", "))
        options = {max(option.opts, key=len) for option in command.params if option.opts[0].startswith("-")}
        assert {flag for flag in options if f"`{flag}" not in told + common} == set(), name


def anchors(page: Path) -> set[str]:
    """Return what a link may point at in a page, as GitHub spells it."""
    headings = _HEADING.findall(page.read_text(encoding="utf-8"))
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=PAGE_NAMES)
def test_links_lead_somewhere(page: Path) -> None:
    """Each relative link is to a file of the repository, and its anchor to a heading there."""
    for link in _LINK.findall(page.read_text(encoding="utf-8")):
        if "://" in link:
            continue
        name, _, anchor = link.partition("#")
        target = (page.parent / name).resolve() if name else page
        assert target.exists(), f"{link}: no such file"
        assert not anchor or anchor in anchors(target), f"{link}: no such heading"
