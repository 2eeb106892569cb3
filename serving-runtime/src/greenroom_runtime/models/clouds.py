"""Clients of object stores, made of what the environment says.

Each cloud's own variables say where the store is and who asks; obstore reads them. What it does not know
(custom S3 endpoints as the AWS tools spell them, Google's emulator) is translated here.

obstore's clients follow a redirect that the store itself sends, without the signature; which store that is,
the environment says.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from obstore.exceptions import BaseError
from obstore.store import ObjectStore, from_url

if TYPE_CHECKING:
    from obstore.store import S3Credential

CONNECT_SECONDS: Final = 5
SILENCE_SECONDS: Final = 60
"""How long a peer may send nothing; a slow one that sends is waited for."""
_ANYBODY: Final[Mapping[str, Any]] = MappingProxyType(
    {"credential_provider": lambda: {"token": "anybody", "expires_at": None}}
)
"""For an emulator, which asks nobody who he is; obstore signs what it writes even where it is told not to."""
_RETRIES: Final = 2
"""Longer waits are the caller's: it says meanwhile, in the report, what it waits for."""
_EMULATOR: Final = "STORAGE_EMULATOR_HOST"
"""What Google's own clients read."""
_OF_THIS_ATTEMPT = re.compile(
    r" in [0-9.]+[nµm]?s(, after [^-]*retry_timeout: \w+)?(?=\s+- )|<(RequestId|HostId)>[^<]*</\2>"
)
_CAUSE = re.compile(r'\b(?:message|error): "([^"]+)"')
"""The system's own words, as in ``message: "Connection refused"``."""


@dataclass(frozen=True, kw_only=True)
class _Cloud:
    prefix: str
    """Of the variables that its client understands."""
    endpoint: str
    """The client's own word for it."""
    endpoint_variables: tuple[str, ...]
    """Which of them say so, the first that is set wins."""


_CLOUDS: Final[Mapping[str, _Cloud]] = {
    "s3": _Cloud(
        prefix="AWS_", endpoint="endpoint", endpoint_variables=("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL")
    ),
    "gs": _Cloud(prefix="GOOGLE_", endpoint="base_url", endpoint_variables=(_EMULATOR, "GOOGLE_BASE_URL")),
    "az": _Cloud(
        prefix="AZURE_",
        endpoint="endpoint",
        endpoint_variables=("AZURE_STORAGE_ENDPOINT", "AZURE_ENDPOINT"),
    ),
}
CLOUD_SCHEMES: Final = frozenset(_CLOUDS)


def open_store(
    uri: str,
    *,
    environment: Mapping[str, str],
    own: Mapping[str, str] = MappingProxyType({}),
    longest: timedelta,
) -> ObjectStore:
    """Return the store of a URI; ValueError where it is none, or the variables are not understood.

    ``own`` are variables that win over the environment's; ``longest`` bounds one request as a whole.
    """
    parts = urlsplit(uri)
    cloud = _CLOUDS.get(parts.scheme)
    if cloud is None or not parts.netloc or parts.username is not None or parts.query or parts.fragment:
        message = (
            "this is no object store: use s3://BUCKET/PREFIX, gs://BUCKET/PREFIX or az://CONTAINER/PREFIX, "
            "with credentials in the environment"
        )
        raise ValueError(message)
    endpoints = [place.get(name, "") for place in (own, environment) for name in cloud.endpoint_variables]
    endpoint = next(filter(None, endpoints), "")
    if endpoint and "://" not in endpoint:
        endpoint = f"http://{endpoint}"
    # Of obstore's type there is one for each cloud, and no word for any of them.
    config: Any = {
        name: value
        for name, value in own.items()
        if name.startswith(cloud.prefix) and name not in cloud.endpoint_variables
    }
    if endpoint:
        config[cloud.endpoint] = endpoint
    emulates_google = parts.scheme == "gs" and bool(own.get(_EMULATOR) or environment.get(_EMULATOR))
    emulated = environment.get("AZURE_STORAGE_USE_EMULATOR", "").lower() in ("1", "true")
    try:
        return from_url(
            uri.rstrip("/"),
            config=config,
            client_options={
                "allow_http": endpoint.startswith("http://") or emulated,
                "connect_timeout": timedelta(seconds=CONNECT_SECONDS),
                "read_timeout": timedelta(seconds=SILENCE_SECONDS),
                "timeout": longest,
            },
            retry_config={"max_retries": _RETRIES, "retry_timeout": timedelta(seconds=SILENCE_SECONDS)},
            **(_ANYBODY if emulates_google else _credentials(own)),
        )
    except BaseError as error:
        raise ValueError(told(error)) from error


def _credentials(own: Mapping[str, str]) -> Any:
    """Return own S3 keys as a whole: one by one, they would be used with the environment's session token."""
    if not (own.get("AWS_ACCESS_KEY_ID") and own.get("AWS_SECRET_ACCESS_KEY")):
        return {}
    credential: S3Credential = {
        "access_key_id": own["AWS_ACCESS_KEY_ID"],
        "secret_access_key": own["AWS_SECRET_ACCESS_KEY"],
        "token": own.get("AWS_SESSION_TOKEN") or None,
        "expires_at": None,
    }
    return {"credential_provider": lambda: credential}


def told(error: Exception) -> str:
    """Return what a person needs of obstore's text, in words that the next attempt would say again."""
    text, _, details = str(error).partition("Debug source:")
    causes = _CAUSE.findall(details)
    line = " ".join(_OF_THIS_ATTEMPT.sub("", text).split()).rstrip(":")
    return (f"{line}: {causes[-1]}" if causes else line)[:500]
