"""A server under a follower: killed, its archive damaged, the registry away; each told once and mended."""

from __future__ import annotations

from pathlib import Path

import psutil
import pytest

from registry.channels.channel import promote
from registry.store.open import open_store
from serving.torchserve.server import TorchServe
from serving.torchserve.state_dir import DeployedRelease
from tests.serving.conftest import REQUESTS, Release
from tests.serving.damage import flip
from tests.serving.deployment.following import ANN, following, looked, released
from tests.serving.torchserve.test_faults import kill

pytestmark = [pytest.mark.integration, pytest.mark.timeout(900)]
BACK = "The server was down; release {}, deployed last, answers again."


def test_what_breaks_under_a_follower_is_told_once_and_mended(
    state_dir: Path, tmp_path: Path, first: Release
) -> None:
    store = open_store(tmp_path / "registry")
    promote(store, "production", released(store, first, tmp_path / "evidence"), **ANN)
    with following(store, state_dir, tmp_path) as follower:
        follower.serves(first.digest)
        server = TorchServe.attach(state_dir)

        kill(server, everything=True)
        follower.wait_for(BACK.format(first.digest[:12]))
        assert answers(state_dir) == first.digest

        archive = server.state.store / DeployedRelease.load(server.state).archive
        flip(archive, archive.stat().st_size // 2)
        kill(TorchServe.attach(state_dir), everything=True)
        follower.serves(first.digest, times=2)
        follower.wait_for("The server answers again.", times=1)
        assert answers(state_dir) == first.digest

        (tmp_path / "registry").rename(tmp_path / "away")
        (tmp_path / "registry").write_text("no folder")
        follower.wait_for("Trying again until it works.", times=2)
        looked(psutil.Process(follower.process.pid), 5)
        assert answers(state_dir) == first.digest
        (tmp_path / "registry").unlink()
        (tmp_path / "away").rename(tmp_path / "registry")
        follower.wait_for("The server serves production of")

        log = follower.log.read_text()
        assert log.count("The server was down") == 1
        assert log.count("deploy the release again. Trying again until it works.") == 1
        assert log.count("Trying again until it works.") == 2


def answers(state_dir: Path) -> str:
    return str(TorchServe.attach(state_dir).predict(REQUESTS[0])["release"])
