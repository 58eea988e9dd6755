"""The command line: tables, JSON and errors."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from registry.channels.channel import stage
from registry.cli.options import this_user
from registry.releases.release import write_release
from registry.store.open import open_store
from tests.registry.bundles import make_bundle, make_evidence, make_release
from tests.registry.conftest import Run


@pytest.fixture
def releases(url: str, tmp_path: Path) -> list[str]:
    """Digests of three releases: two were staged, the last one is not blessed."""
    store = open_store(url)
    releases = [make_release(store, tmp_path, seed, blessed=seed < 2).release for seed in range(3)]
    for release in releases[:2]:
        stage(store, release, who="ann", why="to be looked at")
    return releases


def test_an_empty_registry_says_so(run: Run, url: str) -> None:
    assert run("list") == (0, f"No releases in {url}.\n", "")
    assert run("list", "--json") == (0, "[]\n", "")
    assert run("history") == (0, f"The channel production in {url} is empty.\n", "")
    assert run("show", "abcd1234") == (1, "", f"There is no release abcd1234 in {url}.\n")
    assert run("show", "production")[0] == 1


def test_promote_list_show_history_rollback(run: Run, releases: list[str]) -> None:
    short = [release[:12] for release in releases]
    assert run("promote", short[0], "--why", "first") == (
        0,
        f"production now uses {short[0]} (entry 1, promote).\n",
        "",
    )
    run("promote", releases[1], "--why", "nightly", "--who", "ci@pipeline", "--expected", "1")
    assert run("promote", short[1], "--why", "twice")[1].startswith(
        f"production already uses {short[1]} (entry 2)"
    )
    run("promote", short[0], "--why", "try it", "--channel", "staging")
    code, out, _ = run("rollback", "--why", "answers got slow")
    assert (code, out) == (0, f"production now uses {short[0]} (entry 3, rollback, after {short[1]}).\n")

    listed = run("list")[1].splitlines()
    assert len(listed) == 5
    assert next(line for line in listed if short[0] in line).rstrip().endswith("production, staging")
    assert "FORCED" in next(line for line in listed if short[2] in line)
    rows = run("history")[1].splitlines()[2:]
    assert [row.split()[0] for row in rows] == ["3", "2", "1"]
    assert "rollback" in rows[0]
    assert ("ci@pipeline" in rows[1], this_user() in rows[2]) == (True, True)
    output = run("show", "staging")[1]
    for fact in (
        releases[0],
        "blessed",
        "production, staging",
        "recall@10   0.1310",
        "model/model.safetensors",
    ):
        assert fact in output


def test_json_output(run: Run, releases: list[str]) -> None:
    entry = json.loads(run("promote", releases[0], "--why", "first", "--json")[1])
    assert (entry["number"], entry["release"], entry["who"]) == (1, releases[0], this_user())
    assert json.loads(run("history", "--json")[1]) == [entry]
    listed = {release["release"]: release for release in json.loads(run("list", "--json")[1])}
    assert listed.keys() == set(releases)
    assert listed[releases[0]]["channels"] == ["production"]
    document = json.loads(run("show", "production", "--json")[1])
    assert document == listed[releases[0]] | {"validations": [], "recipe": None}
    undone = json.loads(run("rollback", "--to", releases[0][:8], "--why", "x", "--json")[1])
    assert undone == entry


def test_force_needs_its_flag_and_stands_out(run: Run, releases: list[str]) -> None:
    code, out, error = run("promote", releases[2][:8], "--why", "fire")
    assert (code, out) == (1, "")
    assert error.startswith(f"The gate did not bless release {releases[2][:12]}")
    assert error.count("\n") == 1
    assert run("promote", releases[2][:8], "--reason", "shop [red]down", "--force")[0] == 0
    assert "FORCE " in run("history")[1]
    assert "shop [red]down" in run("history")[1]
    shown = run("show", "production")[1]
    assert "FORCED" in shown
    assert "failing    beats popularity" in shown
    assert "forced     a test of the fire drill" in shown


def test_mistakes_give_a_one_sentence_error(run: Run, releases: list[str]) -> None:
    run("promote", releases[0], "--why", "first", "--who", "ann")
    mistakes = {
        ("promote", releases[1], "--why", "x", "--expected", "0"): "moved since entry 0: ann put release",
        ("promote", "abc", "--why", "x"): "too short",
        ("promote", "0" * 64, "--why", "x"): "There is no release",
        ("promote", releases[1], "--why", " "): "needs a name and a reason",
        ("promote", releases[2], "--why", " ", "--force"): "Forcing a release into production needs a reason",
        ("rollback", "--why", "x"): "no release before",
        ("rollback", "--why", "x", "--to", releases[1]): "never had release",
        ("history", "--channel", "No"): "cannot name a channel",
        (
            "history",
            "--channel",
            "prodution",
        ): "Did you mean production? A new one is made",
        ("rollback", "--channel", "trial", "--why", "x"): "There are: production, staging. A new one is made",
        ("promote", releases[1], "-c", "stagin", "--why", "x"): "Did you mean staging?",
        ("list", "--registry", "s3://bucket"): "neither a folder nor gs://",
    }
    for arguments, sentence in mistakes.items():
        code, out, error = run(*arguments)
        assert (code, out, error.count("\n")) == (1, "", 1), arguments
        assert sentence in error


def test_why_is_required(run: Run, releases: list[str]) -> None:
    for arguments in (("promote", releases[0]), ("rollback",)):
        code, _, error = run(*arguments)
        assert code == 2
        assert "--why" in error


def test_a_new_channel_is_asked_for_and_then_there(run: Run, releases: list[str]) -> None:
    move = ("promote", releases[0], "-c", "trial", "--why", "x")
    assert run(*move)[0] == 1
    assert run("list")[1].count("trial") == 0
    assert run(*move, "--new-channel")[1].startswith(f"trial now uses {releases[0][:12]} (entry 1")
    assert run("promote", releases[1], "-c", "trial", "--why", "x")[0] == 0
    assert "Did you mean trial?" in run("rollback", "-c", "trail", "--why", "x")[2]


def test_a_release_that_was_never_validated_is_refused_or_validated_before_the_channel_moves(
    run: Run, url: str, releases: list[str], tmp_path: Path
) -> None:
    store, bundle = open_store(url), make_bundle(tmp_path / "unproved", 7)
    release = write_release(store, bundle, make_evidence(tmp_path / "evidence", bundle)).release
    assert run("promote", release, "-c", "staging", "--why", "to look at it")[0] == 0
    code, out, error = run("promote", release, "--why", "x", "--no-validate")
    assert (code, out, error.count("\n")) == (1, "", 1)
    assert f"was never validated: run car infra-validate {release[:12]} --registry {url}" in error
    code, _, error = run("promote", release, "--why", "x")  # it has no golden answers to be validated with
    assert (code, "no evidence 'golden.json'" in error) == (1, True)
    assert run("history", "--json")[1] == "[]\n"
    # What the rules forbid is said first, before anything expensive.
    unstaged = write_release(
        store,
        make_bundle(tmp_path / "other", 8),
        make_evidence(tmp_path / "evidence-8", tmp_path / "other"),
    ).release
    assert "never in staging" in run("promote", unstaged, "--why", "x")[2]
    assert "needs a name and a reason" in run("promote", release, "--why", " ")[2]


@pytest.mark.integration
def test_the_module_runs_piped_in_80_columns_and_loads_no_model_code(tmp_path: Path) -> None:
    release = make_release(open_store(tmp_path / "registry"), tmp_path).release
    # Importing torch, numpy or the cloud library would make every command slow.
    code = (
        "import sys; sys.argv = ['registry', 'list']; import registry.__main__ as m\n"
        "try: m.main()\n"
        "finally: assert not {'torch', 'numpy', 'google.cloud.storage'} & set(sys.modules)"
    )
    environment = {key: value for key, value in os.environ.items() if key != "COLUMNS"}
    environment["CAR_REGISTRY"] = str(tmp_path / "registry")
    result = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    assert release[:12] in result.stdout
    assert max(len(line) for line in result.stdout.splitlines()) <= 80
    wrong = [sys.executable, "-m", "registry", "show", "ffffffff"]
    failed = subprocess.run(wrong, env=environment, capture_output=True, text=True, check=False)
    assert (failed.returncode, failed.stdout) == (1, "")
    assert failed.stderr == f"There is no release ffffffff in {tmp_path / 'registry'}.\n"


STEERING = ["\x1b[2J", "\x1b]0;title\x07", "\x9b31m", "\r", "\u202e", "\x00", "\u2028"]


@pytest.mark.parametrize("text", STEERING)
def test_nothing_that_is_printed_steers_the_terminal(
    run: Run, url: str, releases: list[str], text: str
) -> None:
    for option in ("--why", "--who"):
        others = [] if option == "--why" else ["--why", "x"]
        code, out, error = run("promote", releases[0], option, f"a{text}b", *others)
        assert not set(text.strip()) & set(out + error) & set("\x1b\x07\x9b\r\u202e\x00\u2028")
        if text.strip():  # what is only white space is written as a space
            assert (code, "cannot stand in the history" in error) == (1, True)
    # Entries and manifests of others may hold anything.
    store = open_store(url)
    entry = store.read("channels/staging/00000002.json").decode()
    written = json.dumps(f"a{text}b")[1:-1]
    store.create("channels/canary/00000001.json", _first(entry, written).encode())
    move = ("promote", releases[0], "-c", "canary", "--why", "x", "--expected", "0")
    for arguments in (("history", "-c", "canary"), move):
        _, out, error = run(*arguments)
        assert text not in out + error, arguments
        assert "a" in out + error


def _first(entry: str, why: str) -> str:
    """An entry as the first of its channel, with another reason."""
    content = json.loads(entry) | {"number": 1, "previous": None, "after": None, "why": "WHY", "who": "WHY"}
    return json.dumps(content).replace("WHY", why)


def test_reasons_of_any_language_are_kept_and_endless_ones_refused(run: Run, releases: list[str]) -> None:
    why = "besser bei neuen Artikeln: größer, 更好, 👩\u200d🔬"
    assert run("promote", releases[0], "--why", f"  {why}\n ", "--who", "Ünal")[0] == 0
    entry = json.loads(run("history", "--json")[1])[0]
    assert (entry["why"], entry["who"]) == (why, "Ünal")
    code, _, error = run("promote", releases[1], "--why", "x" * 2001)
    assert (code, "write at most 2000 characters" in error) == (1, True)


def test_list_and_show_tell_the_policy_and_who_was_refused(run: Run, url: str, releases: list[str]) -> None:
    shown = run("show", releases[0])[1]
    assert "9" * 64 in shown
    assert "8" * 64 in shown
    listed = json.loads(run("list", "--json")[1])
    gates = {item["release"]: item["gate"] for item in listed}
    assert [gates[release]["blessed"] for release in releases] == [True, True, False]
    assert {gate["policy"] for gate in gates.values()} == {"9" * 64}
