"""Live a user's first month: `make month` runs the product as its users do, week by week.

The interactions of a dataset are cut by time into four weeks. Every step of the month is a few commands of
`car`. After each one, the summary, the registry, the server's answer and the report must say the same. What
they say differently is printed and counted; the month goes on, so that one run shows everything.

This is a script and no test: its steps follow from each other for about ten minutes, and its output is a
diary to read. `--steps` lives only some of them; without the first, in the folder of an earlier month.
"""

from __future__ import annotations

import argparse
import html
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from ingestion.ingest import ingest
from ingestion.sources import resolve

ROOT = Path(__file__).resolve().parent.parent
WEEKS = (0.55, 0.7, 0.85, 1.0)  # share of the interactions that are there by the end of each week
NEW_ITEMS = 5  # onboarded at noon; they never get an interaction
RECIPE = {"epochs": 3, "d_model": 32, "n_layers": 1, "max_history": 20}  # small: the month is not a benchmark
DISK = "4m"  # size of the disk that gets full
PATIENCE = 120  # seconds for a killed server to be back
PROMOTED, FAILED, NOT_PROMOTED = 0, 1, 3  # exit codes of `car run`
POLICY = """
conditions:
  - name: finds something
    metric: models.challenger.recall@10.mean
    at_least: {recall}
    severity: block
    why: The month's models are small.
  - name: not half as good as {model}
    metric: paired.{model}.ndcg@10.relative
    at_least: -0.5
    severity: block
    why: The month's models are small.
  - name: not far below the champion
    metric: paired.champion.ndcg@10.low
    at_least: -0.99
    severity: block
    when: champion
    why: The month's models are small.
"""


@dataclass
class Done:
    """A command that ended."""

    code: int
    output: str

    def line(self, name: str) -> str:
        """What the summary says after a name, such as `Release`."""
        match = re.search(rf"^{name} +(\S.*)$", self.output, flags=re.MULTILINE)
        return match[1] if match else ""


@dataclass
class Month:
    """One month in a folder of its own."""

    folder: Path
    findings: list[str] = field(default_factory=list)
    step: str = ""

    def car(self, *words: str, code: int | None = 0, before: Sequence[str] = ()) -> Done:
        """Run a command in the month's folder; another exit code than expected is a finding."""
        started = time.monotonic()
        command = [*before, sys.executable, str(ROOT / "pipeline.py"), *words]
        ended = subprocess.run(
            command, cwd=self.folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
        )
        print(
            f"  car {' '.join(words)}: {ended.returncode} after {time.monotonic() - started:.0f} s",
            flush=True,
        )
        with (self.folder / "diary.log").open("a") as diary:
            diary.write(f"\n=== {self.step}: car {' '.join(words)}\n{ended.stdout}exit {ended.returncode}\n")
        done = Done(ended.returncode, ended.stdout)
        self.expect(
            code is None or done.code == code, f"exit code {done.code}, not {code}: {done.output[-600:]}"
        )
        self.expect("Traceback" not in done.output, f"a traceback: {done.output[-900:]}")
        return done

    def run(self, *words: str, code: int = 0, before: Sequence[str] = ()) -> Done:
        """`car run` on the data of now."""
        policy = () if "--gate-policy" in words else ("--gate-policy", "policy.yaml")
        return self.car(
            "run", "--data", "custom", "--data-dir", "shop", *policy, *words, code=code, before=before
        )

    def expect(self, fact: object, finding: str) -> None:
        """Note a finding unless the fact holds."""
        if not fact:
            self.findings.append(f"{self.step}: {finding}")
            print(f"  FOUND {finding}", flush=True)

    def json(self, *words: str) -> Any:
        """What a command prints as JSON; None if it is none."""
        try:
            return json.loads(self.car(*words).output)
        except ValueError:
            return None

    def release(self, channel: str = "production") -> str:
        """The release that a channel uses; "" for none."""
        entries = self.json("registry", "history", "--channel", channel, "--json")
        return str(entries[0]["release"]) if entries else ""

    def agree(self, run: Done | None = None, channel: str = "production") -> dict[str, Any]:
        """Compare registry, answer and, of a run that promoted, summary and report; returns the manifest."""
        release = self.release(channel)
        shown = self.json("registry", "show", channel, "--json") or {}
        self.expect(shown.get("release") == release, f"show says {shown.get('release')}, history {release}")
        words = ("--channel", channel) if channel != "production" else ()
        answer = self.json("ask", "--history", self.history(), "--raw", *words) or {}
        self.expect(
            answer.get("release") == release,
            f"the server answers with {answer.get('release')}, {channel} uses {release}",
        )
        if run is None:
            return shown
        self.expect(
            run.line("Release").startswith(release), f"the summary says release {run.line('Release')}"
        )
        page = self.page(run)
        for what, text in (
            ("release", release),
            ("run", run.line("Run").partition(",")[0] or "?"),
            ("recipe", html.escape(run.line("Recipe"))),
            ("data", shown.get("versions", {}).get("data", "?")),
        ):
            self.expect(text in page, f"the report does not name the {what} {text}")
        for name, value in (shown.get("recipe") or {}).get("settings", {}).items():
            self.expect(name in page, f"the report does not show the setting {name} ({value})")
        return shown

    def page(self, run: Done) -> str:
        """The report that a run's summary names."""
        path = Path(run.line("Report"))
        self.expect(path.is_file(), f"the summary names no report that is there: {path}")
        return path.read_text() if path.is_file() else ""

    def history(self) -> str:
        """Three items that a user of the first week took."""
        return ",".join((self.folder / "history.txt").read_text().split())

    def week(self, number: int) -> None:
        """Put the data of a week's end into the shop's folder."""
        for path in (self.folder / f"week-{number}").iterdir():
            shutil.copy2(path, self.folder / "shop" / path.name)


