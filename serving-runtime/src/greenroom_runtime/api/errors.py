"""Problem documents (RFC 9457): what went wrong, told to the client."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any

import orjson

CONTENT_TYPE = "application/problem+json"


@dataclass(kw_only=True)
class ProblemError(Exception):
    """An answer other than 200."""

    status: HTTPStatus
    kind: str
    """The last part of the problem's type, ``urn:greenroom:problem:<kind>``; clients may switch on it."""
    detail: str
    extra: Mapping[str, Any] = field(default_factory=dict)
    """Further members of the document."""
    headers: Mapping[str, str] = field(default_factory=dict)
    counted: bool = False
    """Whether it is in the metrics and in the prediction log already."""

    @property
    def record(self) -> str:
        """Return what the prediction log may keep of it."""
        return f"{self.kind}: {self.detail}"

    def document(self) -> dict[str, Any]:
        """Return its members."""
        return {
            "type": f"urn:greenroom:problem:{self.kind}",
            "title": self.status.phrase,
            "status": self.status.value,
            "detail": self.detail,
            **self.extra,
        }

    def body(self, *, request_id: str = "") -> bytes:
        """Return the JSON document."""
        document = self.document()
        if request_id:
            document["request_id"] = request_id
        return orjson.dumps(document)


def defect() -> ProblemError:
    """Return what a client is told of our own mistakes."""
    detail = "the server has a defect: the pod's log says more"
    return ProblemError(status=HTTPStatus.INTERNAL_SERVER_ERROR, kind="defect", detail=detail)
