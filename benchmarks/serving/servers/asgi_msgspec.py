# mypy: disable-error-code="import-not-found,misc,untyped-decorator"
"""Ceiling: a bare ASGI app that parses and types the body by msgspec and runs the session, no more."""

from typing import Any

import msgspec

from benchmarks.serving.servers.ceiling import build, serve
from benchmarks.serving.servers.scoring import NUMBERS, TEXTS

Features = msgspec.defstruct(
    "Features",
    [*((name, float) for name in NUMBERS), *((name, str) for name in TEXTS)],
    forbid_unknown_fields=True,
)
Body = msgspec.defstruct("Body", [("features", Features), ("user_id", str)], forbid_unknown_fields=True)
decode = msgspec.json.Decoder(Body).decode


def values(body: bytes) -> tuple[float | str, ...]:
    """Return the features in the model's order."""
    asked: Any = decode(body)  # its class is made as the benchmark starts, so no type says what it has
    row: tuple[float | str, ...] = msgspec.structs.astuple(asked.features)
    return row


if __name__ == "__main__":
    serve(build(values, msgspec.json.encode))
