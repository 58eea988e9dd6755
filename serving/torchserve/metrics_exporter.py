"""Pass a worker's metrics on to TorchServe's front end, which keeps them for Prometheus.

A worker tells the front end of a metric by printing a line, so only what changed is printed, every few
seconds, from a thread of its own: nothing is added to a request. The front end adds up what it is told of
counters, so all workers' requests are counted and a worker's death takes away no more than its last seconds.
A histogram is passed on as the counters that it consists of: the front end's own have buckets of their own.
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

SECONDS = 5.0
DECIMALS = 9  # short, and without the '+' of an exponent, which TorchServe does not read

Key = tuple[str, tuple[tuple[str, str], ...]]


class FrontEnd:
    """Tells TorchServe's front end what has changed in a registry since it was told last."""

    def __init__(self, registry: CollectorRegistry, context: Any) -> None:
        """Args: context: TorchServe's, whose `metrics` knows the names in serving/torchserve/metrics.yaml."""
        self._registry = registry
        self._metrics = context.metrics
        self._told: dict[Key, float] = {}

    def start(self, seconds: float = SECONDS) -> threading.Thread:
        """Tell it every so many seconds, as long as the process lives."""
        thread = threading.Thread(target=self._go_on, args=(seconds,), name="metrics", daemon=True)
        thread.start()
        return thread

    def tell(self) -> int:
        """Tell what has changed; returns how many lines that took."""
        lines = 0
        for counts, sample in samples(self._registry):
            key = (sample.name, tuple(sample.labels.items()))
            before = self._told.get(key)
            if before == sample.value:
                continue
            value = sample.value - (before or 0.0) if counts else sample.value
            kind = MetricTypes.COUNTER if counts else MetricTypes.GAUGE
            self._metrics.get_metric(sample.name, kind).add_or_update(
                round(value, DECIMALS), list(sample.labels.values())
            )
            self._told[key] = sample.value
            lines += 1
        return lines

    def _go_on(self, seconds: float) -> None:
        wait = threading.Event()
        while True:
            try:
                self.tell()
            except Exception:
                logger.exception("The metrics can't be passed on to TorchServe; this worker stops trying.")
                return
            wait.wait(seconds)


def samples(registry: CollectorRegistry) -> Iterator[tuple[bool, Sample]]:
    """Every sample of a registry, and whether it counts (or is set)."""
    for family in registry.collect():
        for sample in family.samples:
            yield family.type in ("counter", "histogram"), sample
