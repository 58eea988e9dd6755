"""From command-line options to the pipeline's parameters; the same for a local run and for Kubeflow."""

from __future__ import annotations

import json
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from car_model.codebook.mode import ModeError, check_mode
from common.errors import UserError
from ingestion.config import IngestError
from ingestion.sources import resolve, source_digest
from ingestion.sources.gcs import is_gcs
from validation.data.policy import DataPolicy
from validation.gate.policy import PolicyError, load_policy


class ArgumentError(UserError, ValueError):
    """An option of a run is wrong; the message is one sentence."""


@dataclass(frozen=True, kw_only=True)
class RunRequest:
    """One run as requested on the command line; "" and None mean the default.

    Attributes:
        data, data_dir: the dataset, see `ingestion.sources.resolve`.
        downloads: where fetched and converted sources are kept.
        recipe: training settings as JSON.
        gate_policy: path of a gate policy.
        n_levels, codebook_size, codebook_mode, training, warm_start, ranker: see the pipeline's parameters.
        serving, cache, checkpoints: folders, see the pipeline's parameters.
    """

    data: str
    data_dir: str
    downloads: Path
    registry: str
    channel: str
    encoder: str = ""
    n_levels: int | None = None
    codebook_size: int | None = None
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
        """The pipeline's parameters; those without an option keep the pipeline's default.

        Args:
            remote: the run happens on other machines, which cannot read this one's files.

        Raises:
            ArgumentError: dataset, recipe or policy are wrong or out of reach.
        """
        try:
            config = resolve(self.data, self.data_dir or None, self.downloads)
            for source in (config.interactions, config.items):
                if remote and not is_gcs(source.location):
                    raise IngestError(
                        f"A cluster cannot read {source.location}; put the files on gs:// and name them so "
                        "in the dataset.json of --data custom."
                    )
            content = source_digest(config)
        except IngestError as error:
            raise ArgumentError(str(error)) from error
        try:
            mode = check_mode(self.codebook_mode)
        except ModeError as error:
            raise ArgumentError(f"--codebook: {error}") from error
        if not self.training and mode != "reuse":
            raise ArgumentError(
                f"--no-train needs --codebook reuse, not {mode}: weights belong to their codes."
            )
        arguments = {
            "source": config.model_dump_json(),
            "source_digest": content,
            "data_policy": DataPolicy(
                action_min=config.action_min, action_max=config.action_max
            ).model_dump_json(),
            "registry": _absolute(self.registry),
            "channel": self.channel,
            "recipe": self._recipe(),
            "ranker": self._ranker(),
            "seed": self.seed,
            "codebook_mode": mode,
            "training": self.training,
            "warm_start": self.warm_start,
            "bootstrap": self.bootstrap,
            "serving": _absolute(self.serving),
            "cache": _absolute(self.cache),
            "checkpoints": _absolute(self.checkpoints),
            "git_commit": git_commit(),
        }
        if self.n_levels is not None:
            arguments["n_levels"] = self.n_levels
        if self.codebook_size is not None:
            arguments["codebook_size"] = self.codebook_size
        if self.encoder:
            arguments["encoder"] = json.dumps({"name": self.encoder})
        if self.gate_policy:
            try:
                load_policy(self.gate_policy)
            except PolicyError as error:
                raise ArgumentError(str(error)) from error
            arguments["gate_policy"] = Path(self.gate_policy).read_text(encoding="utf-8")
        return arguments

    def _recipe(self) -> str:
        """The training settings with the run's seed and epochs."""
        try:
            settings = json.loads(self.recipe)
        except ValueError as error:
            raise ArgumentError(f"--recipe is not valid JSON: {error}.") from error
        if not isinstance(settings, dict):
            raise ArgumentError('--recipe must be a JSON object, such as {"d_model": 32}.')
        settings |= {"seed": self.seed} if self.seed else {}
        settings |= {"epochs": self.epochs} if self.epochs is not None else {}
        if settings:
            from car_model.training.recipe import RecipeError, parse_recipe

            try:
                parse_recipe(settings)
            except RecipeError as error:
                raise ArgumentError(f"--recipe: {error}") from error
        return json.dumps(settings, sort_keys=True)

    def _ranker(self) -> str:
        """The ranker's settings; unless it has its own, the run's seed and at most the run's epochs."""
        if self.ranker == "{}" and not self.seed and self.epochs is None:
            return self.ranker
        from car_model.training.recipe import RecipeError, parse_ranker

        try:
            recipe = parse_ranker(self.ranker)
            if recipe is None:
                return self.ranker
            settings = json.loads(self.ranker)
            settings = ({"seed": self.seed} if self.seed else {}) | settings
            if self.epochs is not None and "epochs" not in settings:
                settings["epochs"] = min(self.epochs, recipe.epochs)
            parse_ranker(json.dumps(settings))
        except RecipeError as error:
            raise ArgumentError(f"--ranker: {error}") from error
        return json.dumps(settings, sort_keys=True)


def _absolute(path: str) -> str:
    """Steps run in other folders than the command; "" stays "" and URLs stay URLs."""
    return path if not path or "://" in path else str(Path(path).expanduser().resolve())


def git_commit(folder: Path = Path(__file__).parent) -> str:
    """Commit of the code, with "-dirty" if files differ from it; "" outside a checkout."""

    def git(*words: str) -> str | None:
        command = ["git", "-C", str(folder), *words]
        try:
            return subprocess.run(
                command, capture_output=True, text=True, check=True, timeout=10
            ).stdout.strip()
        except (OSError, subprocess.SubprocessError):
            return None

    commit = git("rev-parse", "HEAD")
    if not commit:
        return ""
    return f"{commit}-dirty" if git("status", "--porcelain", "--untracked-files=no") else commit
