"""Deployments onto one real TorchServe."""

import json
import shutil
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from common.digests import file_digest
from serving.archive.build import build_archive, read_archive
from serving.cli import app
from serving.errors import ServingError
from serving.torchserve import process
from serving.torchserve.rollover import DeployError, Deployment, curl_line, restore, roll_over
from serving.torchserve.server import TorchServe
from tests.serving.conftest import REQUESTS, Release

pytestmark = pytest.mark.integration


def roll(release: Release, state_dir: Path) -> Deployment:
    validated = file_digest(release.archive)
    return roll_over(release.archive, release.digest, state_dir, release.golden, validated_sha256=validated)


def answers(release: Release) -> list[dict[str, Any]]:
    golden = json.loads(release.golden.read_text())
    return [answer | {"release": release.digest} for answer in golden["answers"]]


def serves(state_dir: Path, release: Release) -> bool:
    """Whether the release answers, alone, and is what a restart would bring back."""
    server = TorchServe.attach(state_dir)
    record = json.loads(server.state.deployed.read_text())
    return (
        [server.predict(request) for request in REQUESTS] == answers(release)
        and list(server.client.versions()) == [record["version"]]
        and [path.name for path in server.state.store.iterdir()] == [record["archive"]]
        and record["release"] == release.digest
    )


@pytest.fixture
def deployed(state_dir: Path, first: Release) -> Path:
    """A folder whose server serves the first release."""
    roll(first, state_dir)
    assert serves(state_dir, first)
    return state_dir


def test_deploying_twice_changes_nothing(deployed: Path, first: Release) -> None:
    leader = process.frontend_process(TorchServe.attach(deployed).state)
    again = roll(first, deployed)
    assert not again.changed
    assert again.retired == ()
    assert process.frontend_process(TorchServe.attach(deployed).state) == leader


class Load:
    """Clients that ask without pause; every answer must be one release's, whole."""

    def __init__(self, state_dir: Path, allowed: list[dict[str, Any]], clients: int = 3) -> None:
        self.failures: list[str] = []
        self.served: set[str] = set()
        self._ended = threading.Event()
        self._threads = [
            threading.Thread(target=self._ask, args=(TorchServe.attach(state_dir), allowed))
            for _ in range(clients)
        ]

    def _ask(self, server: TorchServe, allowed: list[dict[str, Any]]) -> None:
        while not self._ended.is_set():
            try:
                answer = server.predict(REQUESTS[0])
            except ServingError as error:
                self.failures.append(repr(error))
                continue
            self.served.add(answer["release"])
            if answer not in allowed:
                self.failures.append(f"a mixed answer: {answer}")

    def __enter__(self) -> "Load":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        for thread in self._threads:
            thread.join()


def test_no_request_is_lost_while_releases_change(deployed: Path, first: Release, second: Release) -> None:
    allowed = [answers(first)[0], answers(second)[0]]
    with Load(deployed, allowed) as load:
        for release in (second, first):
            deployment = roll(release, deployed)
            assert deployment.changed
            assert len(deployment.retired) == 1
    assert load.failures == []
    assert load.served == {first.digest, second.digest}
    assert serves(deployed, first)


def test_wrong_answers_never_become_the_default(deployed: Path, first: Release, second: Release) -> None:
    with (
        Load(deployed, [answers(first)[0]]) as load,
        pytest.raises(DeployError, match="was not deployed: 4 of 4 golden requests gave another answer"),
    ):
        roll(replace(second, golden=first.golden), deployed)
    assert load.failures == []
    assert serves(deployed, first)


def damaged(release: Release, folder: Path) -> Release:
    bundle = shutil.copytree(release.bundle, folder / "bundle")
    (bundle / "model" / "model.safetensors").write_bytes(b"damaged")
    return Release("d" * 64, bundle, build_archive(bundle, folder, "d" * 64), release.golden)


def test_a_model_that_does_not_load_leaves_the_old_one(
    deployed: Path, first: Release, tmp_path: Path
) -> None:
    with pytest.raises(DeployError, match=r"Release dddddddddddd was not deployed: .*does not load"):
        roll(damaged(first, tmp_path), deployed)
    assert serves(deployed, first)


def test_an_archive_of_another_release_is_refused(deployed: Path, first: Release, second: Release) -> None:
    with pytest.raises(DeployError, match=r"holds release .*, not the one to deploy"):
        roll(replace(second, digest=first.digest), deployed)
    assert serves(deployed, first)


def test_an_archive_that_was_not_validated_is_refused(
    deployed: Path, first: Release, second: Release
) -> None:
    other_digest = file_digest(first.archive)
    with pytest.raises(
        DeployError, match=rf"but the archive that was validated has {other_digest[:12]}; package"
    ):
        roll_over(second.archive, second.digest, deployed, second.golden, validated_sha256=other_digest)
    assert serves(deployed, first)


def test_a_first_deployment_that_fails_leaves_nothing(
    first: Release, second: Release, tmp_path: Path
) -> None:
    with pytest.raises(DeployError):
        roll(replace(first, golden=second.golden), tmp_path)
    with pytest.raises(ServingError, match="No TorchServe runs"):
        TorchServe.attach(tmp_path)
    with pytest.raises(ServingError, match="Nothing was deployed"):
        restore(tmp_path)


