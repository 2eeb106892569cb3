"""What the operator counts: one registry of its own, so that tests can have many."""

from importlib.metadata import version
from typing import Final

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    disable_created_metrics,
    generate_latest,
)

_PREFIX: Final = "greenroom_operator"
_DURATIONS: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)


class Metrics:
    """The operator's metrics. No label ever holds the name of an object: their number is not bounded."""

    def __init__(self) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]  # a second series each, that nobody reads
        self.registry = CollectorRegistry()
        self.reconciles = self._counter("reconcile", "Passes of reconcile, by how they ended.", "result")
        self.reconcile_duration = Histogram(
            "reconcile_duration_seconds",
            "How long one pass of reconcile took.",
            namespace=_PREFIX,
            buckets=_DURATIONS,
            registry=self.registry,
        )
        self.reconcile_errors = self._counter("reconcile_errors", "Failed passes, by reason.", "reason")
        self.workqueue_depth = self._gauge("workqueue_depth", "Keys that wait for a worker.")
        self.workqueue_oldest_age = self._gauge(
            "workqueue_oldest_age_seconds", "For how long the key that has waited longest has waited."
        )
        self.leader = self._gauge("leader", "1 while this process holds the lease.")
        self.last_event = self._gauge(
            "watch_last_event_timestamp_seconds", "When a watch last told something, Unix time.", "kind"
        )
        self.applies = self._counter(
            "apply", "Manifests that reconcile asked for: applied, unchanged or failed.", "kind", "result"
        )
        self.api_calls = self._counter(
            "api_calls", "Calls to the API server; code 0 is no answer.", "verb", "kind", "code"
        )
        self.build_info = self._gauge("build_info", "Always 1; its label is the release.", "version")
        self.build_info.labels(version=version("greenroom")).set(1)

    def exposition(self) -> bytes:
        """Return all of it in Prometheus' text format."""
        return generate_latest(self.registry)

    def _counter(self, name: str, meaning: str, *labels: str) -> Counter:
        return Counter(name, meaning, labels, namespace=_PREFIX, registry=self.registry)

    def _gauge(self, name: str, meaning: str, *labels: str) -> Gauge:
        return Gauge(name, meaning, labels, namespace=_PREFIX, registry=self.registry)
