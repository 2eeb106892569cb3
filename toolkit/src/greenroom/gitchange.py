"""A change of one field of a ModelDeployment's YAML: comments and layout stay, and git can apply it."""

import difflib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import yaml

from greenroom.errors import CommandError
from greenroom.local.manifest import NOT_YAML, find_version_problem, read_manifest
from greenroom_operator.api.modeldeployment import KIND


@dataclass(frozen=True, kw_only=True)
class FileChange:
    """A file before and after."""

    path: Path
    before: str
    after: str

    def diff(self) -> str:
        """Return it as ``git apply`` takes it; empty where nothing changes."""
        place = self.path.as_posix().lstrip("/")
        lines = difflib.unified_diff(
            self.before.splitlines(keepends=True),
            self.after.splitlines(keepends=True),
            fromfile=f"a/{place}",
            tofile=f"b/{place}",
        )
        return "".join(
            line if line.endswith("\n") else f"{line}\n\\ No newline at end of file\n" for line in lines
        )


def set_version(path: Path, version: str, *, name: str) -> FileChange:
    """Return the change of ``spec.version`` of the ModelDeployment of this name.

    CommandError where there is none, or a cluster would refuse the version.
    """
    if problem := find_version_problem(version):
        raise CommandError(problem)
    try:
        text = read_manifest(path).decode()
        nodes = [node for node in yaml.compose_all(text, Loader=yaml.SafeLoader) if node is not None]
    except NOT_YAML as error:
        raise CommandError(f"{path} is not YAML: {error}") from error
    found = [
        node for node in nodes if _text(node, "kind") == KIND and _text(node, "metadata", "name") == name
    ]
    if len(found) != 1:
        raise CommandError(
            f"{path} holds {len(found)} ModelDeployments named {name}: name the file that has it"
        )
    scalar = _at(found[0], "spec", "version")
    if not isinstance(scalar, yaml.ScalarNode):
        raise CommandError(f"{path}: {name} has no spec.version: write one, such as {version}")
    spelled = yaml.safe_dump(version, default_flow_style=True).splitlines()[0]
    after = text[: scalar.start_mark.index] + spelled + text[scalar.end_mark.index :]
    return FileChange(path=path, before=text, after=after)


def describe_live(name: str, *, before: str, after: str) -> str:
    """Return the same change for whoever keeps the YAML elsewhere."""
    return f"in the YAML of {name}:\n-  version: {before}\n+  version: {after}\n"


def _at(node: yaml.Node | None, *keys: str) -> yaml.Node | None:
    for key in keys:
        node = next((value for name, value in _pairs(node) if name == key), None)
    return node


def _pairs(node: yaml.Node | None) -> Iterator[tuple[str, yaml.Node]]:
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            yield str(key.value), value


def _text(node: yaml.Node, *keys: str) -> str:
    found = _at(node, *keys)
    return str(found.value) if isinstance(found, yaml.ScalarNode) else ""