def first_run(month: Month) -> None:
    """Monday: the first run, by a recipe of one's own."""
    settings = [word for name, value in RECIPE.items() for word in ("--set", f"{name}={value}")]
    run = month.run("--bootstrap", *settings)
    shown = month.agree(run)
    month.expect(
        RECIPE.items() <= settings_of(shown).items(), f"show has another recipe: {settings_of(shown)}"
    )
    month.expect(str(shown.get("run_id")) in run.line("Run"), f"the release's run is {shown.get('run_id')}")
    again = month.run("--bootstrap")
    month.expect(
        month.agree(again).get("release") == shown.get("release"), "an equal run made another release"
    )


def retrain(month: Month) -> None:
    """The second week: retrained on new data, without a word about the recipe."""
    before = month.release()
    month.week(2)
    shown = month.agree(run := month.run())
    month.expect(shown.get("release") != before, "new data made no new release")
    month.expect(shown.get("parent") == before, f"the parent is {shown.get('parent')}, not {before}")
    month.expect(before[:12] in run.line("Recipe"), f"the recipe is not the champion's: {run.line('Recipe')}")
    month.expect(
        RECIPE.items() <= settings_of(shown).items(), f"the recipe was forgotten: {settings_of(shown)}"
    )


def onboard(month: Month) -> None:
    """Noon: new items, put in use by the commands that onboard prints."""
    before = month.release()
    done = month.car("registry", "onboard", "new_items.csv")
    commands = re.findall(r"\bcar (registry promote \w+.*|deploy \w+.*)$", done.output, flags=re.MULTILINE)
    month.expect(commands, f"onboard prints no commands: {done.output}")
    for command in commands:
        month.car(*shlex.split(command, comments=True))
    month.expect(
        any(command.startswith("deploy production") for command in commands), "the commands end early"
    )
    shown = month.agree()
    month.expect(shown.get("parent") == before, "the onboarded release is not in production")
    month.expect(settings_of(shown), "an onboarded release forgets the recipe")
    check_new_items(month, "after onboarding")


def next_run(month: Month) -> None:
    """The third week: the onboarded items stay, although nobody took one yet."""
    month.week(3)
    shown = month.agree(month.run())
    month.expect(
        RECIPE.items() <= settings_of(shown).items(), f"the recipe was forgotten: {settings_of(shown)}"
    )
    check_new_items(month, "after the next run")


def trial(month: Month) -> None:
    """A trial of a wider model on a channel of its own; production notices nothing."""
    before = month.release()
    done = month.run("--channel", "trail", "--set", "d_model=48", code=FAILED)
    month.expect("--new-channel" in done.output, f"a mistyped channel is not refused: {done.output[-300:]}")
    run = month.run("--channel", "trial", "--new-channel", "--bootstrap", "--set", "d_model=48")
    month.expect(month.release("trial") != before, "the trial released what production has")
    month.agree(run, "trial")
    month.expect(month.agree().get("release") == before, "the trial moved production")


