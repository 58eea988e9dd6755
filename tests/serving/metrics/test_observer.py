"""What is counted, against an account of the same traffic kept by the test; and that counting never hurts."""

from __future__ import annotations

import json
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

from car_model.recommender.request import RequestError, batch_of
from serving.answering.answer import HEALTH, respond_all
from serving.answering.request_body import BadBodyError, parse_body
from serving.asgi.app import AsgiMetrics
from serving.metrics.counters import KINDS, STATUSES, Metrics
from serving.metrics.drift_window import FEWEST, LATEST, DriftWindow
from serving.metrics.observer import InstrumentedResponder
from tests.serving.hostile import bodies, good, seeded
from tests.serving.metrics.metered import RELEASE, exported, key, profiled_parts, recommender

SHORT = RELEASE[:12]


@pytest.fixture
def metrics() -> Metrics:
    return Metrics()


@pytest.fixture
def responder(metrics: Metrics) -> InstrumentedResponder:
    return InstrumentedResponder(recommender(), metrics, probe=HEALTH)


def body(**request: Any) -> bytes:
    return json.dumps(request).encode()


def requests_of(raw: bytes) -> list[Any]:
    try:
        value = parse_body(raw)
        return batch_of(value) or [value]
    except (BadBodyError, RequestError):
        return []


def test_every_series_is_there_before_the_first_request(
    responder: InstrumentedResponder, metrics: Metrics
) -> None:
    """A rate from a series that appears with its first error would miss that error."""
    samples = exported(metrics.registry)
    for status in STATUSES:
        assert samples[key("car_requests_total", status=str(status), release=SHORT)] == 0
    for kind in KINDS:
        assert samples[key("car_histories_total", kind=kind)] == 0
    for thinking in range(4):
        assert samples[key("car_request_duration_seconds_count", thinking=str(thinking))] == 0
    for code in range(4):
        assert samples[key("car_recommended_items_total", code=str(code))] == 0


def test_there_are_as_many_series_as_the_docs_say() -> None:
    metrics, asgi = Metrics(), AsgiMetrics()
    for registry_owner in (metrics, asgi):
        InstrumentedResponder(recommender(), registry_owner)
    thinking, codes = 4, 4
    assert len(exported(metrics.registry)) <= 20 + 19 * thinking + 2 * codes
    assert len(exported(asgi.registry)) <= 50 + 19 * thinking + 2 * codes


def test_the_release_is_named(responder: InstrumentedResponder, metrics: Metrics) -> None:
    codebook = profiled_parts().codebook.version
    samples = exported(metrics.registry)
    assert samples[key("car_release_info", release=SHORT, digest=RELEASE, codebook=codebook)] == 1
    expected = [samples[key("car_expected_code_share", code=str(code))] for code in range(4)]
    assert sum(expected) == pytest.approx(1, abs=1e-5)
    InstrumentedResponder(recommender(seed=1, release="b" * 64), metrics)
    names = {
        dict(labels)["release"] for name, labels in exported(metrics.registry) if name == "car_release_info"
    }
    assert names == {"b" * 12}


def test_hostile_traffic_is_answered_as_ever_and_every_body_counted(
    responder: InstrumentedResponder, metrics: Metrics
) -> None:
    traffic = list(bodies(600, seed=3))
    replies = [reply for start in range(0, 600, 8) for reply in responder(traffic[start : start + 8])]
    assert replies == respond_all(recommender(), traffic)
    samples = exported(metrics.registry)
    for status, count in Counter(status for status, _ in replies).items():
        assert samples[key("car_requests_total", status=str(status), release=SHORT)] == count
    pairs = [answer for raw, reply in zip(traffic, replies, strict=True) for answer in exchanges(raw, reply)]
    refused = [answer for _, answer in pairs if "error" in answer]
    assert samples[key("car_invalid_requests_total")] == len(refused) > 100
    good_ones = [(request, answer) for request, answer in pairs if "items" in answer]
    items = sum(len(request["history"]) for request, _ in good_ones)
    unknown = sum(len(answer["skipped"]) for _, answer in good_ones)
    assert samples[key("car_history_items_total")] == items > unknown
    assert samples[key("car_unknown_items_total")] == unknown > 0
    kinds = Counter(kind_of(request, answer) for request, answer in good_ones)
    assert {kind: samples[key("car_histories_total", kind=kind)] for kind in kinds} == kinds
    depths = Counter(str(depth_of(request)) for request, _ in good_ones)
    for depth, count in depths.items():
        assert samples[key("car_request_duration_seconds_count", thinking=depth)] == count
    assert set(depths) == {"0", "1", "2", "3"}


def exchanges(raw: bytes, reply: tuple[int, bytes]) -> list[tuple[Any, dict[str, Any]]]:
    requests, answer = requests_of(raw), json.loads(reply[1])
    return list(
        zip(requests, answer["answers"] if "answers" in answer else [answer] * len(requests), strict=True)
    )


def kind_of(request: dict[str, Any], answer: dict[str, Any]) -> str:
    if not request["history"]:
        return "empty"
    return "unknown" if answer["fallback"] else "known"


def depth_of(request: dict[str, Any]) -> int:
    return 3 if request.get("thinking") is None else int(request["thinking"])


def test_probes_are_answered_and_not_counted(responder: InstrumentedResponder, metrics: Metrics) -> None:
    samples_before = exported(metrics.registry)
    assert responder([HEALTH, HEALTH]) == respond_all(recommender(), [HEALTH, HEALTH])
    assert exported(metrics.registry) == samples_before
    traffic = [HEALTH, body(history=[]), HEALTH, b"{", body(history=["i1"])]
    assert responder(traffic) == respond_all(recommender(), traffic)
    samples = exported(metrics.registry)
    assert [samples[key("car_requests_total", status=str(s), release=SHORT)] for s in STATUSES] == [2, 1, 0]
    assert samples[key("car_histories_total", kind="empty")] == 1


