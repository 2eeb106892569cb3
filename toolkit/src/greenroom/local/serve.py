"""``greenroom serve``: one version, packaged or not, served by the real runtime."""

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory, gettempdir

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
_UNNAMED = "v1"
"""The version that a directory is served as whose name is none."""
_KINDS = {BUNDLE_FILE: "a bundle", "MLmodel": "an MLflow model", MODEL_FILE: "a plain ONNX model"}
"""What tells what a directory is; the first that is there."""


def serve_bundle(directory: Path, *, version: str | None, port: int, admin_port: int) -> int:
    """Serve until Ctrl-C, SIGTERM or the end of the runtime; return the exit code."""
    screen = Screen()
    stop = StopSignal()
    try:
        place = find_version(directory, version=version)
        with LocalRuntime(port=port, admin_port=admin_port) as runtime, source_of(place) as (source, chosen):
            runtime.write_flags(FlagStore(production=chosen, resident=(chosen,)))
            config = RuntimeConfig(name=_model_name(place, chosen), source_uri=source.as_uri())
            runtime.start(runtime.localize(config), environment={})
            screen.event("busy", f"proving {chosen}, {_kind_of(place)} in {place} …")
            return _watch(runtime, chosen, screen=screen, stop=stop)
    except (LocalError, OSError) as error:
        screen.error(str(error))
        return 1


def find_version(directory: Path, *, version: str | None) -> Path:
    """Return the version's own directory, for that directory itself or for one that holds several."""
    place = directory.resolve()
    if not place.is_dir():
        raise LocalError(
            f"{directory} is no directory: name a bundle, or a directory with one bundle a version"
        )
    if _kind_of(place):
        if version not in (None, place.name):
            raise LocalError(f"{directory} is the bundle {place.name} itself: leave out --version {version}")
        return place
    versions = sorted(entry.name for entry in place.iterdir() if entry.is_dir() and _kind_of(entry))
    if version is None and len(versions) == 1:
        return place / versions[0]
    if version is None:
        nothing = f"holds no bundle: neither {', '.join(_KINDS)} nor directories with them"
        told = f"holds {', '.join(versions)}: choose one with --version" if versions else nothing
        raise LocalError(f"{directory} {told}")
    if version not in versions:
        raise LocalError(f"{directory} has no version {version}; it has: {', '.join(versions) or 'none'}")
    return place / version


@contextmanager
def source_of(place: Path) -> Iterator[tuple[Path, str]]:
    """Yield a source that holds the directory as a version, and the version's name.

    A directory whose name is no version's (``my_model``) goes by the version that its bundle says, or as
    ``v1``: through a link, nothing is copied. So does one beside the directory for temporary files, in which
    the runtime keeps its own: a source may not hold that.
    """
    apart = not Path(gettempdir()).resolve().is_relative_to(place.parent)
    if _is_version(place.name) and apart:
        yield place.parent, place.name
        return
    packaged = str(_manifest(place).get("version", ""))
    chosen = next((name for name in (place.name, packaged) if _is_version(name)), _UNNAMED)
    with TemporaryDirectory(prefix="greenroom-source-") as source:
        (Path(source) / chosen).symlink_to(place)
        yield Path(source), chosen


def _kind_of(place: Path) -> str:
    """Say what a directory is, in words; empty where it is no version of a model."""
    return next((words for file, words in _KINDS.items() if (place / file).is_file()), "")


def _is_version(name: str) -> bool:
    alias = name in (names.ALIAS_PRODUCTION, names.ALIAS_PREVIOUS)
    fits = re.fullmatch(names.VERSION_PATTERN, name) and len(name) <= names.VERSION_MAX_LENGTH
    return bool(fits) and not alias


def _model_name(place: Path, version: str) -> str:
    """Return the name that the bundle was packaged under, the directory's where it does not say."""
    fallback = place.parent.name if place.name == version else place.name
    return str(_manifest(place).get("name") or fallback)[: names.MODEL_MAX_LENGTH] or "model"


def _manifest(place: Path) -> dict[str, object]:
    try:
        return dict(json.loads((place / BUNDLE_FILE).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):  # the runtime says what is wrong with it
        return {}


def _watch(runtime: LocalRuntime, version: str, *, screen: Screen, stop: StopSignal) -> int:
    ready, told = False, ""
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
        if seen is not None and seen.message not in ("", told):
            told = seen.message
            screen.event("busy", told)
        if report.ready:
            ready = True
            greet(runtime, version, screen=screen)
            if seen is not None and seen.golden == "Absent":
                screen.line("          golden samples: absent, so nobody knows whether it answers as trained")
    screen.event("quiet", "stopping")
    return stop.exit_code


def greet(runtime: LocalRuntime, version: str, *, screen: Screen) -> None:
    """Say where it serves and how to ask."""
    screen.event("good", f"{version} serves at {runtime.url}")
    if features := runtime.example_features(version):
        screen.line(f"          try   {curl_line(runtime.url, features)}")
    screen.line(f"          docs  {runtime.url}/docs")
