"""The folders of local runs: found by run id and release, and removed when they are old."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from common.code_digest import code_digest
from common.home import run_folder
from orchestration.local.runs import RunsError, clean, find_run, find_runs, old_runs, running
from pipeline import app
from registry.channels.channel import promote, stage
from registry.errors import RegistryError
from registry.store.open import open_store
from tests.registry.bundles import make_release

WHY = {"who": "ann@shop", "why": "a test"}


def write_run(work: Path, number: int, *steps: str, cached: str = "") -> Path:
    """A run's folder with 1,000 bytes of each step that it did, and the step that it took from the cache."""
    folder = work / "runs" / f"2026110{number}-120000-abc"
    for step in steps:
        (folder / "pipeline" / step).mkdir(parents=True)
        (folder / "pipeline" / step / "output").write_bytes(b"x" * 1000)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "run.log").write_text(f"INFO: Task {cached} cache hit, skipping.\n" if cached else "")
    return folder


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The .car of a folder with a server's and a registry's files, and caches of two codes."""
    monkeypatch.chdir(tmp_path)
    work = Path(".car")
    for name in (
        "shop/serving/server.json",
        "shop/registry/blobs/a",
        "cache/old/a.json",
        "checkpoints/old/a",
    ):
        (work / name).parent.mkdir(parents=True, exist_ok=True)
        (work / name).write_bytes(b"x" * 100)
    (work / "cache" / code_digest()).mkdir()
    return work


def test_old_runs_and_caches_of_other_code_go_and_everything_else_stays(work: Path) -> None:
    folders = [write_run(work, number, "train") for number in (1, 2, 3)]
    planned = old_runs(work, 2, code_digest())
    assert all(folder.is_dir() for folder in folders)
    assert clean(work, 2, code_digest()) == planned
    assert (planned.folders, planned.size) == ((folders[0],), 1200)
    assert [run.path for run in find_runs(work)] == folders[:0:-1]
    left = {path.relative_to(work).as_posix() for path in work.glob("*/**/*") if path.parts[1] != "runs"}
    assert {"shop/serving/server.json", "shop/registry/blobs/a", f"cache/{code_digest()}"} <= left
    assert not {"cache/old", "checkpoints/old"} & left
    assert clean(work, 2, code_digest()).size == 0


def test_a_run_that_a_newer_one_took_outputs_from_stays(work: Path) -> None:
    first, second = write_run(work, 1, "train"), write_run(work, 2, "gate")
    write_run(work, 3, "gate", cached="train")
    removed = clean(work, 1, code_digest())
    assert (removed.folders, removed.needed, removed.remaining) == ((second,), 1, 2)
    assert first.is_dir()


def test_nothing_is_removed_while_a_run_goes_on(work: Path) -> None:
    write_run(work, 1, "train")
    write_run(work, 2, "train")
    with running(work), running(work), pytest.raises(RunsError, match=r"goes on in .*: nothing was removed"):
        clean(work, 1, code_digest())
    assert len(find_runs(work)) == 2
    assert len(clean(work, 1, code_digest()).folders) == 1


def test_a_run_id_a_release_and_a_channel_lead_to_the_runs_folder(work: Path, tmp_path: Path) -> None:
    folder = write_run(work, 1, "train")
    write_run(work, 2, "train")
    store = open_store(registry := str(tmp_path / "registry"))
    release = make_release(store, tmp_path, run_id=folder.name).release
    other = make_release(store, tmp_path, seed=1, run_id="of-a-cluster").release
    stage(store, release, **WHY)
    promote(store, "production", release, **WHY)
    for name in (folder.name, folder.name[:8], release[:12], "production"):
        assert find_run(work, name, registry).path == folder
    assert run_folder(folder.name) == folder
    assert run_folder("of-a-cluster") is None
    with pytest.raises(RunsError, match="was made by run of-a-cluster, which has no folder"):
        find_run(work, other[:12], registry)
    with pytest.raises(RegistryError):
        find_run(work, "nothing", registry)
    shown = CliRunner().invoke(app, ["registry", "show", "production", "--registry", registry]).output
    assert str(folder) in shown.replace("\n", "").replace(" ", "")


def test_the_commands_say_what_they_free(work: Path) -> None:
    for number in (1, 2, 3):
        write_run(work, number, "train")
    invoke = CliRunner().invoke
    assert "20261103-120000-abc" in invoke(app, ["local-runs"]).output.splitlines()[2]
    assert invoke(app, ["clean", "--keep", "1", "--dry-run"]).output == (
        "Dry run; would free 2.2 kB: 2 runs, 2 caches of other code. 1 runs stay.\n"
    )
    assert invoke(app, ["clean", "--keep", "1"]).output.startswith("Freed 2.2 kB: 2 runs,")
    assert invoke(app, ["clean", "--keep", "0"]).exit_code == 2
