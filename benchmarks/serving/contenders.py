"""Who is measured: how each is started, and in which format it is asked."""

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from benchmarks.serving import greenroom_server, protocols
from benchmarks.serving.environments import install
from benchmarks.serving.model import Zoo
from benchmarks.serving.protocols import Protocol

SERVERS = "benchmarks.serving.servers"


@dataclass(frozen=True, kw_only=True)
class Place:
    """What a contender is given to start with."""

    zoo: Zoo
    port: int
    other_ports: Sequence[int]
    """For metrics, gRPC and the like."""
    state: Path
    """An empty directory."""
    environments: Path


@dataclass(frozen=True, kw_only=True)
class Launch:
    """A command, what it needs of the environment, and a look at what it has done."""

    command: Sequence[str]
    environment: Mapping[str, str]


@dataclass(frozen=True, kw_only=True)
class Contender:
    """One row of the table."""

    name: str
    about: str
    launch: Callable[[Place], Launch]
    protocol: Protocol
    requirements: str | None = None
    """The pins of its environment; None is this project's own."""
    versions: frozenset[str] = frozenset({greenroom_server.PRODUCTION})
    """Each of these must have answered before it is measured."""
    logs: bool = False
    """Whether it must have written a prediction log."""
    served: bool = True
    """False for a loop without HTTP."""


def _peer(place: Place, *, requirements: str, command: Callable[[Place, Path], Sequence[str]]) -> Launch:
    directory = install(requirements, to=place.environments)
    # Each is given what is known to help: no telemetry, one thread, no access log.
    environment = {
        "BENCH_MODEL": str(place.zoo.graph(greenroom_server.PRODUCTION).resolve()),
        "BENCH_PORT": str(place.port),
        "ORT_DISABLE_TELEMETRY": "1",
        "OPENBLAS_NUM_THREADS": "1",
        "OMP_NUM_THREADS": "1",
        "PATH": f"{directory}:/usr/local/bin:/usr/bin:/bin",
        "HOME": str(place.state),
    }
    return Launch(command=command(place, directory), environment=environment)


def _module(name: str) -> Callable[[Place, Path], Sequence[str]]:
    return lambda _, directory: [str(directory / "python"), "-m", f"{SERVERS}.{name}"]


def _uvicorn(place: Place, directory: Path) -> Sequence[str]:
    application = f"{SERVERS}.naive_fastapi:app"
    return [str(directory / "uvicorn"), application, "--port", str(place.port), "--no-access-log"]


def _greenroom(place: Place, *, log: bool, rollout: bool) -> Launch:
    config = greenroom_server.write_state(
        place.state,
        source=place.zoo.directory,
        port=place.port,
        admin_port=place.other_ports[0],
        flags=greenroom_server.flag_store(rollout=rollout),
        log=greenroom_server.prediction_log(place.state) if log else None,
    )
    return Launch(
        command=[sys.executable, "-m", "greenroom_runtime", "--config", str(config)],
        environment={"ORT_DISABLE_TELEMETRY": "1", "OPENBLAS_NUM_THREADS": "1"},
    )


def _ours(name: str, about: str, *, log: bool, rollout: bool, protocol: Protocol) -> Contender:
    routed = greenroom_server.ROUTED if rollout else (greenroom_server.PRODUCTION,)
    return Contender(
        name=name,
        about=about,
        launch=partial(_greenroom, log=log, rollout=rollout),
        protocol=protocol,
        versions=frozenset(routed),
        logs=log and greenroom_server.LOG_WORKS,
    )


def _other(
    name: str,
    about: str,
    *,
    requirements: str,
    command: Callable[[Place, Path], Sequence[str]],
    protocol: Protocol,
    served: bool = True,
) -> Contender:
    return Contender(
        name=name,
        about=about,
        launch=partial(_peer, requirements=requirements, command=command),
        protocol=protocol,
        requirements=requirements,
        served=served,
    )


CONTENDERS = (
    _ours(
        "greenroom",
        "schema, prediction log, metrics, 10 % rollout: all on",
        log=True,
        rollout=True,
        protocol=protocols.NAMED,
    ),
    _ours(
        "greenroom-bare",
        "the same without prediction log and rollout",
        log=False,
        rollout=False,
        protocol=protocols.NAMED,
    ),
    _other(
        "session-alone",
        "ceiling: the session run in a loop, no HTTP",
        requirements="asgi",
        command=_module("session_alone"),
        protocol=protocols.NAMED,
        served=False,
    ),
    _other(
        "asgi-msgspec",
        "ceiling: bare ASGI, body typed by msgspec, session run",
        requirements="asgi",
        command=_module("asgi_msgspec"),
        protocol=protocols.NAMED,
    ),
    _other(
        "asgi-pydantic",
        "ceiling: bare ASGI, body typed by pydantic, session run",
        requirements="asgi",
        command=_module("asgi_pydantic"),
        protocol=protocols.NAMED,
    ),
    _other(
        "fastapi-naive",
        "FastAPI as in tutorials",
        requirements="fastapi",
        command=_uvicorn,
        protocol=protocols.NAMED_PLAIN,
    ),
)
