"""TorchServe, the ASGI shell and a pod, live: the same traffic, the same numbers, nothing asked in vain."""

from __future__ import annotations

import json
import shutil
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import psutil
import pytest
import requests
from tenacity import retry, retry_if_result, stop_after_delay, wait_fixed

from serving.metrics.drift_window import FEWEST
from serving.torchserve.config import UNREACHABLE
from serving.torchserve.metrics_exporter import SECONDS
from serving.torchserve.process import find_processes
from serving.torchserve.state_dir import StateDir
from tests.deploy.prometheus import OF_PROMETHEUS, ask, panel_queries, rules, running, selectors
from tests.serving.conftest import Release
from tests.serving.hostile import bodies, good, seeded
from tests.serving.metrics.metered import (
    Live,
    key,
    live_asgi,
    live_pod,
    live_torchserve,
    profiled_release,
    scraped,
)

pytestmark = pytest.mark.integration

PROMETHEUS = shutil.which("prometheus")
REQUESTS = 600
OF_ASGI = (
    "car_response_duration_seconds",
    "car_requests_in_progress",
    "car_channel_release_differs",
    "process_",
)
OF_TORCHSERVE = ("Requests", "ts_", "QueueTime", "Worker")
MAY_BE_EMPTY = {"annotation", "TorchServe's front end C"}  # no release was loaded just now; no 5xx yet
BROKEN_FORM = {"Content-Type": "multipart/form-data; boundary=x"}  # TorchServe's front end gives it a 500


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> Release:
    return profiled_release(tmp_path_factory.mktemp("profiled"))


@pytest.fixture(scope="module")
def torchserve(release: Release, state_dir: Path) -> Iterator[Live]:
    with live_torchserve(release, state_dir) as live:
        yield live


@pytest.fixture(scope="module")
def asgi(release: Release) -> Iterator[Live]:
    with live_asgi(release) as live:
        yield live


