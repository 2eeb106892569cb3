"""Ceiling: a bare ASGI app that parses and types the body by pydantic and runs the session, no more."""

from operator import itemgetter

import orjson
from pydantic import TypeAdapter
from typing_extensions import TypedDict

from benchmarks.serving.servers.ceiling import build, serve
from benchmarks.serving.servers.scoring import NUMBERS, TEXTS

Features = TypedDict("Features", {**dict.fromkeys(NUMBERS, float), **dict.fromkeys(TEXTS, str)})  # type: ignore[misc]


class Body(TypedDict):
    """The request's body."""

    features: Features
    user_id: str


validate = TypeAdapter(Body).validator.validate_json
in_order = itemgetter(*NUMBERS, *TEXTS)


def values(body: bytes) -> tuple[float | str, ...]:
    """Return the features in the model's order."""
    row: tuple[float | str, ...] = in_order(validate(body, strict=True)["features"])
    return row


if __name__ == "__main__":
    serve(build(values, orjson.dumps))
