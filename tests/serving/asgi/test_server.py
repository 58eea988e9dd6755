"""What a container on a cluster runs: a channel followed under load, probes, keys, a clean end."""

from __future__ import annotations

import json
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests
from anyio import run, sleep
from starlette.testclient import TestClient
from typer.testing import CliRunner

from car_model.recommender.recommender import Recommender
from registry.store.base import ObjectStore
from registry.store.open import open_store
from serving.answering.golden import GoldenRequests
from serving.asgi.api_keys import ApiKeys, require_keys
from serving.asgi.server import Pod
from serving.cli import app
from serving.errors import ServingError
from tests.serving.conftest import REQUESTS, Release
from tests.serving.pods import KEY, NEXT_KEY, Running, in_production, pod, released

HISTORY = REQUESTS[0]


@pytest.fixture
def store(tmp_path: Path) -> ObjectStore:
    return open_store(tmp_path / "registry")


@pytest.fixture
def keys(tmp_path: Path) -> Path:
    path = tmp_path / "keys"
    path.write_text(f"{KEY}\n")
    return path


@pytest.fixture
def server(tmp_path: Path, store: ObjectStore, keys: Path) -> Iterator[Running]:
    arguments = ["production", "--registry", store.url, "--follow", "1", "--keys", str(keys)]
    with pod(tmp_path, arguments) as started:
        yield started


@pytest.mark.integration
def test_a_pod_is_ready_once_the_release_answers_and_follows_the_channel(
    server: Running, store: ObjectStore, keys: Path, first: Release, second: Release
) -> None:
    server.wait(lambda: server.get("/live").status_code == 200)
    assert server.get("/ready").status_code == 503  # the channel is empty
    assert server.ask(HISTORY).status_code == 503
    server.wait(lambda: "The channel production" in server.log.read_text())
    in_production(store, released(store, first))
    server.wait(lambda: server.get("/ready").status_code == 200)
    assert server.ask(HISTORY).json()["release"] == first.digest

    answers: list[requests.Response] = []
    stop = threading.Event()

    def load() -> None:
        while not stop.is_set():
            answers.append(server.ask(HISTORY))

    askers = [threading.Thread(target=load) for _ in range(3)]
    for asker in askers:
        asker.start()
    in_production(store, released(store, second))
    server.wait(lambda: server.ask(HISTORY).json()["release"] == second.digest)
    stop.set()
    for asker in askers:
        asker.join()
    assert {reply.status_code for reply in answers} == {200}
    whole = {
        release.digest: json.loads(release.golden.read_text())["answers"][0] for release in (first, second)
    }
    for reply in answers:  # no failure, and none that mixes two releases
        release = reply.json()["release"]
        assert reply.json() == whole[release] | {"release": release}

    assert server.ask(HISTORY, key=None).status_code == 401
    assert server.ask(HISTORY, key=NEXT_KEY).status_code == 401
    keys.write_text(f"{KEY}\n{NEXT_KEY}\n")  # rotation: both are valid, then only the new one
    assert server.ask(HISTORY, key=NEXT_KEY).status_code == server.ask(HISTORY).status_code == 200
    keys.write_text(f"{NEXT_KEY}\n")
    assert server.ask(HISTORY).status_code == 401
    assert server.ask(HISTORY, key=NEXT_KEY).status_code == 200
    keys.unlink()  # nobody is let in where it can't be told who may
    assert server.ask(HISTORY, key=NEXT_KEY).status_code == 401
    assert server.get("/ready").status_code == 200


@pytest.mark.integration
def test_a_release_with_another_answer_never_becomes_the_one_that_answers(
    server: Running, store: ObjectStore, first: Release, second: Release, tmp_path: Path
) -> None:
    in_production(store, released(store, first))
    server.wait(lambda: server.get("/ready").status_code == 200)
    content = json.loads(second.golden.read_text())
    content["answers"][1]["items"][0]["title"] = "Another"
    wrong = tmp_path / "golden.json"
    wrong.write_text(json.dumps(content))
    in_production(store, released(store, second, **{"golden.json": wrong}))
    server.wait(lambda: "another answer: request 1: answer.items[0].title" in server.log.read_text())
    assert server.ask(HISTORY).json()["release"] == first.digest


