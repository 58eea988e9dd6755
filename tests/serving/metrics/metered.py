"""A recommender with a answer profile, servers of it, and what Prometheus would read of them."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import psutil
import requests
import torch
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families
from tenacity import retry, retry_if_exception_type, stop_after_delay, wait_fixed

from car_model.bundle import Bundle
from car_model.evaluation.answer_profile import add_answer_profile
from car_model.recommender.recommender import Recommender
from registry.releases.bundle_files import release_digest
from registry.store.open import open_store
from serving.archive.build import build_archive
from serving.torchserve.config import Ports
from serving.torchserve.server import TorchServe
from serving.torchserve.versions import register_and_wait
from tests.fixtures import tiny_histories, tiny_parts
from tests.serving.conftest import REQUESTS, Release
from tests.serving.pods import KEY, in_production, pod, released

RELEASE = "3f9ac2d410be" + "0" * 52

Key = tuple[str, frozenset[tuple[str, str]]]


@dataclass(frozen=True)
class Live:
    """Where a server is asked and where it is scraped."""

    url: str
    scrape: str
    headers: dict[str, str] = field(default_factory=dict)

    def send(self, body: bytes) -> int:
        return requests.post(self.url, data=body, headers=self.headers, timeout=60).status_code

    def metrics(self) -> str:
        return requests.get(f"http://{self.scrape}/metrics", timeout=30).text

    def release(self) -> str:
        """The short digest of the one release it tells of."""
        [labels] = [dict(labels) for name, labels in scraped(self.metrics()) if name == "car_release_info"]
        return labels["release"]


@cache
def profiled_parts(seed: int = 0) -> Bundle:
    return add_answer_profile(tiny_parts(seed=seed, epochs=1), tiny_histories())


def recommender(seed: int = 0, release: str = RELEASE) -> Recommender:
    return Recommender(profiled_parts(seed), release)


def profiled_release(folder: Path) -> Release:
    """A release whose answers can drift: bundle, archive and golden answers."""
    profiled_parts().save(folder / "bundle")
    torch.set_num_threads(1)
    answers = [Recommender.load(folder / "bundle").recommend(request) for request in REQUESTS]
    golden = folder / "golden.json"
    golden.write_text(json.dumps({"requests": REQUESTS, "answers": answers}))
    digest = release_digest(folder / "bundle")
    return Release(digest, folder / "bundle", build_archive(folder / "bundle", folder, digest), golden)


@contextmanager
def live_torchserve(release: Release, state_dir: Path) -> Iterator[Live]:
    server = TorchServe.start(state_dir)
    register_and_wait(server, release.archive)
    header = dict([server.state.header.read_text().strip().split(": ", 1)])
    yield Live(server.client.prediction_url, f"127.0.0.1:{server.ports.metrics}", header)
    TorchServe.stop(state_dir)


@contextmanager
def live_asgi(release: Release) -> Iterator[Live]:
    """It may not write a line, however many requests there are."""
    port = Ports.choose().inference
    command = [sys.executable, "-m", "serving", "asgi", "--archive", str(release.archive)]
    process = subprocess.Popen(
        [*command, "--port", str(port)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )

    @retry(
        stop=stop_after_delay(90),
        wait=wait_fixed(0.2),
        retry=retry_if_exception_type(requests.ConnectionError),
    )
    def wait() -> None:
        assert process.poll() is None, process.stdout and process.stdout.read()
        requests.get(f"http://127.0.0.1:{port}/ping", timeout=10)

    try:
        wait()
        assert {connection.laddr.ip for connection in psutil.Process(process.pid).net_connections()} == {
            "127.0.0.1"
        }
        yield Live(f"http://127.0.0.1:{port}/predictions/car", f"127.0.0.1:{port}")
    finally:
        process.send_signal(signal.SIGTERM)
        output, _ = process.communicate(timeout=60)
    assert output == b""


@contextmanager
def live_pod(release: Release, folder: Path) -> Iterator[Live]:
    """`pipeline.py serve` with keys; what it wrote is in the folder's `pod.log`."""
    store = open_store(folder / "registry")
    in_production(store, released(store, release))
    keys = folder / "keys"
    keys.write_text(f"{KEY}\n")
    with pod(folder, ["production", "--registry", store.url, "--keys", str(keys)]) as server:
        server.wait(lambda: server.get("/ready").status_code == 200)
        server.wait(lambda: "answers here" in server.log.read_text())  # told after it is ready
        url = f"http://127.0.0.1:{server.port}/predictions/car"
        yield Live(url, f"127.0.0.1:{server.metrics_port}", {"Authorization": f"Bearer {KEY}"})


def scraped(text: str) -> dict[Key, float]:
    """Every sample of an exposition by name and labels, without those that only a server adds."""
    named = set(re.findall(r"^\w+", text, re.MULTILINE))  # the parser ends counters' names in _total

    def name(parsed: str) -> str:
        return parsed if parsed in named else parsed.removesuffix("_total")

    samples = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            labels = frozenset(pair for pair in sample.labels.items() if pair[0].lower() != "hostname")
            samples[name(sample.name), labels] = sample.value
    return samples


def exported(registry: CollectorRegistry) -> dict[Key, float]:
    return scraped(generate_latest(registry).decode())


def key(name: str, **labels: str) -> Key:
    return name, frozenset(labels.items())