def promoted_recipe(month: Month) -> None:
    """The trial's release is promoted, and the next plain run trains by its recipe."""
    chosen = month.release("trial")
    for channel in ("staging", "production"):
        done = month.car("registry", "promote", chosen[:12], "-c", channel, "--why", "wider", code=None)
        if done.code:
            month.expect("--force" in done.output, f"a refusal without a way out: {done.output[-400:]}")
            month.car("registry", "promote", chosen[:12], "-c", channel, "--why", "wider", "--force")
    month.car("deploy", "production")
    month.expect(month.agree().get("release") == chosen, "the promoted release is not served")
    month.week(4)
    shown = month.agree(run := month.run())
    month.expect(
        settings_of(shown).get("d_model") == 48, f"the promoted recipe was forgotten: {settings_of(shown)}"
    )
    month.expect(
        chosen[:12] in run.line("Recipe"), f"the recipe is not the promoted release's: {run.line('Recipe')}"
    )


def bad_release(month: Month) -> None:
    """A bad model: the gate refuses it; a careless policy lets it through, and it is rolled back."""
    good = month.release()
    bad = ("--set", "epochs=1", "--set", "learning_rate=1e-9", "--set", "think_weight=0")
    refused = month.run(*bad, "--gate-policy", "strict.yaml", code=NOT_PROMOTED)
    month.expect("Not promoted" in refused.output, "a refused run does not say so")
    month.expect("Not promoted" in month.page(refused), "the report of a refused run does not say so")
    month.expect(month.agree().get("release") == good, "a refused run moved production")
    shown = month.agree(month.run(*bad, "--gate-policy", "careless.yaml"))
    month.expect(shown.get("release") != good, "the careless policy promoted nothing")
    month.car("registry", "rollback", "--why", "complaints")
    month.car("deploy", "production")
    month.expect(month.agree().get("release") == good, "the rollback is not served")


def dead_server(month: Month) -> None:
    """The server is killed, and then its folder deleted."""
    home = json.loads((month.folder / ".car" / home_name(month) / "home.json").read_text())
    serving = next((month.folder / ".car" / home["name"]).rglob("server.json"), None)
    if serving is None:
        month.expect(False, "the server left no record")
        return
    os.kill(json.loads(serving.read_text())["pid"], signal.SIGKILL)
    deadline = time.monotonic() + PATIENCE
    while (done := month.car("ask", "--history", month.history(), "--raw", code=None)).code:
        month.expect("Traceback" not in done.output, "asking a dead server gives a traceback")
        if time.monotonic() > deadline:
            month.car("deploy", "production")
            break
        time.sleep(5)
    month.agree()
    shutil.rmtree(serving.parent)
    done = month.car("ask", "--history", month.history(), code=None)
    month.expect(
        done.code == 1 and done.output.count("\n") <= 2, f"no sentence without a server: {done.output}"
    )
    month.car("deploy", "production")
    month.agree()


def full_disk(month: Month) -> None:
    """The disk gets full in a run: one sentence, nothing moves, and the next run goes on."""
    before = month.release()
    script = f'mount -t tmpfs -o size={DISK} none .car/runs || exit 77; exec "$@"'
    unshared = ("unshare", "--user", "--map-root-user", "--mount", "bash", "-c", script, "-")
    done = month.run("--set", "seed=5", code=FAILED, before=unshared)
    month.expect("room" in done.output, f"a full disk is not said: {done.output[-400:]}")
    month.expect(month.agree().get("release") == before, "a full disk moved production")
    month.agree(month.run())


def tidy(month: Month) -> None:
    """Old runs are removed; what is in use stays."""
    before = month.release()
    plan = month.car("clean", "--keep", "1", "--dry-run")
    done = month.car("clean", "--keep", "1")
    month.expect(
        re.sub(r"^.*?: ", "", plan.output) and "MB" in done.output, f"clean says little: {done.output}"
    )
    month.expect(month.agree().get("release") == before, "cleaning changed what is served")
    month.agree(month.run())


STEPS: tuple[Callable[[Month], None], ...] = (
    first_run, retrain, onboard, next_run, trial, promoted_recipe, bad_release, dead_server, full_disk, tidy,
)  # fmt: skip


def settings_of(shown: dict[str, Any]) -> dict[str, Any]:
    """The recipe's settings that `registry show` names."""
    return dict((shown.get("recipe") or {}).get("settings", {}))


def home_name(month: Month) -> str:
    """The home of the month's dataset."""
    return (month.folder / ".car" / "selected-home").read_text().strip()


