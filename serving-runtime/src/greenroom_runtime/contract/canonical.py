"""One spelling of a JSON document, so that equal documents have equal hashes."""

import hashlib
import json
from typing import Any


def canonical_json(document: Any) -> str:
    """Return the document with sorted keys, no blanks and no NaN; the same value is always the same text."""
    return json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def content_hash(document: Any, *, length: int = 10) -> str:
    """Return the first ``length`` hexadecimal digits of the SHA-256 of the canonical document."""
    return hashlib.sha256(canonical_json(document).encode()).hexdigest()[:length]
