"""A worker's lines to TorchServe's front end: its own classes and pattern, nothing left out, little said."""

from __future__ import annotations

import logging
import re
from collections import defaultdict
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from ts.metrics.metric_cache_yaml_impl import MetricsCacheYamlImpl

from serving import torchserve
from serving.metrics.counters import Metrics
from serving.metrics.observer import InstrumentedResponder
from serving.torchserve.metrics_exporter import FrontEndExporter, samples
from tests.serving.hostile import bodies
from tests.serving.metrics.metered import exported, recommender

CONFIG = Path(torchserve.__path__[0]) / "metrics.yaml"
# As org.pytorch.serve.metrics.Metric reads a line once "[METRICS]" is off.
LINE = re.compile(
    r"([\w\s]+)\.([\w\s]+):([0-9\-,.e]+)\|#([^|]*)\|#type:([^|,]+)\|#hostname:([^,]+),([^,]+)(,(.*))?"
)


class FrontEndLog:
    """TorchServe's side: adds counters up, keeps the last of gauges."""

    def __init__(self, caplog: pytest.LogCaptureFixture) -> None:
        self.caplog = caplog
        self.values: dict[tuple[str, frozenset[Any]], float] = defaultdict(float)

    def read(self) -> int:
        lines = [record.getMessage() for record in self.caplog.records if "[METRICS]" in record.getMessage()]
        for line in lines:
            match = LINE.fullmatch(line.removeprefix("[METRICS]"))
            assert match, line
            name, _, value, dimensions, kind = match.groups()[:5]
            pairs = frozenset(tuple(pair.split(":")) for pair in dimensions.split(",") if pair)
            assert all(len(pair) == 2 for pair in pairs), line
            self.values[name, pairs] = float(value) + (self.values[name, pairs] if kind == "COUNTER" else 0)
        self.caplog.clear()
        return len(lines)


@pytest.fixture
def context() -> SimpleNamespace:
    cache = MetricsCacheYamlImpl(str(CONFIG))
    cache.initialize_cache()
    return SimpleNamespace(metrics=cache)


@pytest.fixture
def front_end(caplog: pytest.LogCaptureFixture) -> FrontEndLog:
    caplog.set_level(logging.INFO)
    return FrontEndLog(caplog)


def test_the_front_end_knows_exactly_what_workers_say() -> None:
    metrics = Metrics()
    InstrumentedResponder(recommender(), metrics)
    reported = {
        ("counter" if counts else "gauge", sample.name, tuple(sample.labels))
        for counts, sample in samples(metrics.registry)
    }
    configured = {
        (kind, metric["name"], tuple(metric["dimensions"]))
        for kind, entries in yaml.safe_load(CONFIG.read_text())["model_metrics"].items()
        for metric in entries
    }
    assert reported == configured


def test_what_the_front_end_adds_up_is_what_the_worker_counted(
    context: SimpleNamespace, front_end: FrontEndLog
) -> None:
    metrics = Metrics()
    responder = InstrumentedResponder(recommender(), metrics)
    front = FrontEndExporter(metrics.registry, context)
    traffic = list(bodies(300, seed=2))
    for start in range(0, 300, 60):
        responder(traffic[start : start + 60])
        assert front.export() == front_end.read()
    assert {
        series: pytest.approx(value, abs=1e-6) for series, value in exported(metrics.registry).items()
    } == front_end.values


def test_two_workers_add_up_and_a_restarted_one_goes_on(
    context: SimpleNamespace, front_end: FrontEndLog
) -> None:
    for _ in range(3):
        metrics = Metrics()
        InstrumentedResponder(recommender(), metrics)([b'{"history": ["i1"]}'] * 10)
        FrontEndExporter(metrics.registry, context).export()
    front_end.read()
    assert front_end.values["car_histories_total", frozenset({("kind", "known")})] == 30
    assert front_end.values["car_drift_window_answers", frozenset()] == 10


def test_where_nothing_changed_nothing_is_said(context: SimpleNamespace, front_end: FrontEndLog) -> None:
    metrics = Metrics()
    responder = InstrumentedResponder(recommender(), metrics)
    front = FrontEndExporter(metrics.registry, context)
    assert front.export() > 50
    assert front.export() == 0
    responder([b'{"history": ["i1"]}'] * 1000)
    assert front.export() < 50  # however many requests there were


def test_a_front_end_that_knows_no_such_metric_costs_the_metrics_only(
    context: SimpleNamespace, caplog: pytest.LogCaptureFixture
) -> None:
    metrics = Metrics()
    InstrumentedResponder(recommender(), metrics)
    context.metrics.cache.clear()
    thread = FrontEndExporter(metrics.registry, context).start(seconds=0.01)
    thread.join(timeout=60)
    assert not thread.is_alive()
    assert caplog.text.count("stops trying") == 1
