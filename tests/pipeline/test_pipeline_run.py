"""`pipeline.py run`, for real: promoted, run again, not promoted, and stopped by a broken row.

The runs share a folder, so that what they have in common is computed once; registries and servers are
each test's own.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from registry.channels.channel import head, history
from registry.releases.release import list_releases
from registry.store.open import open_store
from serving.torchserve.server import TorchServe
from tests.pipeline.tiny_shop import write_shop

pytestmark = [pytest.mark.integration, pytest.mark.timeout(1000)]

Ended = subprocess.CompletedProcess[str]
PIPELINE = Path(__file__).parent.parent.parent / "pipeline.py"
RECIPE = "--codebook-size 4 --levels 2 --epochs 2 --set d_model=16 --set n_layers=1 --set max_history=10"
RECIPE += " --set threads=1"
POLICY = """
conditions:
  - name: {name}
    metric: models.challenger.recall@10.mean
    at_least: {bound}
    severity: block
    why: A bound that a test chooses.
  - name: not half as good as popularity
    metric: paired.popularity.recall@10.relative
    at_least: -0.5
    severity: block
    why: A policy must compare quality; the shop is tiny, and training short.
  - name: not far below the champion
    metric: paired.champion.ndcg@10.low
    at_least: -0.9
    severity: block
    when: champion
    why: The same model again differs by nothing.
"""


@pytest.fixture(scope="module")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("workshop")
    write_shop(folder / "shop")
    (folder / "lenient.yaml").write_text(POLICY.format(name="finds something", bound=0.01))
    (folder / "strict.yaml").write_text(POLICY.format(name="finds everything", bound=1.0))
    return folder


@pytest.fixture(scope="module")
def empty(workshop: Path) -> Path:
    """A registry that nothing is ever released to."""
    return workshop / "empty-registry"


@pytest.fixture
def serving(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path / "serving"
    TorchServe.stop(tmp_path / "serving")


def run(
    workshop: Path, registry: Path, *options: str, shop: str = "shop", recipe: str = RECIPE
) -> subprocess.CompletedProcess[str]:
    words = f"--data custom --data-dir {shop} --registry {registry} {recipe}"
    return subprocess.run(
        [sys.executable, str(PIPELINE), "run", *shlex.split(words), *options],
        cwd=workshop,
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        check=False,
        timeout=900,
    )


def steps(output: str) -> dict[str, str]:
    """What became of each step, by name."""
    return dict(re.findall(r"^\[ ?\d+/\d+\] (\S+) \.+ +(\S.*)$", output, flags=re.MULTILINE))


def test_a_first_release_is_promoted_served_and_then_found_in_the_caches(
    workshop: Path, tmp_path: Path, serving: Path
) -> None:
    registry = tmp_path / "registry"
    options = ["--bootstrap", "--gate-policy", "lenient.yaml", "--serving", str(serving)]
    first = run(workshop, registry, *options)
    assert first.returncode == 0, first.stdout + first.stderr
    entry = head(open_store(registry), "production")
    assert entry
    assert entry.number == 1
    for shown in (
        "Recommended now",
        "Popularity",
        "SASRec",
        "Nearest text alone",
        "finds something",
        entry.release,
        "curl",
    ):
        assert shown in first.stdout
    answer = TorchServe.attach(serving).predict({"history": ["t0", "t4"], "k": 3})
    assert answer["release"] == entry.release
    assert [item["title"] for item in answer["items"]] != []
    report = re.search(r"^Report +(\S+)$", first.stdout, flags=re.MULTILINE)
    assert report
    assert "<html" in Path(report[1]).read_text()

    curl = next(line for line in first.stdout.splitlines() if line.startswith("Ask again"))
    asked = subprocess.run(
        shlex.split(curl.removeprefix("Ask again")), capture_output=True, text=True, check=True
    )
    assert json.loads(asked.stdout)["release"] == entry.release

    second = run(workshop, registry, *options)  # production has a champion now: what compares with it runs
    third = run(workshop, registry, *options, recipe="")  # the champion's, so that nothing is trained again
    assert (second.returncode, third.returncode) == (0, 0), second.stdout + third.stdout
    assert "CAR against Production" not in first.stdout
    for again in (second, third):  # equal weights: nothing can differ, and "+0.0 %" would say nothing
        assert "CAR against Production, NDCG@10: no difference, both have the same weights" in again.stdout
    assert {name for name, end in steps(third.stdout).items() if end != "cached"} == {
        "resolve-champion",
        "resolve-recipe",
        "resolve-source",
        "report",
        "release",
        "deploy",
    }
    assert f"Recipe     the recipe of release {entry.release[:12]}\n" in third.stdout
    assert [one.release for one in history(open_store(registry), "production")] == [entry.release]


def test_what_the_gate_blocks_is_not_released(workshop: Path, empty: Path, serving: Path) -> None:
    ended = run(workshop, empty, "--bootstrap", "--gate-policy", "strict.yaml", "--serving", str(serving))
    assert ended.returncode == 3, ended.stdout + ended.stderr
    assert "Not promoted" in ended.stdout
    assert "finds everything: models.challenger.recall@10.mean is" in ended.stdout
    assert "release" not in steps(ended.stdout)
    assert list(steps(ended.stdout))[-1] == "not-promoted"
    store = open_store(empty)
    assert (list_releases(store), head(store, "production"), serving.exists()) == ([], None, False)
    report = re.search(r"^Report +(\S+)$", ended.stdout, flags=re.MULTILINE)
    assert report
    assert "finds everything" in Path(report[1]).read_text()


def test_a_first_release_needs_to_be_asked_for(workshop: Path, empty: Path, serving: Path) -> None:
    ended = run(workshop, empty, "--gate-policy", "lenient.yaml", "--serving", str(serving))
    assert ended.returncode == 3, ended.stdout + ended.stderr
    assert "There is no champion; pass bootstrap for the first release." in ended.stdout


def test_a_broken_row_stops_the_run_with_a_sentence(workshop: Path, empty: Path, serving: Path) -> None:
    write_shop(workshop / "broken", extra=[("c1", "t1", 1_700_000_000, 9)])
    ended = run(workshop, empty, "--serving", str(serving), shop="broken")
    assert ended.returncode == 1
    assert steps(ended.stdout)["validate"] == "failed"
    assert "tokenize" not in steps(ended.stdout)
    said = ended.stderr.splitlines()
    assert said[0].startswith("The step validate failed: ")
    assert "action" in said[0]
    assert "9" in said[0]
    assert "Traceback" not in ended.stderr
    page = Path(said[1].removeprefix("Its page: "))
    assert page.name == "data_docs.html"
    assert "action" in page.read_text()
    log = Path(said[-1].removeprefix("Everything it wrote: "))
    assert "Traceback" not in log.read_text()  # the broken row was foreseen
    assert not serving.exists()
