"""From the command line to the pipeline's parameters."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest

from common.errors import UserError
from ingestion.config import parse_config
from orchestration.run_request import ArgumentError, RunRequest, git_commit
from tests.pipeline.tiny_shop import write_shop
from validation.gate.policy import DEFAULT_POLICY


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    return write_shop(tmp_path / "shop")


def request_for(shop: Path, **changes: Any) -> RunRequest:
    options = {"data": "custom", "data_dir": str(shop), "downloads": shop / "cache", "registry": "releases"}
    return RunRequest(**{**options, **changes})


def test_what_is_not_asked_for_keeps_the_pipelines_default(shop: Path) -> None:
    arguments = request_for(shop).arguments()
    assert not {"encoder", "gate_policy"} & set(arguments)
    assert (arguments["recipe"], arguments["changes"]) == ("champion", "{}")


def test_what_is_asked_for_reaches_the_pipeline(shop: Path) -> None:
    policy = shop / "policy.yaml"
    policy.write_text(DEFAULT_POLICY.read_text())
    request = request_for(
        shop, encoder="some/encoder", n_levels=2, codebook_size=0, epochs=3, seed=7, changes=["d_model=32"],
        gate_policy=str(policy), bootstrap=True,
    )  # fmt: skip
    arguments = request.arguments()
    assert json.loads(arguments["changes"]) == {
        "epochs": 3, "seed": 7, "d_model": 32, "n_levels": 2, "codebook_size": 0,
        "encoder.name": "some/encoder",
    }  # fmt: skip
    assert arguments["gate_policy"] == policy.read_text()
    assert arguments["bootstrap"] is True


def test_steps_find_sources_and_folders_from_wherever_they_run(
    shop: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(shop.parent)
    request = request_for(Path("shop"), serving="server", cache="", checkpoints="gs://bucket/x")
    arguments = request.arguments()
    assert arguments["registry"] == str(shop.parent / "releases")
    assert arguments["serving"] == str(shop.parent / "server")
    assert (arguments["cache"], arguments["checkpoints"]) == ("", "gs://bucket/x")
    assert Path(parse_config(arguments["source"]).items.location) == shop / "teas.csv"


def test_the_source_digest_follows_the_content(shop: Path) -> None:
    first = request_for(shop).arguments()["source_digest"]
    assert request_for(shop).arguments()["source_digest"] == first
    with (shop / "orders.csv").open("a") as orders:
        orders.write("c1,t1,1700000000,3\n")
    assert request_for(shop).arguments()["source_digest"] != first


def test_a_file_overrides_the_datasets_policy_which_overrides_the_defaults(shop: Path) -> None:
    digest = request_for(shop).arguments()["source_digest"]
    settings = json.loads((shop / "dataset.json").read_text())
    settings["data_policy"] = {"min_users": 3, "action_max": 9, "drift": {"max_ratio": 2, "min_ratio": 0.4}}
    (shop / "dataset.json").write_text(json.dumps(settings))
    file = shop / "policy.yaml"
    file.write_text("earliest: 1900-01-01\nmin_users: 4\ndrift:\n  max_ratio: 3\n")
    first, second = (request_for(shop, data_policy=path).arguments() for path in ("", str(file)))
    policies = [json.loads(arguments["data_policy"]) for arguments in (first, second)]
    assert [policy["min_users"] for policy in policies] == [3, 4]
    assert [policy["drift"]["max_ratio"] for policy in policies] == [2, 3]
    assert {policy["drift"]["min_ratio"] for policy in policies} == {0.4}
    assert [(policy["action_min"], policy["action_max"]) for policy in policies] == [(1, 9), (1, 9)]
    assert policies[1]["earliest"] == "1900-01-01T00:00:00Z"
    assert first["source_digest"] == digest  # no other data, so ingest stays in the cache
    assert first["source"] == second["source"] == request_for(write_shop(shop)).arguments()["source"]


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("earlist: 1900-01-01", "there is no setting 'earlist'; there are: min_interactions, min_users"),
        ("- 1", 'must hold settings, such as {"min_users": 50}.'),
        ("", "must hold settings"),
        ("min_users: many", "'min_users' is 'many'"),
        ("action_min: .nan", "'action_min' is nan: input should be a finite number"),
        ("drift: 3", "'drift' is 3: input should be an object"),
        ("a: [", "is not valid YAML: while parsing a flow node expected the node content"),
        ("\x00", "is not valid YAML"),
    ],
)
def test_a_wrong_data_policy_is_named_before_anything_runs(shop: Path, text: str, sentence: str) -> None:
    file = shop / "policy.yaml"
    file.write_text(text)
    with pytest.raises(ArgumentError) as refused:
        request_for(shop, data_policy=str(file)).arguments()
    assert sentence in str(refused.value)
    assert str(refused.value).startswith(str(file))


def test_the_range_of_actions_becomes_the_data_policys(shop: Path) -> None:
    policy = json.loads(request_for(shop).arguments()["data_policy"])
    assert (policy["action_min"], policy["action_max"]) == (1, 5)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"data": "netflix"}, "There is no dataset 'netflix'"),
        ({"data_dir": ""}, "needs DATA_DIR"),
        ({"data_dir": "/nowhere"}, "/nowhere/dataset.json does not exist"),
        ({"recipe": "chmpion"}, "--recipe chmpion: no such file can be read"),
        ({"changes": ["epoch=3"]}, "--set: there is no setting 'epoch'; near it: epochs"),
        ({"changes": ["width=96"]}, "--set: there is no setting 'width'; near it: d_model"),
        ({"changes": ["d_model=wide"]}, "--set: 'd_model' is 'wide'"),
        ({"changes": ["d_model"]}, "--set d_model: write NAME=VALUE, such as d_model=96."),
        ({"changes": ["ranker=on"]}, "--set: 'ranker' is 'on'"),
        ({"changes": ["ranker.stars=4"]}, "--set: there is no setting 'ranker.stars'"),
        ({"training": False, "epochs": 3}, "--no-train: nothing is trained with --no-train, so epochs would"),
        ({"gate_policy": "/nowhere.yaml"}, "Gate policy /nowhere.yaml cannot be read"),
    ],
)
def test_a_wrong_setting_is_told_before_anything_runs(
    shop: Path, changes: dict[str, str], sentence: str
) -> None:
    with pytest.raises(UserError, match=sentence.replace("{", r"\{")):
        request_for(shop, **changes).arguments()


def test_a_cluster_is_not_sent_after_files_of_this_machine(shop: Path) -> None:
    with pytest.raises(
        ArgumentError, match=f"A cluster cannot read {shop}/orders.csv; put the files on gs://"
    ):
        request_for(shop, registry="gs://shop/registry").arguments(remote=True)


def test_settings_that_kubeflow_cannot_pass_to_steps_are_refused(
    shop: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("orchestration.run_request.is_gcs", lambda _: True)  # nothing of it is read
    policy = shop / "policy.yaml"
    policy.write_text(DEFAULT_POLICY.read_text() + 100_000 * "#")
    request = request_for(shop, registry="gs://shop/registry", gate_policy=str(policy))
    with pytest.raises(
        ArgumentError, match=r"settings of this run take 1\d\d,\d+ bytes.*longest is gate_policy"
    ):
        request.arguments(remote=True)


def test_a_commit_is_named_with_what_differs_from_it(tmp_path: Path) -> None:
    assert git_commit(tmp_path) == ""
    file = tmp_path / "code.py"
    file.write_text("1")
    author = ["-c", "user.name=a", "-c", "user.email=a@example.org"]
    for words in (["init"], ["add", "code.py"], [*author, "commit", "--no-gpg-sign", "-m", "first"]):
        subprocess.run(["git", "-C", str(tmp_path), *words], check=True, capture_output=True)
    commit = git_commit(tmp_path)
    assert re.fullmatch("[0-9a-f]{40}", commit)
    (tmp_path / "notes.txt").touch()  # of no commit
    assert git_commit(tmp_path) == commit
    file.write_text("2")
    assert git_commit(tmp_path) == f"{commit}-dirty"


@pytest.mark.parametrize(
    ("text", "settings"),
    [
        ("epochs: 3\nlearning_rate: 1e-3\nranker:\n  liked: 4\n", {"epochs": 3, "ranker": {"liked": 4}}),
        ('{"ranker": "off", "tied": false}', {"ranker": "off", "tied": False}),
    ],
)
def test_a_recipe_is_a_file_of_yaml_or_json(shop: Path, text: str, settings: dict[str, Any]) -> None:
    file = shop / "recipe.yaml"
    file.write_text(text)
    recipe = json.loads(request_for(shop, recipe=str(file)).arguments()["recipe"])
    assert settings.items() <= recipe.items()


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("- 1", "the file must hold settings by name, such as d_model: 96."),
        ("", "the file must hold settings by name"),
        ("a: [", "the file is not valid YAML: while parsing a flow node"),
        ("epoch: 3", "there is no setting 'epoch'; near it: epochs"),
        ("ranker: {like: 4}", "there is no setting 'ranker.like'; near it: ranker.liked"),
        ("d_model: wide", "'d_model' is 'wide'"),
        ("epochs: 2026-01-01", "the file is not valid YAML"),
    ],
)
def test_a_wrong_recipe_file_is_named_before_anything_runs(shop: Path, text: str, sentence: str) -> None:
    file = shop / "recipe.yaml"
    file.write_text(text)
    with pytest.raises(ArgumentError) as refused:
        request_for(shop, recipe=str(file)).arguments()
    assert str(refused.value).startswith(f"--recipe {file}: ")
    assert sentence in str(refused.value)
