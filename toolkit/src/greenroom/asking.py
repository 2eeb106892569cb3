"""One prediction from a terminal: of a URL, or of a ModelDeployment through the API server."""

import http.client
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

from greenroom.cluster import Reply, complaint
from greenroom.errors import CommandError
from greenroom_runtime.contract import names

Ask = Callable[[str, str, bytes | None], Reply]
"""Method, path and body to a reply."""
_SECONDS = 30.0
_NOT_OURS = "it answers, and not as Greenroom's runtime does: name the URL that serves the model"


def ask_url(url: str) -> Ask:
    """Return how to ask a server at a URL; CommandError for what is no URL."""
    try:
        parts = urlsplit(url)
        host, port = str(parts.hostname or ""), parts.port
    except ValueError:  # a bracket that is not closed, a port that is no number
        host = ""
    if not host or parts.scheme not in ("http", "https"):
        raise CommandError(
            f"{url!r} is no http:// or https:// URL, and no ModelDeployment's name: write one such as "
            "http://127.0.0.1:8080"
        )

    def ask(method: str, path: str, body: bytes | None) -> Reply:
        kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
        try:
            connection = kind(host, port, timeout=_SECONDS)
            connection.request(
                method, parts.path.rstrip("/") + path, body, {"Content-Type": "application/json"}
            )
            response = connection.getresponse()
            headers = {name.lower(): value for name, value in response.getheaders()}
            return Reply(status=response.status, headers=headers, body=response.read())
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise CommandError(
                f"{url} does not answer ({error}): is it serving? `greenroom run` says where"
            ) from error

    return ask


def read_features(given: Sequence[str], ask: Ask) -> dict[str, Any]:
    """Return ``NAME=VALUE`` as features, typed as the model's own schema says.

    CommandError for one that is misspelt; what the model does not know goes along, for its door to refuse.
    """
    if not given:
        return {}
    schema = _reply(ask("GET", "/schema", None)).json()
    try:
        known = dict(schema["properties"]["features"].get("properties", {}))
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise CommandError(_NOT_OURS) from error
    features = {}
    for pair in given:
        name, equals, text = pair.partition("=")
        if not equals or not name:
            raise CommandError(f"{pair!r} is no feature: write NAME=VALUE, such as age=31")
        features[name] = _typed(text, known.get(name, {}))
    return features


def _typed(text: str, schema: Mapping[str, Any]) -> Any:
    kinds = schema.get("type", [])
    kinds = [kinds] if isinstance(kinds, str) else kinds
    if text == "null" and "null" in kinds:
        return None
    if "string" in kinds:
        return text
    try:
        return json.loads(text)
    except ValueError:
        return text  # the model's door says what is wrong with it


def predict(ask: Ask, request: Mapping[str, Any]) -> dict[str, Any]:
    """Return the answer, and why this version made it; CommandError with what the server complains of."""
    reply = _reply(ask("POST", "/predict", json.dumps(request).encode()))
    answer = reply.json()
    if not isinstance(answer, dict):
        raise CommandError(_NOT_OURS)
    told = {"reason": names.HEADER_REASON, "feature_source": names.HEADER_FEATURE_SOURCE}
    return {**answer, **{key: reply.headers.get(header.lower(), "") for key, header in told.items()}}


def _reply(reply: Reply) -> Reply:
    if reply.status < http.HTTPStatus.BAD_REQUEST:
        return reply
    lines = [complaint(reply)]
    try:
        errors = reply.json().get("errors", [])
        lines += [f"  {one['feature']}: {_problem(one)}" for one in errors]
    except (CommandError, AttributeError, KeyError, TypeError):
        pass  # not one of our problem documents
    raise CommandError("\n".join(lines))


def _problem(error: Mapping[str, Any]) -> str:
    expected = f", expected {error['expected']}" if error.get("expected") else ""
    found = f", found {error['found']}" if error.get("found") else ""
    return f"{error['problem']}{expected}{found}"
