"""Versions beyond this machine: how they are named, and why a store does not do what is asked.

Stores are opened as the serving runtime opens them, with credentials from the environment.
"""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import unquote, urlsplit

from greenroom_runtime.models.clouds import CLOUD_SCHEMES, told

_NO_CREDENTIALS: Final = re.compile(
    r"/latest/(?:api/token|meta-data)|/computeMetadata/|/metadata/identity|Account must be specified"
)
"""Where clients ask for an identity that the environment does not give."""
_NO_BUCKET: Final = re.compile(r"NoSuchBucket|ContainerNotFound|specified bucket does not exist")
_REFUSED: Final = re.compile(
    r"\b40[13] (?:Forbidden|Unauthorized)|AccessDenied|InvalidAccessKeyId|SignatureDoesNotMatch"
    r"|lacked the necessary privileges"
)
_VARIABLES: Final = {
    "s3": "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
    "gs": "GOOGLE_APPLICATION_CREDENTIALS",
    "az": "AZURE_STORAGE_ACCOUNT_NAME and AZURE_STORAGE_ACCOUNT_KEY",
}
_ENDPOINTS: Final = {
    "s3": "AWS_ENDPOINT_URL",
    "gs": "GOOGLE_BASE_URL",
    "az": "AZURE_STORAGE_ENDPOINT",
}


@dataclass(frozen=True, kw_only=True)
class RemoteVersion:
    """A version by its URI, such as ``s3://models/churn/v3``."""

    source: str
    """What ``spec.source.uri`` would be: ``s3://models/churn``."""
    version: str

    @property
    def uri(self) -> str:
        """What a person calls it."""
        return f"{self.source}/{self.version}"


def local_path(place: str | Path) -> Path | None:
    """Return the directory that is meant, by its path or as ``file://``; None for what lies elsewhere."""
    if isinstance(place, Path) or "://" not in place:
        return Path(place)
    parts = urlsplit(place)
    return Path(unquote(parts.path)) if parts.scheme == "file" else None


def split_version(uri: str) -> RemoteVersion:
    """Return the version of a URI; ValueError where it names none."""
    if not urlsplit(uri).path.strip("/"):
        message = f"it names no version: write {uri.rstrip('/')}/VERSION"
        raise ValueError(message)
    source, _, version = uri.rstrip("/").rpartition("/")
    return RemoteVersion(source=source.rstrip("/"), version=version)


def is_absent(error: Exception) -> bool:
    """Tell whether the bucket itself is not there."""
    return bool(_NO_BUCKET.search(told(error)))


def explain(error: Exception, *, uri: str) -> str:
    """Return what a store complains of, in its own words, and the remedy."""
    text, scheme = told(error), urlsplit(uri).scheme
    short = text.partition(": <?xml")[0]
    if scheme in CLOUD_SCHEMES and _NO_CREDENTIALS.search(text):
        return f"there are no credentials in the environment: set {_VARIABLES[scheme]} ({short})"
    if is_absent(error):
        return f"there is no {urlsplit(uri).netloc} there: correct its name, or create it ({short})"
    if scheme in CLOUD_SCHEMES and _REFUSED.search(text):
        return (
            f"the store refuses these credentials: see that {_VARIABLES[scheme]} are of somebody who may "
            f"list, read and, to publish, write there ({short})"
        )
    if isinstance(error, ValueError):
        return short  # nobody has been asked yet
    if scheme not in CLOUD_SCHEMES:
        return f"{short}: is the address right, and does it answer from here?"
    return (
        f"{short}: is the address right, and does {_ENDPOINTS[scheme]} name a store that answers from here?"
    )