def test_a_version_that_a_killed_deployment_left_is_replaced(
    deployed: Path, first: Release, second: Release
) -> None:
    server = TorchServe.attach(deployed)
    shutil.copy(second.archive, server.state.store / "car-left.mar")
    server.client.register("car-left.mar")
    assert roll(second, deployed).changed
    assert serves(deployed, second)


def kill(state_dir: Path) -> None:
    leader = process.frontend_process(TorchServe.attach(state_dir).state)
    assert leader is not None
    leader.kill()
    leader.wait(timeout=10)


def test_a_server_whose_start_was_killed_is_replaced(deployed: Path, first: Release) -> None:
    state = TorchServe.attach(deployed).state
    old = process.find_processes(state)
    state.server.unlink()
    roll(first, deployed)
    assert serves(deployed, first)
    assert len(process.find_processes(state)) == 2
    assert not [item for item in old if process.is_living(item)]


def test_a_killed_server_comes_back_with_its_release(deployed: Path, first: Release) -> None:
    old = TorchServe.attach(deployed)
    kill(deployed)
    with pytest.raises(ServingError, match="does not listen on"):
        old.predict(REQUESTS[0])
    assert not old.is_up()
    new = restore(deployed)
    assert serves(deployed, first)
    assert new.ports == old.ports


def test_deploying_to_a_killed_server_starts_it(deployed: Path, second: Release) -> None:
    kill(deployed)
    assert roll(second, deployed).changed
    assert serves(deployed, second)


def test_what_cannot_be_brought_back_is_deployed_anew(deployed: Path, first: Release, tmp_path: Path) -> None:
    state = TorchServe.attach(deployed).state
    TorchServe.stop(deployed)
    stored = next(state.store.iterdir())
    shutil.copyfile(damaged(first, tmp_path).archive, stored)
    with pytest.raises(ServingError, match="not what was deployed; deploy the release again"):
        restore(deployed)
    record = json.loads(state.deployed.read_text())
    version = read_archive(stored).version
    state.deployed.write_text(json.dumps(record | {"sha256": file_digest(stored), "version": version}))
    with pytest.raises(ServingError, match=rf"Version {version} does not load: \w+: "):
        restore(deployed)
    assert process.find_processes(state) == []
    roll(first, deployed)
    assert serves(deployed, first)


def test_the_curl_line_works_as_pasted(deployed: Path, first: Release) -> None:
    server = TorchServe.attach(deployed)
    line = curl_line(server, REQUESTS[0])
    keys = json.loads(server.state.keys.read_text())
    assert keys["inference"]["key"] not in line
    result = subprocess.run(["sh", "-c", line], capture_output=True, text=True, check=True)
    assert json.loads(result.stdout) == answers(first)[0]


def test_the_command_line(deployed: Path, first: Release) -> None:
    def run(*arguments: str) -> str:
        result = CliRunner().invoke(app, [*arguments, "--serving", str(deployed)], catch_exceptions=False)
        assert result.exit_code == 0, result.output
        return result.output

    assert "1 ready, 0 waiting" in run("status")
    output = run("ask", "--history", "i1, nothing", "--k", "3")
    assert f"release {first.digest[:12]}" in output
    assert "Unknown items were skipped: nothing." in output
    assert "so these are popular items" in run("ask")
    ranked = json.loads(
        run("ask", "--history", "i1,i2", "--candidates", "i3,i4,i5,x", "--exclude", "i4", "--raw")
    )
    assert ({item["item_id"] for item in ranked["items"]}, ranked["skipped_candidates"]) == (
        {"i3", "i5"},
        ["x"],
    )
    assert "are not offered: x." in run("ask", "--history", "i1", "--candidates", "i3,x", "--thinking", "0")
    assert "why" not in run(
        "ask", "--history", "i1", "--no-explain", "--actions", "5", "--rank-by", "relevance"
    )
    for wrong, sentence in (
        (["--actions", "5,1"], "'actions' has 2 entries, 'history' has 1"),
        (["--rank-by", "action"], "has no ranker by action"),
        (["--actions", "good"], "not a list of numbers"),
    ):
        result = CliRunner().invoke(app, ["ask", "--history", "i1", *wrong, "--serving", str(deployed)])
        assert result.exit_code
        assert sentence in " ".join(result.stderr.replace("│", " ").split())
    assert run("curl", "--history", "i1").startswith("curl -sS -H ")
    assert "Stopped TorchServe (2 processes) in " in run("stop")
    assert "No server runs in" in run("stop")
    assert "TorchServe answers on" in run("start")
    assert serves(deployed, first)
    refused = CliRunner().invoke(app, ["ask", "--history", "i1", "--k", "0", "--serving", str(deployed)])
    assert refused.exit_code == 1
    assert "'k'" in refused.stderr


def test_the_command_line_says_errors_in_a_sentence(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "serving", "status", "--serving", str(tmp_path)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 1
    assert "No TorchServe runs in" in result.stderr
    assert "Traceback" not in result.stderr
