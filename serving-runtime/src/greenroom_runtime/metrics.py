"""What Prometheus sees. Labels are resident versions and status codes: both bounded."""

import platform
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.metadata import version as distribution_version

from prometheus_client import (
    GC_COLLECTOR,
    PLATFORM_COLLECTOR,
    CollectorRegistry,
    Counter,
    Histogram,
    ProcessCollector,
    generate_latest,
)
from prometheus_client.core import GaugeMetricFamily, InfoMetricFamily, Metric
from prometheus_client.registry import Collector

from greenroom_runtime.contract.report import PodReport, VersionState

_SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
_SERVER_ERROR = 500


@dataclass(kw_only=True)
class Counts:
    """Prediction requests since the process started, for the report."""

    requests: int = 0
    errors: int = 0


class Metrics:
    """The registry of one serving process."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.counts = Counts()
        self._codes: dict[str, set[int]] = {}
        self._requests = Counter(
            "greenroom_requests",
            "Prediction requests answered, by version (empty when none was chosen) and status code",
            ["version", "code"],
            registry=self.registry,
        )
        self._latency = Histogram(
            "greenroom_request_duration_seconds",
            "From the request's head to its answer",
            ["version"],
            buckets=_SECONDS,
            registry=self.registry,
        )
        self._inference = Histogram(
            "greenroom_inference_duration_seconds",
            "Time in the model alone",
            ["version"],
            buckets=_SECONDS,
            registry=self.registry,
        )
        self.swaps = Counter(
            "greenroom_swaps", "How often another version became production", registry=self.registry
        )
        ProcessCollector(registry=self.registry)
        self.registry.register(GC_COLLECTOR)
        self.registry.register(PLATFORM_COLLECTOR)

    def observe_state(self, report: Callable[[], PodReport]) -> None:
        """Expose the pod's report as gauges, read at each scrape."""
        self.registry.register(_StateCollector(report))

    def answered(self, version: str, *, code: int, seconds: float) -> None:
        """Count one answered prediction request."""
        self.counts.requests += 1
        if code >= _SERVER_ERROR:
            self.counts.errors += 1
        self._codes.setdefault(version, set()).add(code)
        self._requests.labels(version, str(code)).inc()
        self._latency.labels(version).observe(seconds)

    def inferred(self, version: str, *, seconds: float) -> None:
        """Count one run of the model."""
        self._inference.labels(version).observe(seconds)

    def forget(self, version: str) -> None:
        """Drop the series of a version that has left."""
        for code in self._codes.pop(version, ()):
            self._requests.remove(version, str(code))
        self._latency.remove_by_labels({"version": version})
        self._inference.remove_by_labels({"version": version})

    def exposition(self) -> bytes:
        """Return the text that Prometheus scrapes."""
        return generate_latest(self.registry)


class _StateCollector(Collector):
    def __init__(self, report: Callable[[], PodReport]) -> None:
        self._report = report

    def describe(self) -> list[Metric]:
        return []

    def collect(self) -> Iterator[Metric]:
        report = self._report()
        states = GaugeMetricFamily(
            "greenroom_version_state", "1 for the state that a version is in", labels=["version", "state"]
        )
        for version in report.versions:
            for state in VersionState:
                states.add_metric([version.name, state], float(version.state is state))
        yield states
        yield _gauge("greenroom_ready", "Whether a production version answers", float(report.ready))
        yield _gauge(
            "greenroom_flags_refused",
            "Whether the newest flag document is refused",
            float(bool(report.flags_error)),
        )
        yield _info("greenroom_flags", "The flag document obeyed", revision=report.revision)
        yield _info("greenroom_production", "The version that answers", version=report.production)
        yield _info(
            "greenroom_build",
            "What runs",
            version=distribution_version("greenroom"),
            onnxruntime=distribution_version("onnxruntime"),
            python=platform.python_version(),
        )


def _gauge(name: str, documentation: str, value: float) -> Metric:
    return GaugeMetricFamily(name, documentation, value=value)


def _info(name: str, documentation: str, **labels: str) -> Metric:
    return InfoMetricFamily(name, documentation, value=labels)
