"""What Prometheus sees of a shadow process, by version; since the process began, whatever the epoch."""

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from greenroom_runtime.contract.shadow import DIFFERENCE_BOUNDS, SECONDS_BOUNDS, ProcessReport
from greenroom_runtime.metrics import Histogram, build_version_states
from greenroom_runtime.predictions.log import PredictionLog
from greenroom_runtime.predictions.metrics import LogCollector
from greenroom_runtime.shadow.compare import Outcome, Verdict

STALE, UNREADY = "stale", "unready"
_MOST = 1e300
"""Stands for an infinite difference in a sum, which it would end for good."""


@dataclass(kw_only=True)
class _Version:
    frames: Counter[str] = field(default_factory=Counter)
    missing: int = 0
    differences: Histogram = field(default_factory=lambda: Histogram(DIFFERENCE_BOUNDS))
    seconds: Histogram = field(default_factory=lambda: Histogram(SECONDS_BOUNDS))
    production_seconds: Histogram = field(default_factory=lambda: Histogram(SECONDS_BOUNDS))


class ShadowMetrics:
    """The registry of one shadow process."""

    def __init__(
        self,
        *,
        report: Callable[[], ProcessReport],
        refused: Callable[[], int],
        connections: Callable[[], int],
        log: PredictionLog | None,
    ) -> None:
        """``refused`` and ``connections`` are the inbox's."""
        self.versions: dict[str, _Version] = {}
        self._registry = CollectorRegistry()
        ProcessCollector(registry=self._registry)
        self._registry.register(_Frames(self.versions))
        self._registry.register(_State(report, refused, connections))
        if log is not None:
            self._registry.register(LogCollector(log))

    def passed_over(self, version: str, what: str, frames: int = 1) -> None:
        """Count frames that were not compared: ``STALE`` or ``UNREADY``."""
        self._of(version).frames[what] += frames

    def count(self, version: str, verdict: Verdict, *, seconds: float, production_seconds: float) -> None:
        """Count one row that both versions were to answer."""
        counted = self._of(version)
        counted.frames[verdict.outcome] += 1
        counted.missing += verdict.missing
        if verdict.outcome in (Outcome.AGREED, Outcome.DISAGREED):
            counted.seconds.observe(seconds)
            counted.production_seconds.observe(production_seconds)
            if verdict.difference is not None:
                counted.differences.observe(min(verdict.difference, _MOST))

    def forget(self, keep: str) -> None:
        """Drop the series of all other versions: added to another they would look like a burst."""
        for version in self.versions.keys() - {keep}:
            del self.versions[version]

    def exposition(self) -> str:
        """Return what Prometheus scrapes, in its text format."""
        return generate_latest(self._registry).decode()

    def _of(self, version: str) -> _Version:
        return self.versions.get(version) or self.versions.setdefault(version, _Version())


class _Frames(Collector):
    def __init__(self, versions: dict[str, _Version]) -> None:
        self._versions = versions

    def describe(self) -> list[Metric]:
        return []

    def collect(self) -> Iterator[Metric]:
        frames = CounterMetricFamily(
            "greenroom_shadow_frames",
            "Rows that the shadow saw, by its version and what became of them",
            labels=["version", "outcome"],
        )
        missing = CounterMetricFamily(
            "greenroom_shadow_missing_outputs",
            "Disagreements in which the shadow lacked an output that production has",
            labels=["version"],
        )
        differences = HistogramMetricFamily(
            "greenroom_shadow_difference",
            "The greatest difference of numbers between the shadow's answer and production's",
            labels=["version"],
        )
        seconds = HistogramMetricFamily(
            "greenroom_shadow_duration_seconds",
            "How long a model took for a compared row, by whose it was",
            labels=["version", "role"],
        )
        for version, counted in self._versions.items():
            for outcome in (STALE, UNREADY, *Outcome):
                frames.add_metric([version, outcome], counted.frames[outcome])
            missing.add_metric([version], counted.missing)
            counted.differences.add_to(differences, labels=(version,))
            counted.seconds.add_to(seconds, labels=(version, "shadow"))
            counted.production_seconds.add_to(seconds, labels=(version, "production"))
        yield from (frames, missing, differences, seconds)


class _State(Collector):
    def __init__(
        self, report: Callable[[], ProcessReport], refused: Callable[[], int], connections: Callable[[], int]
    ) -> None:
        self._report = report
        self._refused = refused
        self._connections = connections

    def describe(self) -> list[Metric]:
        return []

    def collect(self) -> Iterator[Metric]:
        report = self._report()
        yield build_version_states([report.version] if report.version is not None else [])
        yield GaugeMetricFamily(
            "greenroom_flags_refused",
            "Whether the newest flag document is refused",
            value=float(bool(report.flags_error)),
        )
        yield InfoMetricFamily(
            "greenroom_flags", "The flag document obeyed", value={"revision": report.revision}
        )
        yield GaugeMetricFamily(
            "greenroom_shadow_connections", "Serving processes that are connected", value=self._connections()
        )
        yield CounterMetricFamily(
            "greenroom_shadow_connections_refused",
            "Connections closed since what they sent was no frame",
            value=self._refused(),
        )
