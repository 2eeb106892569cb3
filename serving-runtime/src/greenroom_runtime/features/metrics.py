"""The feature cache's accounts, for Prometheus. Labels are sources and upstreams: all bounded."""

from collections.abc import Iterator

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from greenroom_runtime.contract.report import BreakerState
from greenroom_runtime.features.chain import FeatureCache


class FeatureCollector(Collector):
    """Reads the accounts at each scrape."""

    def __init__(self, cache: FeatureCache) -> None:
        self._cache = cache

    def describe(self) -> list[Metric]:
        """Return nothing: the names need no check against others."""
        return []

    def collect(self) -> Iterator[Metric]:
        """Yield what a scrape shows."""
        cache, counts = self._cache, self._cache.counts
        rows = CounterMetricFamily(
            "greenroom_feature_rows", "Rows whose features were fetched, by where from", labels=["source"]
        )
        for source, count in counts.by_source.items():
            rows.add_metric([source], count)
        yield rows
        ages = HistogramMetricFamily("greenroom_feature_age_seconds", "Age of the features that were fetched")
        counts.ages.add_to(ages, labels=())
        yield ages
        for name, documentation, value in (
            ("failed", "Rows without an answer, since no source could be asked", counts.failed),
            ("unknown", "Rows whose entity no source knows", counts.unknown),
            ("joined", "Rows that waited for a fetch that was under way", cache.flights.joined),
            ("evicted", "Entities that made room in memory", cache.memory.evicted),
            ("oversized", "Entities that were too large for memory", cache.memory.oversized),
        ):
            yield CounterMetricFamily(f"greenroom_feature_{name}", documentation, value=value)
        yield GaugeMetricFamily("greenroom_feature_entities", "Entities in memory", value=len(cache.memory))
        yield GaugeMetricFamily(
            "greenroom_feature_bytes", "What they take, estimated", value=cache.memory.bytes
        )
        yield from self._upstreams()

    def _upstreams(self) -> Iterator[Metric]:
        labels = ["upstream"]
        failures = CounterMetricFamily(
            "greenroom_feature_upstream_failures", "Calls without an answer in time", labels=labels
        )
        seconds = HistogramMetricFamily(
            "greenroom_feature_upstream_duration_seconds", "One call, failed ones included", labels=labels
        )
        state = GaugeMetricFamily(
            "greenroom_feature_upstream_open", "1 while it is left alone, or tried again", labels=labels
        )
        store, source = self._cache.store, self._cache.source
        for name, upstream in (("redis", store), ("compute", source)):
            if upstream is not None:
                failures.add_metric([name], upstream.tally.failures)
                upstream.tally.seconds.add_to(seconds, labels=(name,))
                state.add_metric([name], float(upstream.breaker.state is not BreakerState.CLOSED))
        yield from (failures, seconds, state)
        if store is not None:
            yield CounterMetricFamily(
                "greenroom_feature_redis_garbage",
                "Values in Redis that are none of ours",
                value=store.garbage,
            )
            yield CounterMetricFamily(
                "greenroom_feature_redis_dropped", "Values not written back to Redis", value=store.dropped
            )
        if source is not None:
            yield CounterMetricFamily(
                "greenroom_feature_compute_retries", "Calls that were repeated", value=source.retries
            )
