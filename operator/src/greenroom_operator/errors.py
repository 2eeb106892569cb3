"""What can go wrong between the operator and the API server, by what should be done about it."""


class NotConfigured(Exception):  # noqa: N818 - these are named for what they are
    """The process was started in a way that cannot work; the text says what to change."""


class KubeError(Exception):
    """A call to the API server failed.

    ``verb``, ``kind``, ``namespace`` and ``name`` say which call it was (empty where they do not apply),
    ``code`` is the HTTP status, 0 when there was no answer, ``summary`` what the server said, in one line.
    """

    def __init__(
        self, *, verb: str, kind: str, namespace: str = "", name: str = "", code: int = 0, summary: str = ""
    ) -> None:
        self.verb = verb
        self.kind = kind
        self.namespace = namespace
        self.name = name
        self.code = code
        self.summary = summary
        place = "/".join(part for part in (namespace, name) if part)
        super().__init__(f"cannot {verb} {kind} {place}".rstrip() + f": {summary} ({code or 'no answer'})")


class Conflict(KubeError):  # noqa: N818
    """409: the object is another one, or newer, than what was observed. Observe again, then decide again."""


class NotFound(KubeError):  # noqa: N818
    """404: the object, its namespace or its kind is not there."""


class Rejected(KubeError):  # noqa: N818
    """The API server will never take this object as it is: terminal until the generation changes."""


class Forbidden(KubeError):  # noqa: N818
    """401, 403: a right is missing; a person must grant it."""


class Unavailable(KubeError):  # noqa: N818
    """No answer, too many requests, or a server error: the same call may succeed later."""


class NotLeading(KubeError):  # noqa: N818
    """The call was not sent: this process does not hold the lease, or has not renewed it in time."""
