"""Where the records of a model's predictions go."""

from enum import StrEnum
from typing import Annotated, Final

from pydantic import ConfigDict, Field

from greenroom_operator.api.base import ApiModel, Rule, rules
from greenroom_operator.api.fields import SecretRef
from greenroom_operator.api.source import HOST_PATTERN, OBJECT_STORES, URI_MAX_LENGTH

MIN_DISK: Final = "64Mi"
MAX_DISK: Final = "16Ti"
DISK_REMEDY: Final = f"must be a quantity between {MIN_DISK} and {MAX_DISK}, such as 1Gi"


class PredictionSink(StrEnum):
    """Who receives the records."""

    FILES = "Files"
    STDOUT = "Stdout"
    HTTP = "Http"
    OBJECT_STORE = "ObjectStore"
    NONE = "None"


class SensitivePolicy(StrEnum):
    """What becomes of the features that the signature marks as sensitive."""

    HASH = "Hash"
    OMIT = "Omit"


URI_PATTERNS: Final = {
    PredictionSink.HTTP: f"https?://{HOST_PATTERN}(/[^#\\s]*)?",
    PredictionSink.OBJECT_STORE: "|".join(scheme.pattern for scheme in OBJECT_STORES.values()),
}
"""What ``uri`` must match, for the sinks that have one."""
URI_REMEDIES: Final = {
    PredictionSink.HTTP: (
        "sink Http posts to uri: write http:// or https:// with a host, such as https://collector.ml/events, "
        "without blanks, '#' and credentials; credentials belong into predictionLog.secretRef"
    ),
    PredictionSink.OBJECT_STORE: (
        "sink ObjectStore writes to uri: write "
        f"{' or '.join(scheme.form for scheme in OBJECT_STORES.values())}, without blanks, '?', '#' and "
        "credentials; credentials belong into predictionLog.secretRef"
    ),
}
NO_URI: Final = "only the sinks Http and ObjectStore have a uri: remove it, or set sink to one of them"
DISKLESS: Final = (PredictionSink.STDOUT, PredictionSink.NONE)
NO_DISK: Final = (
    "only the sinks Files, Http and ObjectStore use the pod's disk: remove maxDisk, or set sink to one of "
    "them"
)


def _sink_in(*sinks: PredictionSink) -> str:
    return f"has(self.sink) && self.sink in {[sink.value for sink in sinks]}"


class PredictionLog(ApiModel):
    """Where the records of predictions go."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            *(
                Rule(
                    f"!({_sink_in(sink)}) || (has(self.uri) && self.uri.matches(r'^({pattern})$'))",
                    URI_REMEDIES[sink],  # without the value: it may hold a password
                )
                for sink, pattern in URI_PATTERNS.items()
            ),
            Rule(f"({_sink_in(*URI_PATTERNS)}) || !has(self.uri)", NO_URI),
            Rule(f"!({_sink_in(*DISKLESS)}) || !has(self.maxDisk)", NO_DISK),
        )
    )

    sink: PredictionSink = PredictionSink.FILES
    """Files keeps the records on the pod's own disk, where they end with the pod; Stdout writes them to the
    container's log, one JSON object a line; Http posts them to uri as CloudEvents; ObjectStore uploads them
    to uri; None keeps no log. Default Files."""
    percent: Annotated[float, Field(ge=0, le=100)] = 100.0
    """Share of the predictions that are recorded, 0 to 100, chosen by request id; those that failed are
    recorded all the same. Default 100."""
    uri: Annotated[str, Field(max_length=URI_MAX_LENGTH)] | None = None
    """Where the records go: https://collector.ml/events for the sink Http; s3://BUCKET/PREFIX,
    gs://BUCKET/PREFIX or az://CONTAINER/PREFIX for ObjectStore."""
    max_disk: Annotated[
        str,
        Field(max_length=32),
        Rule(
            f"isQuantity(self) && !quantity(self).isLessThan(quantity('{MIN_DISK}')) && "
            f"!quantity(self).isGreaterThan(quantity('{MAX_DISK}'))",
            DISK_REMEDY,
            subject="self",
        ),
    ] = "1Gi"
    """What the records may take of the pod's disk, such as 1Gi; the oldest make room for the newest. Http
    and ObjectStore keep there what waits to be sent. Never more than half of
    resources.limits.ephemeral-storage. Default 1Gi."""
    sensitive: SensitivePolicy = SensitivePolicy.HASH
    """What becomes of features that the bundle marks as sensitive: Hash records a hash in place of the value,
    which the Secret's KEY keys; Omit records nothing. Default Hash."""
    secret_ref: SecretRef | None = None
    """A Secret for the log alone: each of its keys NAME becomes the variable GREENROOM_PREDICTIONS_NAME,
    which the log takes for NAME, such as AWS_ACCESS_KEY_ID; so its credentials and the source's never mix.
    AUTHORIZATION is the header that the sink Http sends, KEY keys the hashes of sensitive features. Without
    a Secret the log uses what the container has."""
