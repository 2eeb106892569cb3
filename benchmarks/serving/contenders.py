"""Who is measured: how each is started, and in which format it is asked."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import MappingProxyType

from benchmarks.serving import greenroom_server, protocols
from benchmarks.serving.environments import install, install_runtime
from benchmarks.serving.model import NAME, Zoo
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


Command = Callable[[Place, Path], Sequence[str]]
"""What starts a server, given the ``bin`` of its environment."""


def _peer(place: Place, *, requirements: str, command: Command, extra: Mapping[str, str]) -> Launch:
    directory = install(requirements, to=place.environments)
    # Each is given what is known to help: no telemetry, one thread, no access log.
    environment = {
        "BENCH_MODEL": str(place.zoo.graph(greenroom_server.PRODUCTION).resolve()),
        "BENCH_NAME": NAME,
        "BENCH_PORT": str(place.port),
        "ORT_DISABLE_TELEMETRY": "1",
        "OPENBLAS_NUM_THREADS": "1",
        "OMP_NUM_THREADS": "1",
        "PATH": f"{directory}:/usr/local/bin:/usr/bin:/bin",
        "HOME": str(place.state),
        **extra,
    }
    return Launch(command=command(place, directory), environment=environment)


def _module(name: str) -> Command:
    return lambda _, directory: [str(directory / "python"), "-m", f"{SERVERS}.{name}"]


def _mosec(place: Place, directory: Path) -> Sequence[str]:
    address = ["--address", "127.0.0.1", "--port", str(place.port), "--log-level", "error"]
    return [str(directory / "python"), "-m", f"{SERVERS}.mosec_server", *address]


def _mlserver(place: Place, directory: Path) -> Sequence[str]:
    settings = {
        "host": "127.0.0.1",
        "http_port": place.port,
        "grpc_port": place.other_ports[0],
        "metrics_port": place.other_ports[1],
        "parallel_workers": 0,  # in the server's own process: twice as fast as its default of 1
        "debug": False,
    }
    model = {"name": NAME, "implementation": f"{SERVERS}.mlserver_model.Scorer"}
    (place.state / "settings.json").write_text(json.dumps(settings))
    (place.state / "model-settings.json").write_text(json.dumps(model))
    return [str(directory / "mlserver"), "start", str(place.state)]


def _bentoml(place: Place, directory: Path, *, service: str) -> Sequence[str]:
    target = f"{SERVERS}.bentoml_service:{service}"
    return [str(directory / "bentoml"), "serve", target, "--host", "127.0.0.1", "--port", str(place.port)]


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
        command=[
            *(str(install_runtime(to=place.environments) / "python"), "-m", "greenroom_runtime"),
            *("--config", str(config)),
        ],
        environment=greenroom_server.ENVIRONMENT,
    )


def _ours(name: str, about: str, *, log: bool, rollout: bool, protocol: Protocol) -> Contender:
    return Contender(
        name=name,
        about=about,
        launch=partial(_greenroom, log=log, rollout=rollout),
        protocol=protocol,
        versions=greenroom_server.flag_store(rollout=rollout).routable,
        logs=log,
    )


def _other(
    name: str,
    about: str,
    *,
    requirements: str,
    command: Command,
    protocol: Protocol,
    served: bool = True,
    environment: Mapping[str, str] = MappingProxyType({}),
) -> Contender:
    return Contender(
        name=name,
        about=about,
        launch=partial(_peer, requirements=requirements, command=command, extra=environment),
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
    _ours(
        "greenroom-v2-json",
        "everything on, asked in the Open Inference Protocol",
        log=True,
        rollout=True,
        protocol=protocols.V2_OF_USER,
    ),
    _ours(
        "greenroom-v2-binary",
        "the same with binary tensors, as tritonclient sends them",
        log=True,
        rollout=True,
        protocol=protocols.V2_BINARY_OF_USER,
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
    _other(
        "kserve-v1",
        "KServe's Python server, V1: rows by name",
        requirements="kserve",
        command=_module("kserve_server"),
        protocol=protocols.KSERVE_V1,
    ),
    _other(
        "kserve-v2",
        "KServe's Python server, V2: tensors",
        requirements="kserve",
        command=_module("kserve_server"),
        protocol=protocols.V2,
    ),
    _other(
        "mlserver",
        "MLServer, V2, inference in the server's own process",
        requirements="mlserver",
        command=_mlserver,
        protocol=protocols.V2,
    ),
    _other(
        "bentoml",
        "BentoML, `def` API",
        requirements="bentoml",
        command=partial(_bentoml, service="Scorer"),
        protocol=protocols.NAMED_PLAIN,
    ),
    _other(
        "bentoml-async",
        "BentoML, `async def` API",
        requirements="bentoml",
        command=partial(_bentoml, service="AsyncScorer"),
        protocol=protocols.NAMED_PLAIN,
    ),
    _other(
        "litserve",
        "LitServe",
        requirements="litserve",
        command=_module("litserve_server"),
        protocol=protocols.NAMED_PLAIN,
    ),
    _other(
        "mosec",
        "Mosec, one row at a time as it comes; it validates nothing",
        requirements="mosec",
        command=_mosec,
        protocol=protocols.MOSEC,
    ),
    _other(
        "mosec-batched",
        "Mosec with dynamic batches of up to 32 rows",
        requirements="mosec",
        command=_mosec,
        protocol=protocols.MOSEC,
        environment={"BENCH_BATCH": "32"},
    ),
)
