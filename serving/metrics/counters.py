"""The metrics of a server's traffic, under the same names in every shell (docs/operations.md).

The module knows no model server. The ASGI shell renders the registry as it is; TorchServe's workers pass
changes on to their front end (`serving.torchserve.metrics_exporter`).
"""

from __future__ import annotations

from collections.abc import Iterable
from threading import Lock

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, disable_created_metrics
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from car_model.metrics.answer_drift import shares
from car_model.recommender.recommender import Recommender
from serving.metrics.drift_window import DriftWindow, WindowDrift

BUCKETS = (0.001, 0.002, 0.003, 0.005, 0.0075, 0.01, 0.015, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 30.0)
STATUSES = (200, 400, 500)
KINDS = ("known", "empty", "unknown")
SHORT = 12  # characters of a release's digest, as in the name of its TorchServe version


class Metrics:
    """The counters of one process; they live longer than the releases that it serves."""

    def __init__(self) -> None:
        disable_created_metrics()  # they would add one series per counter
        self.registry = CollectorRegistry()
        self.duration = Histogram(
            "car_request_duration_seconds",
            "Seconds from the start of a request's batch to its answers, by thinking.",
            ["thinking"],
            buckets=BUCKETS,
            registry=self.registry,
        )
        self.requests = self._counter(
            "requests", "Bodies by the status of their answer.", "status", "release"
        )
        self.invalid = self._counter("invalid_requests", "Requests with a wrong field, alone or in a batch.")
        self.histories = self._counter(
            "histories", "Answered requests by whether an item of their history is known.", "kind"
        )
        self.items = self._counter("history_items", "Items in the histories of answered requests.")
        self.unknown = self._counter(
            "unknown_items", "Items of those histories that the catalogue does not hold."
        )
        self.recommended = CodeCounts()
        self.info = self._gauge("release_info", "The release that answers.", "release", "digest", "codebook")
        self.loaded = self._gauge(
            "release_loaded_timestamp_seconds", "Unix time at which the release was loaded.", "release"
        )
        self.expected = self._gauge(
            "expected_code_share", "Share of a first-level code in the answer profile.", "code"
        )
        self.drift = _DriftCollector()
        self.registry.register(self.recommended)
        self.registry.register(self.drift)

    def use(self, recommender: Recommender, now: float) -> DriftWindow | None:
        """Name the release that answers from now on (Unix time in seconds), and start every series at 0.

        Returns the window that compares its answers with its answer profile; None if it has no profile.
        """
        release, profile = recommender.release[:SHORT], recommender.bundle.answer_profile
        for gauge in (self.info, self.loaded, self.expected):
            gauge.clear()
        self.info.labels(release, recommender.release, recommender.codebook_version).set(1)
        self.loaded.labels(release).set(now)
        for status in STATUSES:
            self.requests.labels(str(status), release)
        for thinking in range(recommender.n_levels + 1):
            self.duration.labels(str(thinking))
        for kind in KINDS:
            self.histories.labels(kind)
        self.recommended.begin(recommender.bundle.codebook.codebook_size)
        if profile:
            expected = shares(profile.codes)[-1]  # of the default thinking
            for code, share in enumerate(expected.tolist()):
                self.expected.labels(str(code)).set(round(share, 6))
        self.drift.window = DriftWindow(profile) if profile else None
        return self.drift.window

    def _counter(self, name: str, help_text: str, *labels: str) -> Counter:
        return Counter(f"car_{name}_total", help_text, labels, registry=self.registry)

    def _gauge(self, name: str, help_text: str, *labels: str) -> Gauge:
        return Gauge(f"car_{name}", help_text, labels, registry=self.registry)


class CodeCounts(Collector):
    """Recommended items by first-level code, counted with one lock per answer instead of one per item."""

    def __init__(self) -> None:
        self._counts: list[int] = []
        self._lock = Lock()

    def begin(self, codes: int) -> None:
        """Make room for codes 0 to `codes` - 1; what was counted stays."""
        with self._lock:
            self._counts += [0] * (codes - len(self._counts))

    def add(self, codes: Iterable[int]) -> None:
        """Count an item for each of these codes."""
        with self._lock:
            for code in codes:
                self._counts[code] += 1

    def collect(self) -> Iterable[Metric]:
        """The counter family, one series per code."""
        family = CounterMetricFamily(
            "car_recommended_items",
            "Recommended items by first-level code, the first ten of every answer.",
            labels=["code"],
        )
        with self._lock:
            counts = list(self._counts)
        for code, count in enumerate(counts):
            family.add_metric([str(code)], count)
        yield family


class _DriftCollector(Collector):
    """The drift of the current window, computed when it is scraped."""

    def __init__(self) -> None:
        self.window: DriftWindow | None = None

    def collect(self) -> Iterable[Metric]:
        drift = self.window.read() if self.window else WindowDrift(0.0, 0.0, 0)
        for name, help_text, value in (
            ("score_drift_psi", "Drift of the best items' scores from the answer profile.", drift.score),
            (
                "code_drift_psi",
                "Drift of the recommended first-level codes from the answer profile.",
                drift.code,
            ),
            ("drift_window_answers", "Answers that the drifts are computed from.", drift.answers),
        ):
            yield GaugeMetricFamily(f"car_{name}", help_text, value=value)
