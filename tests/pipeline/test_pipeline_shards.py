"""Texts embedded in shards: the loop in the compiled pipeline, and a run that makes the same release."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from kfp import compiler

from orchestration.resources import CompileOptions
from pipeline import build
from registry.channels.channel import head
from registry.store.open import open_store
from serving.torchserve.server import TorchServe
from tests.pipeline.local_runs import prepare, start


def compiled(shards: int, folder: Path, parallelism: int = 0) -> dict:
    path = folder / f"{shards}.yaml"
    compiler.Compiler().compile(build(CompileOptions(shards=shards, parallelism=parallelism)), str(path))
    return next(yaml.safe_load_all(path.read_text()))


def test_the_loop_goes_over_all_shards_and_everything_waits_for_it(tmp_path: Path) -> None:
    tasks = compiled(3, tmp_path)["root"]["dag"]["tasks"]
    [loop] = [task for task in tasks.values() if "parameterIterator" in task]
    assert yaml.safe_load(loop["parameterIterator"]["items"]["raw"]) == [0, 1, 2]
    assert tasks["merge"]["dependentTasks"] == [loop["taskInfo"]["name"]] or "merge" in tasks
    assert "merge" in tasks["tokenize"]["dependentTasks"]


def test_many_shards_are_merged_in_groups_one_after_the_other(tmp_path: Path) -> None:
    tasks = compiled(250, tmp_path)["root"]["dag"]["tasks"]
    loops = [task for task in tasks.values() if "parameterIterator" in task]
    groups = [yaml.safe_load(loop["parameterIterator"]["items"]["raw"]) for loop in loops]
    assert [number for group in groups for number in group] == list(range(250))
    for name, loop, earlier in zip(
        ("merge", "merge-2", "merge-3"), loops, (None, "merge", "merge-2"), strict=True
    ):
        inputs = tasks[name]["inputs"]["artifacts"]
        assert inputs["shards"]["taskOutputArtifact"]["producerTask"].startswith("for-loop")
        assert (inputs["earlier"]["taskOutputArtifact"]["producerTask"] if earlier else None) == earlier
        assert "iteratorPolicy" not in loop
    assert "merge-3" in tasks["tokenize"]["dependentTasks"]


def test_a_limit_holds_for_all_shards_of_a_run(tmp_path: Path) -> None:
    tree = compiled(250, tmp_path, parallelism=8)
    loops = [task for task in tree["root"]["dag"]["tasks"].values() if "parameterIterator" in task]
    assert [loop["iteratorPolicy"]["parallelismLimit"] for loop in loops] == [8, 8, 8]
    for loop, earlier in zip(loops, (set(), {"merge"}, {"merge-2"}), strict=True):
        assert {task for task in loop["dependentTasks"] if task.startswith("merge")} == earlier


def test_one_shard_is_no_loop(tmp_path: Path) -> None:
    tasks = compiled(1, tmp_path)["root"]["dag"]["tasks"]
    assert "merge" not in tasks
    assert not any("parameterIterator" in task for task in tasks.values())


@pytest.fixture
def workshop(tmp_path: Path) -> Iterator[Path]:
    prepare(tmp_path)
    yield tmp_path
    for state in tmp_path.glob("serving-*"):
        TorchServe.stop(state)


@pytest.mark.integration
@pytest.mark.timeout(1000)
def test_shards_make_the_same_release(workshop: Path) -> None:
    found = set()
    for name, options in (("whole", []), ("sharded", ["--shards", "3"])):
        run = start(workshop, name, *options)
        output, _ = run.communicate()
        assert run.returncode == 0, output
        entry = head(open_store(workshop / f"registry-{name}"), "production")
        assert entry
        found.add(entry.release)
    assert "embed" in output and "merge" in output
    assert len(found) == 1