def test_all_of_a_batch_waited_as_long_as_the_batch_took(
    responder: InstrumentedResponder, metrics: Metrics
) -> None:
    responder([body(history=["i1"], thinking=i % 4) for i in range(8)])
    samples = exported(metrics.registry)
    sums = {samples[key("car_request_duration_seconds_sum", thinking=str(i))] for i in range(4)}
    assert len(sums) == 1
    assert sums.pop() > 0


def test_codes_of_the_top_ten_are_counted(responder: InstrumentedResponder, metrics: Metrics) -> None:
    [(_, answer)] = responder([body(history=["i1"], k=40)])
    items = json.loads(answer)["items"]
    assert len(items) == 40
    catalogue = profiled_parts().catalogue
    codes = Counter(str(catalogue.sids[catalogue.uids[item["item_id"]] - 1, 0]) for item in items[:10])
    samples = exported(metrics.registry)
    assert {c: samples[key("car_recommended_items_total", code=c)] for c in codes} == codes


def test_a_defect_of_the_recommender_is_a_500(
    metrics: Metrics, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    defective = recommender()
    monkeypatch.setattr(defective, "recommend_batch", lambda requests: 1 / 0)
    assert [status for status, _ in InstrumentedResponder(defective, metrics)([body(history=["i1"])])] == [
        500
    ]
    assert exported(metrics.registry)[key("car_requests_total", status="500", release=SHORT)] == 1
    assert exported(metrics.registry)[key("car_histories_total", kind="known")] == 0


def test_where_counting_fails_answering_goes_on(
    responder: InstrumentedResponder, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(responder, "_durations", [])
    traffic = [body(history=["i1"])]
    for _ in range(3):
        assert responder(traffic) == respond_all(recommender(), traffic)
    assert caplog.text.count("can't be counted") == 1
    assert "i1" not in caplog.text.replace("test_metrics", "")


def test_threads_lose_no_count(responder: InstrumentedResponder, metrics: Metrics) -> None:
    rng = seeded(4)
    traffic = [[json.dumps(good(rng)).encode() for _ in range(4)] for _ in range(50)]
    with ThreadPoolExecutor(8) as pool:
        replies = [reply for group in pool.map(responder, traffic) for reply in group]
    samples = exported(metrics.registry)
    assert {status for status, _ in replies} == {200}
    assert samples[key("car_requests_total", status="200", release=SHORT)] == 200


def test_drift_is_of_comparable_answers_only(responder: InstrumentedResponder, metrics: Metrics) -> None:
    """Popular items and candidates of the caller's choice say nothing of the model."""
    incomparable = [
        body(history=[]),
        body(history=["x"]),
        body(history=["i1"], candidates=["i2", "i3"]),
        b"{",
    ]
    responder(incomparable)
    assert exported(metrics.registry)[key("car_drift_window_answers")] == 0
    responder([body(history=["i1"]), body(history=["i1"], k=100, exclude=["i2"])])
    assert exported(metrics.registry)[key("car_drift_window_answers")] == 2


def test_holdout_traffic_does_not_drift_and_another_model_does(metrics: Metrics) -> None:
    """The profile of one training, the answers of another."""
    from dataclasses import replace

    from car_model.recommender.recommender import Recommender
    from tests.fixtures import tiny_histories

    ids = profiled_parts().catalogue.item_ids
    histories = [[ids[uid - 1] for uid in history] for history in tiny_histories().train]
    traffic = [body(history=history, thinking=i % 4) for i in range(8) for history in histories]
    InstrumentedResponder(recommender(), metrics)(traffic)
    same = exported(metrics.registry)
    assert same[key("car_drift_window_answers")] == len(traffic) >= FEWEST
    assert same[key("car_score_drift_psi")] < 0.1
    assert same[key("car_code_drift_psi")] < 0.1
    stranger = Recommender(replace(profiled_parts(seed=5), answer_profile=profiled_parts().answer_profile))
    InstrumentedResponder(stranger, metrics)(traffic)
    assert exported(metrics.registry)[key("car_score_drift_psi")] > 0.25


def test_a_release_without_a_profile_has_no_drift(metrics: Metrics) -> None:
    from car_model.recommender.recommender import Recommender
    from tests.fixtures import tiny_parts

    responder = InstrumentedResponder(Recommender(tiny_parts(epochs=1), RELEASE), metrics)
    responder([body(history=["i1"])] * 300)
    samples = exported(metrics.registry)
    assert samples[key("car_drift_window_answers")] == 0
    assert samples[key("car_code_drift_psi")] == 0
    assert key("car_expected_code_share", code="0") not in samples


def test_the_window_forgets_exactly_what_left_it() -> None:
    profile = profiled_parts().answer_profile
    assert profile
    rng = np.random.default_rng(0)
    entries = [
        (int(rng.integers(4)), float(rng.normal()), rng.integers(4, size=int(rng.integers(1, 11))).tolist())
        for _ in range(1000)
    ]
    long, short = DriftWindow(profile, latest=300, fewest=1), DriftWindow(profile, latest=300, fewest=1)
    for entry in entries:
        long.add(*entry)
    for entry in entries[-300:]:
        short.add(*entry)
    assert long.read() == short.read()
    assert long.read().answers == 300


def test_few_answers_say_nothing() -> None:
    profile = profiled_parts().answer_profile
    assert profile
    window = DriftWindow(profile)
    for _ in range(FEWEST - 1):
        window.add(0, -1000.0, [0])
    assert (window.read().score, window.read().code) == (0, 0)
    window.add(0, -1000.0, [0])
    assert window.read().score > 1
    assert FEWEST < LATEST