def check_new_items(month: Month, when: str) -> None:
    """Every onboarded item is known to the server."""
    items = pd.read_csv(month.folder / "new_items.csv", dtype=str)["item_id"].tolist()
    answer = month.json("ask", "--history", ",".join(items), "--raw") or {}
    month.expect(not answer.get("skipped"), f"{when}, the server does not know {answer.get('skipped')}")


def prepare(folder: Path, data: str, data_dir: str | None, users: int) -> None:
    """Write four weeks of a dataset, its new items, and the gate policies."""
    config = resolve(data, data_dir, folder.parent / "downloads")
    ingest(config, folder / "ingested", folder.parent / "downloads")
    interactions = pd.read_parquet(folder / "ingested" / "interactions.parquet")
    items = pd.read_parquet(folder / "ingested" / "items.parquet")
    if "timestamp" not in interactions:
        sys.exit(f"{data} has no times, so it can't be cut into weeks.")
    chosen = interactions["user_id"].drop_duplicates().sort_values().head(users)
    interactions = interactions[interactions["user_id"].isin(chosen)].sort_values("timestamp", kind="stable")
    interactions["timestamp"] = interactions["timestamp"].dt.as_unit("s").astype("int64")
    counts = interactions["item_id"].value_counts()
    items = items[items["item_id"].isin(counts[counts >= 5].index)]
    new = items.index.isin(items["item_id"].map(counts).nsmallest(NEW_ITEMS).index)
    columns = ["user_id", "item_id", "timestamp", *(["action"] if "action" in interactions else [])]
    texts = [name for name in items.columns if name != "item_id"]
    known = interactions[interactions["item_id"].isin(items["item_id"][~new])][columns]
    settings = {
        "name": "month",
        "interactions": {
            "location": "interactions.csv",
            "columns": {name: name for name in columns},
            "timestamp_unit": "epoch_s",
        },
        "items": {"location": "items.csv", "columns": {name: name for name in ("item_id", *texts)}},
        "action_min": config.action_min,
        "action_max": config.action_max,
    }
    for number, share in enumerate(WEEKS, start=1):
        week = folder / f"week-{number}"
        week.mkdir(parents=True)
        known.head(round(len(known) * share)).to_csv(week / "interactions.csv", index=False)
        (items if number > 2 else items[~new]).to_csv(week / "items.csv", index=False)
        (week / "dataset.json").write_text(json.dumps(settings))
    items[new].to_csv(folder / "new_items.csv", index=False)
    (folder / "history.txt").write_text(" ".join(known["item_id"].drop_duplicates().head(3)))
    for name, recall, model in (
        ("policy", 0.001, "popularity"), ("strict", 0.9, "popularity"), ("careless", 0.0, "sasrec"),
    ):  # fmt: skip
        (folder / f"{name}.yaml").write_text(POLICY.format(recall=recall, model=model))
    (folder / "shop").mkdir()


def main() -> None:
    """Live the month; exit code 1 if it found anything."""
    names = [step.__name__ for step in STEPS]
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", default="movielens", help="the dataset, as for car run")
    parser.add_argument("--data-dir", default=None, help="folder of the dataset, as for car run")
    parser.add_argument("--users", type=int, default=400, help="users of it that take part")
    parser.add_argument("--work", type=Path, default=ROOT / "build" / "month", help="folder of the month")
    parser.add_argument("--steps", nargs="+", choices=names, default=names, help="steps to live, in order")
    options = parser.parse_args()
    month = Month(options.work.resolve())
    if names[0] in options.steps:
        if (month.folder / ".car").is_dir():
            month.car("stop", "--all")
        shutil.rmtree(month.folder, ignore_errors=True)
        month.folder.mkdir(parents=True)
        prepare(month.folder, options.data, options.data_dir, options.users)
        month.week(1)
    else:
        month.car("deploy", "production")  # the end of a month stops the servers
    started = time.monotonic()
    for step in (step for step in STEPS if step.__name__ in options.steps):
        month.step = step.__name__
        print(f"{step.__name__}: {step.__doc__}", flush=True)
        step(month)
    month.car("stop", "--all")
    minutes = (time.monotonic() - started) / 60
    print(
        f"\n{len(month.findings)} findings after {minutes:.0f} minutes; diary: {month.folder / 'diary.log'}"
    )
    for finding in month.findings:
        print(f"- {finding}")
    sys.exit(bool(month.findings))


if __name__ == "__main__":
    main()