@pytest.mark.integration
def test_what_is_under_way_at_sigterm_is_answered(
    server: Running, store: ObjectStore, first: Release
) -> None:
    in_production(store, released(store, first))
    server.wait(lambda: server.get("/ready").status_code == 200)
    batch = {"requests": [{"history": [f"i{n}" for n in range(1, 30)], "k": 50}] * 16}
    replies: list[requests.Response] = []
    threads = [threading.Thread(target=lambda: replies.append(server.ask(batch))) for _ in range(8)]
    for asker in threads:
        asker.start()
    server.wait(lambda: replies)  # all are connected, most of them wait
    server.process.send_signal(signal.SIGTERM)
    for asker in threads:
        asker.join()
    assert [reply.status_code for reply in replies] == [200] * 8
    assert server.process.wait(timeout=60) in (0, -signal.SIGTERM)
    with pytest.raises(requests.ConnectionError):
        server.get("/live")


@pytest.fixture
def loaded(first: Release) -> Recommender:
    return Recommender.load(first.bundle, first.digest)


def test_only_probes_are_open_and_metrics_have_their_own_port(
    loaded: Recommender, first: Release, keys: Path
) -> None:
    replica = Pod(ApiKeys(keys))
    replica.use(loaded, GoldenRequests.read(first.golden))
    with TestClient(replica) as client:
        assert client.get("/live").status_code == client.get("/ready").status_code == 200
        for path in ("/ping", "/openapi.json", "/metrics", "/predictions/car", "/live/x", "//live", "/LIVE"):
            refused = client.get(path)
            assert refused.status_code == 401
            assert refused.headers["WWW-Authenticate"] == "Bearer"
            assert refused.json()["status"] == 401
        authorized = {"Authorization": f"Bearer {KEY}"}
        assert client.get("/ping", headers=authorized).json()["release"] == first.digest
        assert client.get("/metrics", headers=authorized).status_code == 404
        for wrong in (
            KEY,
            f"Basic {KEY}",
            f"Bearer {KEY[:-1]}",
            f"Bearer {KEY}x",
            "Bearer",
            "Bearer \xff",
            "",
        ):
            assert client.get("/ping", headers={"Authorization": wrong.encode("latin-1")}).status_code == 401
    client = TestClient(replica.metrics())
    for path in ("/ping", "/predictions/car", "/live", "/"):
        assert client.get(path).status_code == 404


def test_a_model_that_does_not_answer_is_not_live(
    loaded: Recommender, first: Release, monkeypatch: pytest.MonkeyPatch
) -> None:
    replica = Pod(None, hung_seconds=0.4)
    replica.use(loaded, GoldenRequests.read(first.golden))
    hung = threading.Event()
    with TestClient(replica) as client:
        assert client.get("/live").status_code == 200
        assert replica.app is not None
        answer = replica.app.batcher.answer
        monkeypatch.setattr(replica.app.batcher, "answer", lambda all_: hung.wait(60) and answer(all_))
        run(sleep, 1.5)
        silent = client.get("/live")
        hung.set()
        assert silent.status_code == 503
        assert "has not answered" in silent.json()["error"]
        run(sleep, 0.5)
        assert client.get("/live").status_code == 200


@pytest.mark.parametrize(
    "content", ["", "\n\n", "short\n", f"{KEY}\nshort\n", "schlüssel-" + "k" * 40], ids=repr
)
def test_keys_that_are_none_are_refused_without_showing_them(tmp_path: Path, content: str) -> None:
    path = tmp_path / "keys"
    path.write_text(content)
    with pytest.raises(ServingError) as caught:
        ApiKeys(path)
    assert str(path) in str(caught.value)
    assert not any(line in str(caught.value) for line in content.split())
    path.write_text(f"{KEY}\n")
    keys = ApiKeys(path)
    path.write_text(content)
    assert not keys.accept(f"Bearer {KEY}") and not keys.accept("Bearer short") and not keys.accept("Bearer ")


def test_no_key_stays_in_memory(keys: Path) -> None:
    api_keys = ApiKeys(keys)
    assert api_keys.accept(f"bearer {KEY}")
    assert KEY not in repr(vars(api_keys))


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.0.0.7", "example.org", ""])  # noqa: S104
def test_a_network_needs_keys(host: str, keys: Path) -> None:
    with pytest.raises(ServingError, match="--keys"):
        require_keys(host, None)
    assert require_keys(host, keys)
    result = CliRunner().invoke(app, ["serve", "--host", host, "--registry", str(keys.parent)])
    assert result.exit_code == 1
    assert "--keys" in result.stderr


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.0.1", "::1", "localhost"])
def test_loopback_needs_none(host: str) -> None:
    assert require_keys(host, None) is None
