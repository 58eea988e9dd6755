"""From what a person asks for to the pipeline's parameters; the same for a local run and for Kubeflow."""

from __future__ import annotations

import json
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from car_model.codebook.mode import ModeError, check_mode
from common.errors import UserError
from ingestion.config import DatasetConfig, IngestError
from ingestion.sources import resolve, source_digest
from ingestion.sources.gcs import is_gcs
from validation.data.policy import DataPolicy
from validation.gate.policy import PolicyError, load_policy


class ArgumentError(UserError, ValueError):
    """The run cannot be asked for like this; the message is one sentence."""


@dataclass(frozen=True)
class Request:
    """One run as asked for on the command line; "" and None mean the default.

    Attributes:
        data, data_dir: the dataset, see `ingestion.sources.resolve`.
        downloads: where fetched and converted sources are kept.
        recipe: training settings as JSON.
        gate_policy: path of a gate policy.
        codebook_mode, training, warm_start, ranker: see the pipeline's parameters.
        serving, cache, checkpoints: folders, see the pipeline's parameters.
    """

    data: str
    data_dir: str
    downloads: Path
    registry: str
    channel: str
    encoder: str = ""
    levels: int | None = None
    codes: int | None = None
    epochs: int | None = None
    recipe: str = "{}"
    seed: int = 0
    gate_policy: str = ""
    bootstrap: bool = False
    serving: str = ""
    cache: str = ""
    checkpoints: str = ""
    codebook_mode: str = "reuse"
    training: bool = True
    warm_start: bool = False
    ranker: str = "{}"

    def arguments(self, *, remote: bool = False) -> dict[str, Any]:
        """The pipeline's parameters; what was not asked for keeps the pipeline's default.

        Args:
            remote: the run happens on other machines, which cannot read files of this one.

        Raises:
            ArgumentError: dataset, recipe or policy are wrong or out of reach.
        """
        given = {
            "levels": self.levels,
            "codes": self.codes,
            "encoder": json.dumps({"name": self.encoder}) if self.encoder else None,
            "gate_policy": self._policy(),
        }
        return {
            **self._data(remote),
            "registry": _absolute(self.registry),
            "channel": self.channel,
            "recipe": self._recipe(),
            "ranker": self._ranker(),
            "seed": self.seed,
            "codebook_mode": self._mode(),
            "training": self.training,
            "warm_start": self.warm_start,
            "bootstrap": self.bootstrap,
            "serving": _absolute(self.serving),
            "cache": _absolute(self.cache),
            "checkpoints": _absolute(self.checkpoints),
            "git_commit": git_commit(),
            **{name: value for name, value in given.items() if value is not None},
        }

    def _data(self, remote: bool) -> dict[str, str]:
        try:
            config = resolve(self.data, self.data_dir or None, self.downloads)
            if remote:
                _require_reachable(config)
            digest = source_digest(config)
        except IngestError as error:
            raise ArgumentError(str(error)) from error
        policy = DataPolicy(action_min=config.action_min, action_max=config.action_max)
        return {
            "source": config.model_dump_json(),
            "source_digest": digest,
            "data_policy": policy.model_dump_json(),
        }

    def _recipe(self) -> str:
        try:
            settings = json.loads(self.recipe)
        except ValueError as error:
            raise ArgumentError(f"--recipe is not valid JSON: {error}.") from error
        if not isinstance(settings, dict):
            raise ArgumentError('--recipe must be a JSON object, such as {"d_model": 32}.')
        settings |= {"seed": self.seed} if self.seed else {}
        settings |= {"epochs": self.epochs} if self.epochs is not None else {}
        if settings:
            from car_model.training.recipe import parse_recipe

            try:
                parse_recipe(settings)
            except ValueError as error:
                raise ArgumentError(f"--recipe: {error}") from error
        return json.dumps(settings, sort_keys=True)

    def _ranker(self) -> str:
        """Its settings; seed and most epochs are the run's, unless it names its own."""
        if self.ranker == "{}" and not self.seed and self.epochs is None:
            return self.ranker
        from car_model.training.recipe import parse_ranker

        try:
            recipe = parse_ranker(self.ranker)
            if recipe is None:
                return self.ranker
            own = json.loads(self.ranker)
            own = ({"seed": self.seed} if self.seed else {}) | own
            if self.epochs is not None and "epochs" not in own:
                own["epochs"] = min(self.epochs, recipe.epochs)
            parse_ranker(json.dumps(own))
        except ValueError as error:
            raise ArgumentError(f"--ranker: {error}") from error
        return json.dumps(own, sort_keys=True)

    def _mode(self) -> str:
        try:
            mode = check_mode(self.codebook_mode)
        except ModeError as error:
            raise ArgumentError(f"--codebook: {error}") from error
        if not self.training and mode != "reuse":
            raise ArgumentError(
                f"--no-train needs --codebook reuse, not {mode}: weights belong to their codes."
            )
        return mode

    def _policy(self) -> str | None:
        if not self.gate_policy:
            return None
        try:
            load_policy(self.gate_policy)
        except PolicyError as error:
            raise ArgumentError(str(error)) from error
        return Path(self.gate_policy).read_text(encoding="utf-8")


def _absolute(place: str) -> str:
    """Steps run in other folders than the person who asks; "" stays "" and URLs stay URLs."""
    return place if not place or "://" in place else str(Path(place).expanduser().resolve())


def git_commit(folder: Path = Path(__file__).parent) -> str:
    """Commit of the code, marked where files differ from it; "" outside a checkout."""

    def ask(*words: str) -> str | None:
        try:
            done = subprocess.run(
                ["git", "-C", str(folder), *words], capture_output=True, text=True, check=True, timeout=10
            )
        except (OSError, subprocess.SubprocessError):
            return None
        return done.stdout.strip()

    commit = ask("rev-parse", "HEAD")
    if not commit:
        return ""
    return f"{commit}-dirty" if ask("status", "--porcelain", "--untracked-files=no") else commit


def _require_reachable(config: DatasetConfig) -> None:
    for source in (config.interactions, config.items):
        if not is_gcs(source.location):
            raise IngestError(
                f"A cluster cannot read {source.location}; put the files on gs:// and name them so in the "
                "dataset.json of --data custom."
            )
