"""Argo CD's health checks and actions for our kind, run by Lua 5.1 as Argo CD runs them.

e2e/gitops holds the same scripts against Argo CD itself.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lupa.lua51 import LuaRuntime, lua_type

ROOT = Path(__file__).resolve().parents[2]
CUSTOMIZATIONS = ROOT / "charts" / "greenroom" / "argocd" / "resource_customizations"
KIND = CUSTOMIZATIONS / "greenroom.dev" / "ModelDeployment"
"""The folder of our kind, in the shape of Argo CD's own."""
ACTIONS = KIND / "actions"

_SANDBOX = """
-- To the scripts of its ConfigMap Argo CD opens base, table and package only.
getmetatable("").__index = nil
for _, name in ipairs({"string", "math", "io", "os", "debug", "coroutine", "python"}) do
  _G[name] = nil
  package.loaded[name] = nil
end
"""


@dataclass(frozen=True)
class Health:
    """What Argo CD shows of an object."""

    status: str
    message: str


def judge(found: Mapping[str, Any]) -> Health:
    """Return the health of a ModelDeployment as the API server sends it."""
    said = _run(KIND / "health.lua", found)
    return Health(status=said["status"], message=said.get("message", ""))


def discover(found: Mapping[str, Any]) -> dict[str, bool]:
    """Return whether each action is disabled, by its name."""
    said: dict[str, dict[str, bool]] = _run(ACTIONS / "discovery.lua", found)
    return {name: action.get("disabled", False) for name, action in said.items()}


def act(action: str, found: Mapping[str, Any]) -> dict[str, Any]:
    """Return the object that an action makes of it; LuaError with the script's own words if it refuses."""
    said: dict[str, Any] = _mended(_run(ACTIONS / action / "action.lua", found), found)
    return said


def _run(script: Path, found: Mapping[str, Any]) -> Any:
    lua = LuaRuntime(unpack_returned_tuples=True)
    lua.execute(_SANDBOX)
    lua.globals()["obj"] = _to_lua(lua, found)
    return _from_lua(lua.execute(script.read_text(encoding="utf-8")))


def _to_lua(lua: LuaRuntime, value: Any) -> Any:
    if isinstance(value, Mapping):
        return lua.table_from({key: _to_lua(lua, item) for key, item in value.items()})
    if isinstance(value, list | tuple):
        return lua.table_from([_to_lua(lua, item) for item in value])
    # Argo CD's Lua has one kind of number.
    return float(value) if isinstance(value, int) and not isinstance(value, bool) else value


def _from_lua(value: Any) -> Any:
    if lua_type(value) == "table":
        members = {key: _from_lua(item) for key, item in value.items()}
        if set(members) == set(range(1, len(members) + 1)):  # an empty table is a list, too
            return [members[index] for index in sorted(members)]
        return members
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _mended(said: Any, before: Any) -> Any:
    """Make empty objects of the empty lists that Lua made of them, as Argo CD does before it writes."""
    if isinstance(said, dict) and isinstance(before, Mapping):
        return {key: _mended(item, before.get(key)) for key, item in said.items()}
    if isinstance(said, list) and isinstance(before, list):
        return [_mended(*pair) for pair in zip(said, before, strict=False)] + said[len(before) :]
    return {} if said == [] and isinstance(before, Mapping) else said
