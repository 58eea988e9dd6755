"""The command line `car`: its commands, exit codes, and the doors to it."""

import importlib
import inspect
import os
import subprocess
import sys
import tomllib
from importlib.metadata import version
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from common.cli import command_group
from common.errors import UserError
from common.home import Home
from orchestration.resources import CompileOptions
from pipeline import app, build, build_for_cluster
from serving.torchserve.state_dir import DeployedRelease, ServedChannel, StateDir

ROOT = Path(__file__).parents[2]
COMMANDS = {"run", "compile", "submit", "deploy", "infra-validate", "serve", "ask", "stop", "registry"} | {
    "watch",
    "runs",
    "logs",
    "local-runs",
    "clean",
}
REGISTRY_COMMANDS = {"list", "show", "history", "promote", "rollback", "diff", "onboard", "gc", "verify"}


def invoke(*arguments: str):
    return CliRunner().invoke(app, arguments)


@pytest.fixture
def in_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty current folder."""
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    for name in ("CAR_REGISTRY", "CAR_HOME"):
        monkeypatch.delenv(name, raising=False)
    return folder


def test_the_entry_point_is_the_pipelines_app() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    module, _, name = project["scripts"]["car"].partition(":")
    assert getattr(importlib.import_module(module), name) is app


def test_every_command_is_there_and_has_a_help_text() -> None:
    group = typer.main.get_command(app)
    assert group.commands.keys() >= COMMANDS
    assert group.commands["registry"].commands.keys() == REGISTRY_COMMANDS
    for commands in (group.commands, group.commands["registry"].commands):
        for name, command in commands.items():
            assert command.help, name
            assert all(getattr(option, "help", "") for option in command.params), name


def test_version_and_completion() -> None:
    result = invoke("--version")
    assert (result.exit_code, result.output) == (0, f"car {version('car-on-kubeflow')}\n")
    assert "--install-completion" in invoke("--help").output


def test_run_documents_its_exit_codes() -> None:
    text = " ".join(invoke("run", "--help").output.split())
    assert "Exit codes: 0 promoted and served, 1 failed, 2 wrong usage, 3 not promoted." in text


def test_wrong_usage_is_2_and_a_failure_is_1_with_one_sentence(tmp_path: Path) -> None:
    assert invoke("run", "--epochs", "none").exit_code == 2
    assert invoke("walk").exit_code == 2
    result = invoke("run", "--data", "netflix")
    assert result.exit_code == 1
    assert result.output.startswith("There is no dataset 'netflix'")
    result = invoke("registry", "show", "ffffffff", "--registry", str(tmp_path / "registry"))
    assert (result.exit_code, result.output) == (
        1,
        f"There is no release ffffffff in {tmp_path / 'registry'}.\n",
    )


def test_a_mistyped_channel_is_refused_before_anything_happens(in_folder: Path) -> None:
    for channel, hint in (
        ("prodution", "Did you mean production?"),
        ("trial", "There are: production, staging."),
    ):
        result = invoke("run", "--channel", channel)
        assert (result.exit_code, result.output.count("\n")) == (1, 1)
        assert (
            f"There is no channel '{channel}' in .car/movielens/registry. {hint} A new one is made with "
            in (result.output)
        )
    assert list(in_folder.iterdir()) == []


def test_a_run_takes_no_server_that_answers_for_another_channel(in_folder: Path) -> None:
    state = StateDir(Home.of_data("movielens").server("production"))
    state.create()
    ServedChannel.of(state, "production", ".car/movielens/registry").write(state)
    DeployedRelease(release="a" * 64, version="1", archive="a.mar", sha256="b" * 64).write(state)
    trial = ("run", "--channel", "trial", "--new-channel", "--serving", str(state.root))
    for words in (trial, ("run", "--registry", "other", "--serving", str(state.root))):
        result = invoke(*words)
        assert (result.exit_code, result.output.count("\n")) == (1, 1)
        assert (
            f"The server in {state.root} answers for production of {in_folder}/.car/movielens"
            in result.output
        )
    moved = in_folder.rename(in_folder.with_name("moved"))  # registry and server together
    os.chdir(moved)
    again = StateDir(Home.of_data("movielens").server("production"))
    ServedChannel.of(again, "production", ".car/movielens/registry").check(again)


def test_stop_all_says_what_it_stopped_and_which_home_is_damaged(in_folder: Path) -> None:
    assert invoke("stop", "--all").output == "No server runs.\n"
    tea, books = Home.of_data("custom", "tea"), Home.of_data("custom", "books")
    for home in (tea, books):
        home.server("production").mkdir(parents=True)
        home.select()
    (in_folder / ".car" / tea.name / "home.json").write_text("{")
    result = CliRunner().invoke(app, ["stop", "--all"])
    assert (result.exit_code, result.stdout) == (0, "No server runs.\n")
    assert result.stderr == f".car/{tea.name}/home.json is damaged; run the pipeline on that dataset again.\n"
    assert invoke("--home", books.name, "stop").output == (
        f"No server runs in {in_folder}/.car/{books.name}/serving/production.\n"
    )


def test_commands_in_another_folder_say_where_they_looked(in_folder: Path) -> None:
    for words in (("registry", "list"), ("deploy",), ("registry", "history")):
        result = invoke(*words)
        assert (result.exit_code, result.output.count("\n")) == (1, 1), words
        assert f"No run has made a home in {in_folder}/.car: go to the folder in which" in result.output
    result = invoke("ask")
    assert f"No TorchServe runs in {in_folder}/.car/movielens/serving/production" in result.output


@pytest.mark.parametrize(
    ("error", "code", "text"),
    [
        (UserError("Do something else."), 1, "Do something else.\n"),
        (FileNotFoundError(2, "No such file or directory", "a.csv"), 1, "a.csv cannot be used: No such file"),
        (OSError(28, "No space left on device", "a.csv"), 1, "There is no room for a.csv"),
        (KeyboardInterrupt(), 130, "Stopped; run again to continue"),
    ],
)
def test_expected_errors_of_any_command_are_one_sentence(error: BaseException, code: int, text: str) -> None:
    group, inner = command_group("A group."), command_group("An inner group.")
    group.add_typer(inner, name="inner")

    @inner.command()
    def fail() -> None:
        raise error

    @inner.command()
    def succeed() -> None:
        pass

    result = CliRunner().invoke(group, ["inner", "fail"])
    assert result.exit_code == code
    assert result.output.startswith(text)
    assert result.output.count("\n") == 1


def test_an_unexpected_error_keeps_its_traceback() -> None:
    group = command_group("A group.")

    @group.command()
    def fail() -> None:
        raise KeyError("x")

    @group.command()
    def succeed() -> None:
        pass

    assert isinstance(CliRunner().invoke(group, ["fail"]).exception, KeyError)


@pytest.mark.integration
@pytest.mark.parametrize(
    ("door", "commands"),
    [
        (["pipeline.py"], COMMANDS),
        (["-m", "registry"], REGISTRY_COMMANDS),
        (["-m", "serving"], {"deploy", "infra-validate", "serve", "ask", "stop"}),
    ],
)
def test_the_doors_lead_to_the_same_commands(door: list[str], commands: set[str]) -> None:
    result = subprocess.run(
        [sys.executable, *door, "--help"],
        cwd=ROOT,
        env={**os.environ, "COLUMNS": "100"},
        capture_output=True,
        text=True,
        check=True,
    )
    words = set(result.stdout.split())
    assert commands <= words


def test_make_names_the_exit_code_of_a_run_that_was_not_promoted() -> None:
    result = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True, check=True)
    assert 'Error 3" means the gate did not promote' in result.stdout


def test_both_pipelines_take_the_same_parameters() -> None:
    local = build().pipeline_func
    cluster = build_for_cluster(CompileOptions()).pipeline_func
    assert inspect.signature(local).parameters == inspect.signature(cluster).parameters
    assert local.__doc__ == cluster.__doc__
