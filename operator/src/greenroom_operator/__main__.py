"""``greenroom-operator``: flags and environment into settings."""

import argparse
import os
import socket
import uuid
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

from greenroom_operator import app
from greenroom_operator.settings import LogFormat, Settings
from greenroom_runtime.contract import names

_OWN_NAMESPACE: Final = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")
_LEVELS: Final = ("DEBUG", "INFO", "WARNING", "ERROR")


def main() -> None:
    """Run the operator as the command line and the environment say."""
    app.main(parse_settings(None, environment=os.environ))


def parse_settings(arguments: Sequence[str] | None, *, environment: Mapping[str, str]) -> Settings:
    """Return the settings; a flag wins over its environment variable.

    Exits with 2 and a message when one of them is wrong.
    """
    given = _parser(environment).parse_args(arguments)
    return Settings(
        namespaces=() if given.all_namespaces else given.namespaces,
        runtime_image=given.runtime_image,
        lease_namespace=given.lease_namespace,
        lease_name=given.lease_name,
        # The pod's name alone would be the same after a container restart.
        identity=f"{environment.get(names.ENV_POD_NAME) or socket.gethostname()}_{uuid.uuid4().hex[:8]}",
        workers=given.workers,
        listen=given.listen,
        port=given.port,
        log_format=given.log_format,
        log_level=given.log_level,
    )


def _parser(environment: Mapping[str, str]) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="greenroom-operator",
        description="Looks after ModelDeployments. The API server is KUBECONFIG's, or the pod's own.",
        epilog="Every flag can be given as an environment variable: --lease-name is GREENROOM_LEASE_NAME.",
        allow_abbrev=False,  # --namespace=a --namespace=b would be --namespaces, and only the last of them
    )

    def add(flag: str, default: str, meaning: str, **options: Any) -> None:
        variable = "GREENROOM_" + flag.removeprefix("--").replace("-", "_").upper()
        value = environment.get(variable, default)
        meaning = f"{meaning} (default: {default})" if default else meaning
        parser.add_argument(flag, default=value, help=meaning, **options)

    parser.add_argument(
        "--all-namespaces", action="store_true", help="look after all namespaces, whatever --namespaces says"
    )
    add("--namespaces", "", "look after these only, comma-separated; empty is all", type=_names)
    release = version("greenroom")
    add("--runtime-image", f"greenroom-runtime:{release}", "serving image where a ModelDeployment names none")
    add("--lease-namespace", _own_namespace(), "where the lease is that candidates compete for")
    add("--lease-name", "greenroom-operator", "its name")
    add("--workers", "8", "how many ModelDeployments are reconciled at the same time", type=_positive)
    add("--listen", "0.0.0.0", "address of /livez, /readyz and /metrics")  # noqa: S104 - kubelet comes from outside
    add("--port", "8080", "their port", type=_port)
    add("--log-format", LogFormat.JSON.value, "json or text", type=_log_format)
    add("--log-level", "INFO", "DEBUG, INFO, WARNING or ERROR: what is logged at least", type=_level)
    parser.add_argument("--version", action="version", version=release)
    return parser


def _own_namespace() -> str:
    try:
        return _OWN_NAMESPACE.read_text(encoding="utf-8").strip() or "default"
    except OSError:
        return "default"


def _names(text: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(name.strip() for name in text.split(",") if name.strip()))


def _log_format(text: str) -> LogFormat:
    if text not in list(LogFormat):
        raise argparse.ArgumentTypeError(f"{text!r} is neither json nor text")
    return LogFormat(text)


def _level(text: str) -> str:
    if text.upper() not in _LEVELS:
        raise argparse.ArgumentTypeError(f"{text!r} is none of {', '.join(_LEVELS)}")
    return text.upper()


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least 1")
    return int(text)


def _port(text: str) -> int:
    if not text.isdecimal() or int(text) > 65535:  # noqa: PLR2004 - the highest there is
        raise argparse.ArgumentTypeError(f"{text!r} is not a port, 0 to 65535")
    return int(text)


if __name__ == "__main__":
    main()
