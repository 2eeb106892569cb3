"""The mirror's accounts, for Prometheus."""

from collections.abc import Iterator

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from greenroom_runtime.shadow.mirror import Mirror


class MirrorCollector(Collector):
    """Reads the accounts at each scrape."""

    def __init__(self, mirror: Mirror) -> None:
        self._mirror = mirror

    def describe(self) -> list[Metric]:
        """Return nothing: the names need no check against others."""
        return []

    def collect(self) -> Iterator[Metric]:
        """Yield what a scrape shows."""
        mirror = self._mirror
        for name, documentation, value in (
            ("offered", "Production's answers while there was a shadow", mirror.offered),
            ("sampled_out", "Those that are not of the share that is mirrored", mirror.sampled_out),
            ("sent", "Those that were sent to the shadow", mirror.sent),
            ("dropped", "Those that the shadow could not take", mirror.dropped),
        ):
            yield CounterMetricFamily(f"greenroom_shadow_mirror_{name}", documentation, value=value)
        yield GaugeMetricFamily(
            "greenroom_shadow_mirror_pending", "Those on their way to the shadow", value=mirror.pending
        )
