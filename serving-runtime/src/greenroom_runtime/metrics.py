"""What Prometheus sees. Labels are resident versions, roles and status codes: all bounded.

Counted in plain integers on the request path, since a labelled metric object costs as much as the door;
spelled out only when somebody scrapes.
"""

import platform
import time
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from importlib.metadata import version as distribution_version

from prometheus_client import GC_COLLECTOR, PLATFORM_COLLECTOR, CollectorRegistry, Counter, ProcessCollector
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
)
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector
from prometheus_client.samples import Exemplar

from greenroom_runtime.contract.report import PodReport, VersionReport, VersionState
from greenroom_runtime.models.batching import Run
from greenroom_runtime.predictions.log import PredictionLog
from greenroom_runtime.predictions.metrics import LogCollector

_SECONDS = tuple(0.0001 * 2.0**power for power in range(18))
"""0.1 ms to 13 s, each bound twice the one before: the bounds of a native histogram of schema 0."""
_ROWS = tuple(2.0**power for power in range(11))
_SERVER_ERROR = 500


@dataclass(kw_only=True)
class Counts:
    """Predictions since the process started, for the report."""

    requests: int = 0
    errors: int = 0
    fallbacks: int = 0


@dataclass(slots=True)
class Histogram:
    """Counts observations by upper bounds, in about 0.3 µs each."""

    bounds: tuple[float, ...]
    counts: list[int] = field(default_factory=list)
    total: float = 0.0
    exemplars: dict[int, Exemplar] = field(default_factory=dict)
    """The newest traced observation of each bucket."""

    def __post_init__(self) -> None:
        self.counts = [0] * (len(self.bounds) + 1)

    def observe(self, value: float) -> int:
        """Count one; return the place of its bucket."""
        bucket = bisect_left(self.bounds, value)
        self.counts[bucket] += 1
        self.total += value
        return bucket

    def add_to(self, family: HistogramMetricFamily, *, labels: tuple[str, ...]) -> None:
        """Spell it out for a scrape."""
        buckets: list[tuple[str, float, Exemplar | None]] = []
        below = 0
        for place, (bound, count) in enumerate(zip((*self.bounds, float("inf")), self.counts, strict=True)):
            below += count
            text = "+Inf" if bound == float("inf") else f"{bound:g}"
            buckets.append((text, below, self.exemplars.get(place)))
        family.add_metric(labels, buckets=buckets, sum_value=self.total)  # type: ignore[arg-type]


class Metrics:
    """The registry of one serving process."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.counts = Counts()
        self.requests: dict[tuple[str, str, int], int] = {}
        """By version (empty where none was chosen), role and status code."""
        self.latency: dict[tuple[str, str], Histogram] = {}
        self.runs: dict[str, tuple[Histogram, Histogram, Histogram]] = {}
        """By version: seconds in the model, seconds in the queue, rows in a run."""
        self.swaps = Counter(
            "greenroom_swaps", "How often another version became production", registry=self.registry
        )
        ProcessCollector(registry=self.registry)
        self.registry.register(GC_COLLECTOR)
        self.registry.register(PLATFORM_COLLECTOR)
        self.registry.register(_PredictionCollector(self))

    def observe_state(self, report: Callable[[], PodReport]) -> None:
        """Expose the pod's report as gauges, read at each scrape."""
        self.registry.register(_StateCollector(report))

    def observe_log(self, log: PredictionLog) -> None:
        """Expose the prediction log's accounts."""
        self.registry.register(LogCollector(log))

    def answered(self, version: str, role: str, *, code: int, seconds: float, trace_id: str = "") -> None:
        """Count one row that was answered or refused; a traced one becomes an exemplar."""
        self.counts.requests += 1
        if code >= _SERVER_ERROR:
            self.counts.errors += 1
        series = (version, role, code)
        self.requests[series] = self.requests.get(series, 0) + 1
        histogram = self.latency.get((version, role))
        if histogram is None:
            histogram = self.latency[version, role] = Histogram(_SECONDS)
        bucket = histogram.observe(seconds)
        if trace_id:
            histogram.exemplars[bucket] = Exemplar({"trace_id": trace_id}, seconds, time.time())

    def ran(self, version: str, run: Run) -> None:
        """Count one run of a model."""
        histograms = self.runs.get(version)
        if histograms is None:
            histograms = self.runs[version] = (Histogram(_SECONDS), Histogram(_SECONDS), Histogram(_ROWS))
        inference, queue, rows = histograms
        inference.observe(run.seconds)
        rows.observe(run.rows)
        for seconds in run.queued:
            queue.observe(seconds)

    def forget(self, version: str) -> None:
        """Drop the series of a version that has left: added to another they would look like a burst."""
        for counted in [counted for counted in self.requests if counted[0] == version]:
            del self.requests[counted]
        for timed in [timed for timed in self.latency if timed[0] == version]:
            del self.latency[timed]
        self.runs.pop(version, None)

    def exposition(self, accept: str) -> tuple[bytes, str]:
        """Return what Prometheus scrapes and its content type, in the format that it asks for."""
        encode, content_type = choose_encoder(accept)
        return encode(self.registry), content_type


class _PredictionCollector(Collector):
    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics

    def describe(self) -> list[Metric]:
        return []

    def collect(self) -> Iterator[Metric]:
        metrics = self._metrics
        requests = CounterMetricFamily(
            "greenroom_requests",
            "Predictions answered or refused, by version (empty when none was chosen), role and status code",
            labels=["version", "role", "code"],
        )
        for (version, role, code), count in metrics.requests.items():
            requests.add_metric([version, role, str(code)], count)
        yield requests
        latency = HistogramMetricFamily(
            "greenroom_request_duration_seconds",
            "From the request's head to its answer",
            labels=["version", "role"],
        )
        for labels, histogram in metrics.latency.items():
            histogram.add_to(latency, labels=labels)
        yield latency
        yield CounterMetricFamily(
            "greenroom_fallbacks",
            "Predictions that production made although the user should have had another version",
            value=metrics.counts.fallbacks,
        )
        yield from self._runs()

    def _runs(self) -> Iterator[Metric]:
        families = (
            HistogramMetricFamily(
                "greenroom_inference_duration_seconds", "One run of the model", labels=["version"]
            ),
            HistogramMetricFamily(
                "greenroom_queue_duration_seconds", "How long a row waited for its run", labels=["version"]
            ),
            HistogramMetricFamily("greenroom_batch_rows", "Rows that shared a run", labels=["version"]),
        )
        for version, histograms in self._metrics.runs.items():
            for family, histogram in zip(families, histograms, strict=True):
                histogram.add_to(family, labels=(version,))
        yield from families


def build_version_states(versions: Iterable[VersionReport]) -> GaugeMetricFamily:
    """Return the gauge that tells the state of each version."""
    states = GaugeMetricFamily(
        "greenroom_version_state", "1 for the state that a version is in", labels=["version", "state"]
    )
    for version in versions:
        for state in VersionState:
            states.add_metric([version.name, state], float(version.state is state))
    return states


class _StateCollector(Collector):
    def __init__(self, report: Callable[[], PodReport]) -> None:
        self._report = report

    def describe(self) -> list[Metric]:
        return []

    def collect(self) -> Iterator[Metric]:
        report = self._report()
        states = build_version_states(report.versions)
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