@pytest.fixture(scope="module")
def in_pod(release: Release, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    with live_pod(release, tmp_path_factory.mktemp("pod")) as live:
        yield live


@pytest.fixture(scope="module")
def traffic() -> list[bytes]:
    rng = seeded(9)
    usual = [json.dumps(good(rng) | {"candidates": None}).encode() for _ in range(REQUESTS)]
    odd = [b'{"history": []}', b'{"history": ["none such"]}', b"{"]
    alike = [b'{"history": ["i1"]}'] * REQUESTS  # far from what a profile expects
    return [*usual, *odd * 5, *alike, *bodies(100, seed=11)]


@pytest.fixture(scope="module")
def statuses(torchserve: Live, asgi: Live, in_pod: Live, traffic: list[bytes]) -> Counter[int]:
    """What all answered; and TorchServe's front end has heard of it."""
    series = key("car_requests_total", status="200", release=torchserve.release())
    old_total = scraped(torchserve.metrics())[series]
    answers = [[live.send(body) for body in traffic] for live in (torchserve, asgi, in_pod)]
    assert answers[0] == answers[1] == answers[2]
    counts = Counter(answers[0])

    @retry(
        stop=stop_after_delay(20 * SECONDS),
        wait=wait_fixed(0.5),
        retry=retry_if_result(lambda complete: not complete),
    )
    def wait() -> bool:
        return scraped(torchserve.metrics())[series] - old_total >= counts[200]

    wait()
    time.sleep(2 * SECONDS)  # whatever else is told
    return counts


@pytest.fixture(scope="module")
def exported(torchserve: Live, asgi: Live, in_pod: Live, statuses: Counter[int]) -> list[set[tuple]]:
    """What each server shows once all that can happen at its front door has happened."""
    for live in (torchserve, asgi, in_pod):
        live.send(b"x" * (2 * 1024 * 1024))
    refusal = requests.post(
        torchserve.url, data=b"--x\r\n\r\n--x--", headers=torchserve.headers | BROKEN_FORM, timeout=30
    )
    assert refusal.status_code >= 500
    return [set(scraped(live.metrics())) for live in (torchserve, asgi, in_pod)]


def test_all_servers_count_the_same_traffic_alike(
    torchserve: Live, asgi: Live, in_pod: Live, statuses: Counter[int]
) -> None:
    asgi_samples, torchserve_samples, pod_samples = (
        scraped(live.metrics()) for live in (asgi, torchserve, in_pod)
    )
    release = asgi.release()
    for status in (200, 400):
        for samples in (asgi_samples, torchserve_samples, pod_samples):
            assert samples[key("car_requests_total", status=str(status), release=release)] == statuses[status]
    timed = ("_sum", "_bucket", "_timestamp_seconds")
    same = {
        series: value
        for series, value in asgi_samples.items()
        if not series[0].startswith(OF_ASGI) and not series[0].endswith(timed)
    }
    assert len(same) == 25
    for shell_samples in (torchserve_samples, pod_samples):
        assert {series: shell_samples[series] for series in same} == {
            series: pytest.approx(value, abs=1e-6) for series, value in same.items()
        }
    assert asgi_samples[key("car_histories_total", kind="empty")] >= 5
    assert asgi_samples[key("car_histories_total", kind="unknown")] >= 5
    assert asgi_samples[key("car_drift_window_answers")] >= FEWEST
    assert min(asgi_samples[key("car_score_drift_psi")], asgi_samples[key("car_code_drift_psi")]) > 0.1
    assert {name for name, _ in pod_samples} == {name for name, _ in asgi_samples}
    named = {name for name, _ in asgi_samples if not name.startswith(OF_ASGI)}
    assert {name for name, _ in torchserve_samples if not name.startswith(OF_TORCHSERVE)} == named


def test_latencies_are_plausible(torchserve: Live, asgi: Live, in_pod: Live, statuses: Counter[int]) -> None:
    for live in (torchserve, asgi, in_pod):
        samples = scraped(live.metrics())
        name = "car_request_duration_seconds"
        count, total = (samples[key(f"{name}_{part}", thinking="3")] for part in ("count", "sum"))
        buckets = {
            float(dict(labels)["le"]): value
            for (metric, labels), value in samples.items()
            if metric == f"{name}_bucket" and dict(labels)["thinking"] == "3"
        }
        ordered = [buckets[bound] for bound in sorted(buckets)]
        assert ordered == sorted(ordered)
        assert ordered[-1] == count > 100
        assert 1e-4 < total / count < 5


@pytest.mark.parametrize("title", [rule["alert"] for rule in rules()] + list(panel_queries()))
def test_what_alerts_and_panels_ask_for_is_exported(exported: list[set[tuple]], title: str) -> None:
    """Every series by name, with every label that an expression reads, of every server that can have it."""
    expressions = {rule["alert"]: rule["expr"] for rule in rules()} | panel_queries()
    for selector in selectors(expressions[title]):
        if selector.name in OF_PROMETHEUS:
            continue
        labels_needed = {matcher.name for matcher in selector.matchers.matchers} - {"job", "instance"}
        is_exported = [
            any(
                name == selector.name and labels_needed <= {label for label, _ in labels}
                for name, labels in series
            )
            for series in exported
        ]
        torchserve, *asgi = is_exported
        assert torchserve or selector.name.startswith(OF_ASGI), selector.name
        assert all(asgi) or selector.name.startswith(OF_TORCHSERVE), selector.name


def test_a_pod_counts_callers_without_a_key(in_pod: Live) -> None:
    refused = key("car_requests_total", status="401", release=in_pod.release())
    old_total = scraped(in_pod.metrics()).get(refused, 0)
    assert requests.post(in_pod.url, data=b"{}", timeout=30).status_code == 401
    assert scraped(in_pod.metrics())[refused] == old_total + 1


def test_listeners_are_on_loopback_only(torchserve: Live, state_dir: Path) -> None:
    java = find_processes(StateDir(state_dir))[0]
    listening = [
        connection.laddr for connection in java.net_connections() if connection.status == psutil.CONN_LISTEN
    ]
    assert int(torchserve.scrape.rpartition(":")[2]) in {address.port for address in listening}
    addresses = {address.ip.removeprefix("::ffff:") for address in listening}
    assert addresses <= {"127.0.0.1", UNREACHABLE}  # nothing connects to the second, a broadcast address
    assert "127.0.0.1" in addresses


@pytest.mark.skipif(PROMETHEUS is None, reason="Prometheus is not installed")
def test_prometheus_reads_all_servers_and_answers_every_panel(
    torchserve: Live, asgi: Live, in_pod: Live, statuses: Counter[int], tmp_path: Path
) -> None:
    servers = (torchserve, asgi, in_pod)
    with running(str(PROMETHEUS), tmp_path, [live.scrape for live in servers]) as url:
        other_bodies = (b'{"history": ["none such", "i2"]}',) * 4 + (b"{",) * 4
        for _ in range(4 * int(SECONDS)):
            for body in (
                *(b'{"history": ["i1"], "thinking": %d}' % depth for depth in range(4)),
                *other_bodies,
            ):
                assert {live.send(body) for live in servers} <= {200, 400}
            time.sleep(1)
        answers = {title: ask(url, query) for title, query in panel_queries().items()}
        assert {title for title, rows in answers.items() if not rows} <= MAY_BE_EMPTY
        for title, rows in answers.items():
            values = [float(row["value"][1]) for row in rows]
            assert not np.isnan(values).any(), (title, rows)
        unknown = float(answers["Unknown items A"][0]["value"][1])
        assert unknown == pytest.approx(1 / 3, abs=0.1)
        health = requests.get(f"{url}/api/v1/rules", timeout=30).json()["data"]["groups"]
        states = {
            rule["name"]: (rule["health"], rule["state"]) for group in health for rule in group["rules"]
        }
        assert set(states) == {rule["alert"] for rule in rules()}
        assert {health for health, _ in states.values()} == {"ok"}
        assert states["CarDown"] == states["CarNoRelease"] == ("ok", "inactive")
        assert states["CarUnknownItems"] == ("ok", "pending")  # a third is unknown
        assert states["CarRefusals"] == ("ok", "pending")
