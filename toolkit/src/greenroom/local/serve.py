"""``greenroom serve``: one bundle, served by the real runtime."""

import json
import re
from pathlib import Path

from greenroom.local.errors import LocalError
from greenroom.local.process import LocalRuntime, curl_line
from greenroom.local.screen import Screen
from greenroom.local.stop import StopSignal
from greenroom_runtime.contract import names
from greenroom_runtime.contract.bundle import BUNDLE_FILE, MODEL_FILE
from greenroom_runtime.contract.config import RuntimeConfig
from greenroom_runtime.contract.flags import FlagStore
from greenroom_runtime.contract.report import VersionState

_TICK_SECONDS = 0.1


def serve_bundle(directory: Path, *, version: str | None, port: int, admin_port: int) -> int:
    """Serve until Ctrl-C, SIGTERM or the end of the runtime; return the exit code."""
    screen = Screen()
    stop = StopSignal()
    try:
        source, chosen = find_bundle(directory, version=version)
        with LocalRuntime(port=port, admin_port=admin_port) as runtime:
            runtime.write_flags(FlagStore(production=chosen, resident=(chosen,)))
            config = RuntimeConfig(name=_model_name(source / chosen), source_uri=source.as_uri())
            runtime.start(runtime.localize(config), environment={})
            screen.event("busy", f"proving {chosen} of {source} …")
            return _watch(runtime, chosen, screen=screen, stop=stop)
    except LocalError as error:
        screen.error(str(error))
        return 1


def find_bundle(directory: Path, *, version: str | None) -> tuple[Path, str]:
    """Return the source directory and the version's name for a bundle or a directory of bundles."""
    place = directory.resolve()
    if not place.is_dir():
        raise LocalError(
            f"{directory} is no directory: name a bundle, or a directory with one bundle a version"
        )
    if _is_bundle(place):
        if version not in (None, place.name):
            raise LocalError(f"{directory} is the bundle {place.name} itself: leave out --version {version}")
        return place.parent, _check_name(place.name)
    versions = sorted(entry.name for entry in place.iterdir() if _is_bundle(entry))
    if version is None and len(versions) == 1:
        return place, versions[0]
    if version is None:
        told = f"holds {', '.join(versions)}: choose one with --version" if versions else "holds no bundle"
        raise LocalError(f"{directory} {told}")
    if version not in versions:
        raise LocalError(f"{directory} has no version {version}; it has: {', '.join(versions) or 'none'}")
    return place, version


def _is_bundle(place: Path) -> bool:
    return (place / BUNDLE_FILE).is_file() or (place / MODEL_FILE).is_file()


def _check_name(name: str) -> str:
    if not re.match(names.VERSION_PATTERN, name) or len(name) > names.VERSION_MAX_LENGTH:
        raise LocalError(
            f"the bundle's directory {name!r} is no version's name: rename it, for instance to v1"
        )
    return name


def _model_name(bundle: Path) -> str:
    """Return the name that the bundle was packaged under, the directory's where it does not say."""
    try:
        return str(json.loads((bundle / BUNDLE_FILE).read_text(encoding="utf-8"))["name"])
    except (OSError, ValueError, KeyError, TypeError):  # the runtime says what is wrong with it
        return bundle.parent.name


def _watch(runtime: LocalRuntime, version: str, *, screen: Screen, stop: StopSignal) -> int:
    ready = False
    while not stop.wait(_TICK_SECONDS):
        code = runtime.exit_code()
        if code is not None:
            raise LocalError("\n".join([f"the runtime ended with exit code {code}:", *runtime.last_lines()]))
        report = None if ready else runtime.report()
        if report is None:
            continue
        seen = report.version(version)
        if seen is not None and seen.state is VersionState.FAILED and seen.failure is not None:
            raise LocalError(f"{version} is refused: {seen.failure.reason}: {seen.failure.message}")
        if report.ready:
            ready = True
            greet(runtime, version, screen=screen)
    screen.event("quiet", "stopping")
    return stop.exit_code


def greet(runtime: LocalRuntime, version: str, *, screen: Screen) -> None:
    """Say where it serves and how to ask."""
    screen.event("good", f"{version} serves at {runtime.url}")
    if features := runtime.example_features(version):
        screen.line(f"          try   {curl_line(runtime.url, features)}")
    screen.line(f"          docs  {runtime.url}/docs")
