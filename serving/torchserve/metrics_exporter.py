"""Pass a worker's metrics on to TorchServe's front end, which keeps them for Prometheus.

A worker reports a metric by printing a line. To add nothing to a request, a thread of its own prints what
has changed every few seconds. The front end adds up what workers report of a counter, so the requests of all
workers are counted, and a worker that dies loses its last seconds only. A histogram is passed on as the
counters that it consists of, because the front end's own histograms have other buckets.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from typing import Any

from prometheus_client import CollectorRegistry
from prometheus_client.samples import Sample
from ts.metrics.metric_type_enum import MetricTypes

logger = logging.getLogger(__name__)

SECONDS = 5.0  # between two exports
DECIMALS = 9  # keeps numbers short and without an exponent's '+', which TorchServe cannot read


class FrontEndExporter:
    """Reports to TorchServe's front end what has changed in a registry since the last report."""

    def __init__(self, registry: CollectorRegistry, context: Any) -> None:
        self._registry = registry
        self._metrics = context.metrics  # knows the names in serving/torchserve/metrics.yaml
        self._exported: dict[tuple[str, tuple[tuple[str, str], ...]], float] = {}

    def start(self, seconds: float = SECONDS) -> threading.Thread:
        """Export every so many seconds in a daemon thread, until that fails."""

        def export_forever() -> None:
            pause = threading.Event()
            try:
                while True:
                    self.export()
                    pause.wait(seconds)
            except Exception:
                logger.exception("The metrics can't be passed on to TorchServe; this worker stops trying.")

        thread = threading.Thread(target=export_forever, name="metrics", daemon=True)
        thread.start()
        return thread

    def export(self) -> int:
        """Report what has changed; return the number of lines."""
        lines = 0
        for is_counter, sample in samples(self._registry):
            series = (sample.name, tuple(sample.labels.items()))
            previous = self._exported.get(series)
            if previous == sample.value:
                continue
            value = sample.value - (previous or 0.0) if is_counter else sample.value
            kind = MetricTypes.COUNTER if is_counter else MetricTypes.GAUGE
            self._metrics.get_metric(sample.name, kind).add_or_update(
                round(value, DECIMALS), list(sample.labels.values())
            )
            self._exported[series] = sample.value
            lines += 1
        return lines


def samples(registry: CollectorRegistry) -> Iterator[tuple[bool, Sample]]:
    """Every sample of a registry, each with whether it is a counter (and not a gauge)."""
    for family in registry.collect():
        for sample in family.samples:
            yield family.type in ("counter", "histogram"), sample
