"""Components as plain functions: what they add to the one library call behind them."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from kfp import dsl

from car_model.evidence.base import EvidenceError
from car_model.evidence.drift import DataDrift
from components.data.ingest import ingest
from components.data.validate import validate
from components.gate.gate import gate
from components.gate.report import report
from components.gate.resolve_champion import resolve_champion
from components.serving.deploy import deploy
from components.serving.release import release
from ingestion.config import IngestError
from orchestration.run_request import RunRequest
from registry.channels.channel import head, history, list_channels
from registry.errors import ChannelError, ConflictError, RegistryError, ReleaseError, StoreError
from registry.maintenance.verify import verify
from registry.releases.gate import read_gate
from registry.releases.layout import manifest_name
from registry.releases.release import list_releases, read_manifest
from registry.store.open import open_store
from tests.pipeline.tiny_shop import write_shop
from tests.registry.bundles import INFRA, make_bundle, make_evidence, make_release, write_json
from validation.data.findings import ValidationError


def artifact(path: Path, **metadata: Any) -> dsl.Artifact:
    return dsl.Artifact(uri=str(path), metadata=metadata)


def ingested(folder: Path, data: Path) -> dsl.Artifact:
    arguments = RunRequest(
        data="custom", data_dir=str(data), downloads=folder, registry="", channel="production"
    ).arguments()
    dataset = artifact(folder / "dataset")
    ingest.python_func(
        source=arguments["source"], source_digest=arguments["source_digest"], cache="", dataset=dataset
    )
    return dataset


def evidence_artifacts(folder: Path, bundle: Path, **options: Any) -> dict[str, dsl.Artifact]:
    evidence = make_evidence(folder, bundle, **options)
    names = {"evaluation": "evaluation.json", "verdict": "verdict.json", "report": "report.html"}
    artifacts = {name: artifact(evidence[file], summary="Promoted.") for name, file in names.items()}
    write_json(folder / "infra", INFRA)
    artifacts["infra"] = artifact(folder / "infra")
    for name in ("golden", "data_docs", "profile"):
        path = folder / name
        path.write_text(name)
        artifacts[name] = artifact(path)
    return artifacts


RECIPE = json.dumps({"settings": {"epochs": 3}, "base": "default"})


def released(
    folder: Path,
    registry: Path,
    seed: int = 0,
    entry: int = 0,
    *,
    channel: str = "production",
    recipe: str = RECIPE,
    **options: Any,
) -> str:
    bundle = make_bundle(folder / f"bundle-{seed}", seed)
    return release.python_func(
        bundle=artifact(bundle), **evidence_artifacts(folder / f"evidence-{seed}", bundle, **options),
        recipe=recipe, registry=str(registry), channel=channel, champion="", entry=entry,
        run_id="run-1", git_commit="", promotion=artifact(folder / f"promotion-{seed}"),
    )  # fmt: skip


@pytest.mark.parametrize("module", ["pipeline", "orchestration.local.summary", "orchestration.local.runner"])
def test_the_command_line_starts_without_the_heavy_libraries(module: str) -> None:
    heavy = "{'torch', 'sentence_transformers', 'great_expectations', 'duckdb', 'ibis', 'matplotlib'}"
    code = f"import sys, {module}; print(*sorted({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""


def test_ingest_names_its_source_and_result(tmp_path: Path) -> None:
    dataset = ingested(tmp_path, write_shop(tmp_path / "shop"))
    report = json.loads((Path(dataset.path) / "report.json").read_text())
    assert dataset.metadata["digest"] == report["dataset_digest"]
    assert dataset.metadata["source"] == report["source_digest"]


def test_ingest_refuses_a_source_that_changed_since_the_run_was_asked_for(tmp_path: Path) -> None:
    shop = write_shop(tmp_path / "shop")
    arguments = RunRequest(
        data="custom", data_dir=str(shop), downloads=tmp_path, registry="", channel="production"
    ).arguments()
    write_shop(shop, extra=[("c1", "t2", 1_700_000_000, 3)])
    with pytest.raises(IngestError, match="tiny-shop changed since this run was asked for; run it again"):
        ingest.python_func(
            source=arguments["source"], source_digest=arguments["source_digest"], cache="",
            dataset=artifact(tmp_path / "dataset"),
        )  # fmt: skip


@pytest.mark.integration
def test_validate_compares_with_the_champions_profile(tmp_path: Path) -> None:
    dataset = ingested(tmp_path, write_shop(tmp_path / "shop"))
    champion = released(tmp_path, tmp_path / "registry")
    outputs = {name: artifact(tmp_path / name) for name in ("data_docs", "profile", "drift")}
    policy = '{"drift": {"max_retired_share": 1}}'  # the champion's items are none of the shop's
    arguments = {"dataset": dataset, "registry": str(tmp_path / "registry"), "policy": policy, **outputs}
    validate.python_func(champion="", **arguments)
    assert Path(outputs["profile"].path).suffix == ".json"
    assert Path(outputs["data_docs"].path).read_text().startswith("<!")
    assert DataDrift.read(outputs["drift"].path) == DataDrift(release=None)

    same = json.loads(Path(outputs["profile"].path).read_text())
    grown = {
        name: value * 9 if isinstance(value, int) and name != "format" else value
        for name, value in same.items()
    }
    for seed, profile in ((1, same), (2, grown)):
        bundle = make_bundle(tmp_path / f"bundle-{seed}", seed)
        evidence = evidence_artifacts(tmp_path / f"evidence-{seed}", bundle)
        Path(evidence["profile"].path).write_text(json.dumps(profile))
        champion = release.python_func(
            bundle=artifact(bundle), **evidence, recipe=RECIPE,
            registry=arguments["registry"], channel="production", champion=champion, entry=seed,
            run_id="run-2", git_commit="", promotion=artifact(tmp_path / f"promotion-{seed}"),
        )  # fmt: skip
        if profile is same:
            validate.python_func(champion=champion, **arguments)
            drift = json.loads(Path(outputs["drift"].path).read_text())
            assert (drift["release"], drift["users"]["ratio"]) == (champion, 1.0)
            assert (drift["activity"]["distance"], drift["popularity"]["distance"]) == (0.0, 0.0)
    with pytest.raises(ValidationError, match="users"):
        validate.python_func(champion=champion, **arguments)
    with pytest.raises(ValidationError, match="4 of the 4 items that production offers are no longer"):
        validate.python_func(champion=champion, **(arguments | {"policy": "{}"}))


def test_the_gate_does_not_bless_what_it_cannot_read(tmp_path: Path) -> None:
    evaluation = artifact(tmp_path / "evaluation.json", digest="e")
    arguments = {
        "evaluation": evaluation,
        "policy": "",
        "bootstrap": True,
        "forced": [],
        "verdict": artifact(tmp_path / "v"),
    }
    with pytest.raises(EvidenceError):
        gate.python_func(**arguments)
    (tmp_path / "evaluation.json").write_text("{}")
    assert gate.python_func(**arguments) is False
    verdict = arguments["verdict"]
    assert json.loads(Path(verdict.path).read_text())["blessed"] is False
    assert verdict.metadata["summary"].startswith("Not promoted")


def test_an_empty_registry_has_no_champion_and_a_damaged_one_is_an_error(tmp_path: Path) -> None:
    arguments: dict[str, Any] = {
        "registry": str(tmp_path / "registry"),
        "channel": "production",
        "new_channel": False,
    }
    assert tuple(resolve_champion.python_func(**arguments)) == ("", 0, [])
    release_digest = released(tmp_path, tmp_path / "registry")
    assert tuple(resolve_champion.python_func(**arguments)) == (release_digest, 1, [])
    manifest = tmp_path / "registry" / manifest_name(release_digest)
    text = manifest.read_text()
    manifest.chmod(0o644)
    manifest.write_text(text.replace("run-1", "run-2"))  # its evidence may have been replaced, too
    with pytest.raises(RegistryError, match="was changed or written anew after it was promoted"):
        resolve_champion.python_func(**arguments)
    manifest.write_text(text)
    for entry in (tmp_path / "registry" / "channels" / "production").iterdir():
        entry.chmod(0o644)
        entry.write_text("{")
    with pytest.raises(RegistryError):
        resolve_champion.python_func(**arguments)


def test_the_first_step_refuses_a_registry_that_a_run_could_not_leave_its_release_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken = tmp_path / "taken"
    taken.touch()
    with pytest.raises(StoreError, match=r"taken.*Not a directory"):
        resolve_champion.python_func(registry=str(taken), channel="production", new_channel=False)
    monkeypatch.setenv("KFP_POD_UID", "e1")  # in a pod
    for folder in (tmp_path / "registry", f"file://{tmp_path}/registry"):
        with pytest.raises(StoreError, match="is a folder, and on a cluster every step has its own disk"):
            resolve_champion.python_func(registry=str(folder), channel="production", new_channel=False)
    assert not (tmp_path / "registry").exists()


def test_a_trial_moves_its_own_channel_and_no_other(tmp_path: Path) -> None:
    registry = tmp_path / "registry"
    first = released(tmp_path, registry)
    arguments = {"registry": str(registry), "channel": "trial"}
    with pytest.raises(ChannelError, match="There is no channel 'trial'"):
        resolve_champion.python_func(**arguments, new_channel=False)
    assert tuple(resolve_champion.python_func(**arguments, new_channel=True)) == ("", 0, [])
    trial = released(tmp_path, registry, seed=1, channel="trial")
    store = open_store(registry)
    channels = {name: head(store, name) for name in list_channels(store)}
    assert {name: entry and entry.release for name, entry in channels.items()} == {
        "production": first,
        "staging": first,
        "trial": trial,
    }
    assert tuple(resolve_champion.python_func(**arguments, new_channel=False)) == (trial, 1, [])


def test_a_trial_that_is_run_again_for_production_is_compared_then(tmp_path: Path) -> None:
    """Equal content is one release: what the second run found out about it must not be lost."""
    registry = tmp_path / "registry"
    released(tmp_path, registry)
    trial = released(tmp_path, registry, seed=1, channel="trial", bootstrap=True)
    store = open_store(registry)
    manifest = read_manifest(store, trial)
    assert read_gate(store, manifest).word == "first"
    with pytest.raises(ReleaseError, match="was blessed as a first release, and never compared with"):
        released(tmp_path, registry, seed=1, entry=1, bootstrap=True)
    assert released(tmp_path, registry, seed=1, entry=1) == trial
    assert read_manifest(store, trial) == manifest
    assert read_gate(store, manifest).word == "blessed"
    entry = head(store, "production")
    assert (entry and entry.release) == trial
    assert verify(store).damage == []
    (later,) = (registry / "releases" / trial / "verdicts").iterdir()
    later.chmod(0o644)
    later.write_text("{}")
    assert read_gate(store, manifest).word == "first"
    assert [damage.object for damage in verify(store, trial).damage] == [
        f"releases/{trial}/verdicts/{later.name}"
    ]


@pytest.mark.integration
def test_a_champion_promoted_by_force_stands_out_in_verdict_and_report(tmp_path: Path) -> None:
    registry = tmp_path / "registry"
    first = released(tmp_path, registry)
    dataset = ingested(tmp_path, write_shop(tmp_path / "shop"))
    refused = make_release(open_store(str(registry)), tmp_path, seed=1, blessed=False).release

    def move(words: str) -> None:
        command = [sys.executable, "-m", "registry", *shlex.split(words), "--registry", str(registry)]
        subprocess.run(command, check=True, capture_output=True)

    def judged() -> tuple[dict[str, Any], str]:
        champion, _, forced = resolve_champion.python_func(
            registry=str(registry), channel="production", new_channel=False
        )
        evaluation = artifact(tmp_path / "evaluation.json", digest="e")
        verdict = artifact(tmp_path / "verdict")
        (tmp_path / "evaluation.json").write_text(json.dumps({"champion": {"release": champion}}))
        gate.python_func(evaluation=evaluation, policy="", bootstrap=False, forced=forced, verdict=verdict)
        page = artifact(tmp_path / "page")
        bundle = artifact(tmp_path / "bundle-1")
        report.python_func(
            dataset=dataset,
            bundle=bundle,
            evaluation=evaluation,
            verdict=verdict,
            recipe=RECIPE,
            run_id="run-1",
            git_commit="",
            page=page,
        )
        return json.loads(Path(verdict.path).read_text()), Path(page.path).read_text()

    move(f"promote {refused[:12]} --force --why 'withdrawn items must go now' --who ann@shop")
    verdict, page = judged()
    (forced,) = verdict["forced"]
    assert (forced["release"], forced["who"], forced["in_use"]) == (refused, "ann@shop", True)
    assert forced["failing"] == ["beats popularity"]
    for part in (
        "Forced champion",
        "ann@shop",
        "withdrawn items must go now",
        "failed it on: beats popularity",
    ):
        assert part in page, part

    move("rollback --why 'answers got worse' --who bob@oncall")
    verdict, page = judged()
    assert (verdict["champion"], [item["in_use"] for item in verdict["forced"]]) == (first, [False])
    assert "Forced champion" not in page
    assert "Forced before" in page


def test_releasing_twice_changes_nothing(tmp_path: Path) -> None:
    registry = tmp_path / "registry"
    first = released(tmp_path, registry)
    assert released(tmp_path, registry) == first
    store = open_store(registry)
    entry = head(store, "production")
    assert entry
    assert (entry.number, entry.release, entry.who) == (1, first, "pipeline run run-1")
    assert [(item.number, item.release) for item in history(store, "staging")] == [(1, first)]
    assert len(list_releases(store)) == 1
    assert "data_profile.json" in list_releases(store)[0].evidence


def test_a_channel_that_moved_since_the_gate_is_not_moved_again(tmp_path: Path) -> None:
    registry = tmp_path / "registry"
    first = released(tmp_path, registry)
    with pytest.raises(ConflictError):
        released(tmp_path, registry, seed=1, entry=0)
    store = open_store(registry)
    entry = head(store, "production")
    assert entry
    assert entry.release == first
    assert len(history(store, "staging")) == 2  # where the other one waits for somebody to decide


def test_without_a_server_to_roll_over_deploy_only_says_what_was_released(tmp_path: Path) -> None:
    deployment = artifact(tmp_path / "deployment")
    deploy.python_func(
        archive=artifact(tmp_path / "none.mar"), infra=artifact(tmp_path / "none.json"),
        golden=artifact(tmp_path / "none.json"), release="abc", registry="", channel="production", serving="",
        deployment=deployment,
    )  # fmt: skip
    assert json.loads(Path(deployment.path).read_text()) == {"release": "abc"}
