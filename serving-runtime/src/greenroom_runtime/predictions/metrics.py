"""The prediction log's accounts, for Prometheus."""

from collections.abc import Iterator

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from greenroom_runtime.predictions.ledger import DEPARTED
from greenroom_runtime.predictions.log import PredictionLog

_LABELS = ["version", "role"]


class LogCollector(Collector):
    """Reads the accounts at each scrape.

    Versions that have left are not shown: folding them into one series would look like a burst.
    """

    def __init__(self, log: PredictionLog) -> None:
        self._log = log

    def describe(self) -> list[Metric]:
        """Return nothing: the names need no check against others."""
        return []

    def collect(self) -> Iterator[Metric]:
        """Yield what a scrape shows."""
        logged = CounterMetricFamily(
            "greenroom_predictions_logged", "Records that are in the log for good", labels=_LABELS
        )
        dropped = CounterMetricFamily(
            "greenroom_predictions_dropped", "Records that are lost", labels=_LABELS
        )
        sampled_out = CounterMetricFamily(
            "greenroom_predictions_sampled_out", "Predictions that were not chosen", labels=_LABELS
        )
        pending = GaugeMetricFamily(
            "greenroom_predictions_pending", "Records on their way into the log", labels=_LABELS
        )
        for (version, role), counts in self._log.counts().items():
            if version != DEPARTED:
                logged.add_metric([version, role], counts.logged)
                dropped.add_metric([version, role], counts.dropped)
                sampled_out.add_metric([version, role], counts.sampled_out)
                pending.add_metric([version, role], counts.pending)
        yield from (logged, dropped, sampled_out, pending)
        yield CounterMetricFamily(
            "greenroom_predictions_delivered",
            "Records that a receiver has acknowledged, those of former processes included",
            value=self._log.delivered,
        )
        yield CounterMetricFamily(
            "greenroom_predictions_expired_segments",
            "Segments removed to keep within the disk's share",
            value=self._log.expired_segments,
        )
        yield CounterMetricFamily(
            "greenroom_predictions_torn_lines", "Lines found cut off by a crash", value=self._log.torn_lines
        )
