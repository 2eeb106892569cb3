"""Where a model's versions lie: the URIs that ``spec.source`` may name."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Final

from pydantic import Field

from greenroom_operator.api.base import ApiModel, Rule
from greenroom_operator.api.fields import DNS_SUBDOMAIN, SecretRef

URI_MAX_LENGTH: Final = 1024
HOST_PATTERN: Final = "[a-zA-Z0-9]([-a-zA-Z0-9.]*[a-zA-Z0-9])?(:[0-9]{1,5})?"
CLAIM_SCHEME: Final = "pvc://"


@dataclass(frozen=True)
class Scheme:
    """One kind of source."""

    form: str
    """As a person writes it."""
    pattern: str
    """What the whole URI matches, to RE2 and to Python alike."""
    remedy: str
    """What the form does not say."""


_NO_CREDENTIALS = "without blanks, '?', '#' and credentials; credentials belong into source.secretRef"

OBJECT_STORES: Final[Mapping[str, Scheme]] = {
    "s3://": Scheme(
        "s3://BUCKET/PREFIX", "s3://[a-z0-9][-a-z0-9.]{1,61}[a-z0-9](/[^?#@\\s]*)?", _NO_CREDENTIALS
    ),
    "gs://": Scheme(
        "gs://BUCKET/PREFIX", "gs://[a-z0-9][-a-z0-9._]{1,220}[a-z0-9](/[^?#@\\s]*)?", _NO_CREDENTIALS
    ),
    "az://": Scheme(
        "az://CONTAINER/PREFIX", "az://[a-z0-9][-a-z0-9]{1,61}[a-z0-9](/[^?#@\\s]*)?", _NO_CREDENTIALS
    ),
}
SOURCE_SCHEMES: Final[Mapping[str, Scheme]] = {
    **OBJECT_STORES,
    "https://": Scheme("https://HOST/PATH", f"https://{HOST_PATTERN}(/[^?#\\s]*)?", _NO_CREDENTIALS),
    CLAIM_SCHEME: Scheme(
        "pvc://CLAIM/PATH",
        f"pvc://{DNS_SUBDOMAIN}(/[^?#%\\s]*)?",
        "where CLAIM is the name of a PersistentVolumeClaim in this namespace; without blanks, '?', '#' "
        "and '%'",
    ),
    "file:///": Scheme(
        "file:///PATH", "file:///[^?#\\s]+", "a directory of the image; without blanks, '?' and '#'"
    ),
}
"""What pods can read, by the URI's beginning."""

_FORMS = ", ".join(scheme.form for scheme in SOURCE_SCHEMES.values())
_SCHEME_KNOWN = " || ".join(f"self.startsWith('{start}')" for start in [*SOURCE_SCHEMES, "oci://"])

NO_CLIMBING: Final = "(?i)/([.]|%2e){2}(/|%2f|$)"
"""Where a URI would leave the place that it names."""

SourceUri = Annotated[
    str,
    Field(max_length=URI_MAX_LENGTH),
    Rule(_SCHEME_KNOWN, f"this release reads {_FORMS}: write one of them", subject="self"),
    Rule(
        "!self.startsWith('oci://')",
        "an image as a source is not there yet: push the bundles to an object store, or build them into "
        "spec.image and write file:///PATH",
        subject="self",
    ),
    *(
        Rule(
            f"!self.startsWith('{start}') || self.matches(r'^{scheme.pattern}$')",
            # Without the value: it may hold a password.
            f"must be {scheme.form}, {scheme.remedy}",
        )
        for start, scheme in SOURCE_SCHEMES.items()
    ),
    Rule(f"!self.matches(r'{NO_CLIMBING}')", "'..' is not followed: write the path itself", subject="self"),
]


class Source(ApiModel):
    """Where the model's versions lie."""

    uri: SourceUri
    """Holds one directory for each version, such as s3://models/churn with v1/ and v2/ below it.
    s3://BUCKET/PREFIX is an S3-compatible object store, gs://BUCKET/PREFIX Google's, az://CONTAINER/PREFIX
    Azure's; https://HOST/PATH is any web server; pvc://CLAIM/PATH is a directory of a PersistentVolumeClaim
    in this namespace, mounted read-only; file:///PATH is a directory of the serving image, never the
    node's."""
    secret_ref: SecretRef | None = None
    """A Secret whose keys become environment variables of the serving container, such as AWS_ACCESS_KEY_ID,
    AWS_SECRET_ACCESS_KEY, AWS_ENDPOINT_URL and AWS_REGION. The pod reads it, the operator never does."""
