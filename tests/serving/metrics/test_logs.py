"""What live servers write: little, of bounded size, and nothing of a body or a key."""

from __future__ import annotations

import gzip
import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests

from serving.torchserve.metrics_exporter import SECONDS
from serving.torchserve.state_dir import StateDir
from tests.serving.conftest import Release
from tests.serving.hostile import bodies
from tests.serving.metrics.metered import Live, live_asgi, live_pod, live_torchserve, profiled_release

pytestmark = pytest.mark.integration

MARK = "mark-of-a-body"
FILL = 11 * 1024 * 1024  # more than a log may hold
SENT = 1000
BYTES_OF_TORCHSERVE = 128 * SENT  # what docs/operations.md promises for so many requests
BYTES_OF_A_POD = 0


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> Release:
    return profiled_release(tmp_path_factory.mktemp("profiled"))


@pytest.fixture(scope="module")
def torchserve(release: Release, state_dir: Path) -> Iterator[Live]:
    """With logs that are full already."""
    state = StateDir(state_dir)
    state.create()
    for name in ("server", "access"):
        (state.logs / f"{name}.log").write_bytes(b"an old line\n" * (FILL // 12))
        for number in (1, 2, 3):
            with gzip.open(state.logs / f"{name}.{number}.log.gz", "wb") as old:
                old.write(f"older {number}".encode())
    with live_torchserve(release, state_dir) as live:
        yield live


def test_full_logs_are_turned_over_and_the_oldest_goes(torchserve: Live, state_dir: Path) -> None:
    torchserve.send(b"{}")
    logs = StateDir(state_dir).logs
    for name in ("server", "access"):
        assert (logs / f"{name}.log").stat().st_size < FILL / 2
        archives = sorted(logs.glob(f"{name}.*.log.gz"))
        assert len(archives) == 3
        content = b"".join(gzip.decompress(path.read_bytes())[:40] for path in archives)
        assert b"an old line" in content
        assert content.count(b"older") == 2


def test_a_thousand_requests_write_few_bytes(torchserve: Live, state_dir: Path) -> None:
    """Answered and refused ones alike; all files together."""
    torchserve.send(b"{}")
    time.sleep(2 * SECONDS)
    logs = StateDir(state_dir).logs
    baseline = written(logs)
    sent_hostile(torchserve)
    time.sleep(2 * SECONDS)  # what workers tell is a line of theirs, not of a log
    final = written(logs)
    print({name: size - baseline.get(name, 0) for name, size in final.items()}, "bytes for", SENT)
    assert SENT < sum(final.values()) - sum(baseline.values()) < BYTES_OF_TORCHSERVE
    assert final["server.log"] == baseline["server.log"]


def test_the_asgi_shell_and_a_pod_write_nothing_for_a_request(release: Release, tmp_path: Path) -> None:
    with live_asgi(release) as live:  # asks itself whether anything was written
        sent_hostile(live)
    with live_pod(release, tmp_path) as live:
        baseline = written(tmp_path)
        sent_hostile(live)
        requests.post(live.url, data=b"{}", headers={"Authorization": f"Bearer {MARK}"}, timeout=30)
        final = written(tmp_path)
    assert final["pod.log"] - baseline["pod.log"] == BYTES_OF_A_POD


def test_logs_hold_a_line_a_request_and_nothing_of_its_body_or_key(torchserve: Live, state_dir: Path) -> None:
    state = StateDir(state_dir)
    baseline = {name: lines(state, name) for name in ("server", "access")}
    stray = {"Authorization": f"Bearer {MARK}-key"}
    for _ in range(20):
        torchserve.send(json.dumps({"history": [MARK], "exclude": [MARK]}).encode())
        torchserve.send(f'{{"history": ["{MARK}'.encode())
        requests.post(torchserve.url, data=b"{}", headers=stray, timeout=30)
    time.sleep(2 * SECONDS)
    final = {name: lines(state, name) for name in ("server", "access")}
    assert len(final["access"]) - len(baseline["access"]) == 60
    assert len(final["server"]) - len(baseline["server"]) <= 20  # those with a wrong key
    text = "".join(path.read_text(errors="replace") for path in state.logs.glob("*.log"))
    assert "/predictions/car" in text
    keys = [entry["key"] for entry in json.loads(state.keys.read_text()).values()]
    for secret in (MARK, *keys, torchserve.headers["Authorization"].split()[-1]):
        assert secret not in text
    assert "[METRICS]" not in text


def sent_hostile(live: Live) -> None:
    statuses = {live.send(body) for body in bodies(SENT, seed=21)}
    assert {200, 400} <= statuses <= {200, 400, 413}


def written(folder: Path) -> dict[str, int]:
    return {path.name: path.stat().st_size for path in folder.glob("*.log")}


def lines(state: StateDir, name: str) -> list[str]:
    return (state.logs / f"{name}.log").read_text(errors="replace").splitlines()
