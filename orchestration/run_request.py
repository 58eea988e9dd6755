"""From command-line options to the pipeline's parameters; the same for a local run and for Kubeflow."""

from __future__ import annotations

import json
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from car_model.codebook.mode import ModeError, check_mode
from common.errors import UserError, first_problem
from ingestion.config import DatasetConfig
from ingestion.sources import resolve, source_digest
from ingestion.sources.gcs import is_gcs
from orchestration.cli_options import RunOptions
from orchestration.shared_registry import check_remote
from registry.store.open import open_store
from validation.data.policy import DataPolicy
from validation.gate.policy import load_policy

MAX_ARGUMENTS = 100_000  # bytes; Linux takes 131,071 in one argument, and Kubeflow adds its own to these


class ArgumentError(UserError):
    """An option of a run is wrong; the message is one sentence."""


@dataclass(frozen=True, kw_only=True)
class RunRequest(RunOptions):
    """One run as requested on the command line; "" means the default.

    Attributes:
        data, data_dir: the dataset, see `ingestion.sources.resolve`.
        downloads: where fetched and converted sources are kept.
        default_encoder: text encoder of a recipe that names none; "" for the pipeline's.
        registry, serving, cache, checkpoints: see the pipeline's parameters.
    """

    data: str
    data_dir: str
    downloads: Path
    registry: str
    default_encoder: str = ""
    serving: str = ""
    cache: str = ""
    checkpoints: str = ""

    def arguments(self, *, remote: bool = False) -> dict[str, Any]:
        """The pipeline's parameters; those without an option keep the pipeline's default.

        Args:
            remote: the run happens on other machines, which cannot read this one's files.

        Raises:
            UserError: dataset, recipe or policy are wrong or out of reach.
        """
        if remote:
            check_remote(self.registry)
        elif self.registry:
            open_store(self.registry)
        config = resolve(self.data, self.data_dir or None, self.downloads)
        for source in (config.interactions, config.items):
            if remote and not is_gcs(source.location):
                raise ArgumentError(
                    f"A cluster cannot read {source.location}; put the files on gs:// and name them so "
                    "in the dataset.json of --data custom."
                )
        try:
            mode = check_mode(self.codebook_mode)
        except ModeError as error:
            raise ArgumentError(f"--codebook: {error}") from error
        if not self.training and mode != "reuse":
            raise ArgumentError(
                f"--no-train needs --codebook reuse, not {mode}: weights belong to their codes."
            )
        recipe, changes = self._recipe()
        arguments = {
            "source": config.model_copy(update={"data_policy": {}}).model_dump_json(),
            "source_digest": source_digest(config),
            "data_policy": self._data_policy(config).model_dump_json(),
            "channel": self.channel,
            "new_channel": self.new_channel,
            "recipe": recipe,
            "changes": json.dumps(changes, sort_keys=True),
            "codebook_mode": mode,
            "training": self.training,
            "warm_start": self.warm_start,
            "bootstrap": self.bootstrap,
            "git_commit": git_commit(),
        }
        for name in ("registry", "serving", "cache", "checkpoints"):  # steps run in other folders
            path = getattr(self, name)
            local = path and "://" not in path
            arguments[name] = str(Path(path).expanduser().resolve()) if local else path
        if self.default_encoder:
            arguments["encoder"] = json.dumps({"name": self.default_encoder})
        if self.gate_policy:
            load_policy(self.gate_policy)
            arguments["gate_policy"] = Path(self.gate_policy).read_text(encoding="utf-8")
        if remote and (size := len(json.dumps(arguments))) > MAX_ARGUMENTS:
            longest = max(arguments, key=lambda name: len(json.dumps(arguments[name])))
            raise ArgumentError(
                f"The settings of this run take {size:,} bytes, and Kubeflow passes at most {MAX_ARGUMENTS:,}"
                f" to its steps; the longest is {longest}: leave out its comments and what is the default."
            )
        return arguments

    def _data_policy(self, config: DatasetConfig) -> DataPolicy:
        """The limits of validation: the file's if there is one, over the dataset's, over the defaults."""
        settings: dict[str, Any] = {"action_min": config.action_min, "action_max": config.action_max}
        layers = [("data_policy in dataset.json", config.data_policy)]
        if self.data_policy:
            try:
                layers.append((self.data_policy, yaml.safe_load(Path(self.data_policy).read_bytes())))
            except yaml.YAMLError as error:
                raise ArgumentError(
                    f"{self.data_policy} is not valid YAML: {' '.join(str(error).split())}."
                ) from error
        for origin, layer in layers:
            if not isinstance(layer, dict):
                raise ArgumentError(f'{origin} must hold settings, such as {{"min_users": 50}}.')
            drift = layer.get("drift", {})
            merged = settings.get("drift", {}) | drift if isinstance(drift, dict) else drift
            settings |= layer | {"drift": merged}
            try:
                policy = DataPolicy.model_validate_json(json.dumps(settings, default=str))
            except ValidationError as error:
                raise ArgumentError(f"{origin}: {first_problem(error, DataPolicy.model_fields)}") from error
        return policy

    def _recipe(self) -> tuple[str, dict[str, Any]]:
        """What the run starts from, and the settings that it changes, by options of their own or by --set."""
        options = {
            "epochs": self.epochs,
            "n_levels": self.n_levels,
            "codebook_size": self.codebook_size,
            "seed": self.seed,
            "encoder.name": self.encoder or None,
        }
        changes = {name: value for name, value in options.items() if value is not None}
        for text in self.changes or ():
            name, equals, value = text.partition("=")
            if not equals:
                raise ArgumentError(f"--set {text}: write NAME=VALUE, such as d_model=96.")
            try:
                changes[name.strip()] = json.loads(value)
            except ValueError:
                changes[name.strip()] = value.strip()
        if self.recipe == RunOptions.recipe and not changes:
            return self.recipe, changes
        from car_model.training.recipe import RecipeError, parse_run_recipe
        from orchestration.recipe import CHAMPION, DEFAULT, check_untrained, read_recipe_file

        base, settings, origin = self.recipe, dict[str, Any](), f"--recipe {self.recipe}"
        try:
            if base not in (CHAMPION, DEFAULT):
                settings = read_recipe_file(Path(base))
                base = json.dumps(settings, sort_keys=True)
            recipe = parse_run_recipe(settings)
            origin = "--set"
            recipe.changed(changes)
            if not self.training:
                origin = "--no-train"
                check_untrained(base, changes)
        except RecipeError as error:
            raise ArgumentError(f"{origin}: {error}") from error
        return base, changes


def git_commit(folder: Path = Path(__file__).parent) -> str:
    """Commit of the code, with "-dirty" if files differ from it; "" outside a checkout."""
    words = ["describe", "--always", "--abbrev=40", "--dirty", "--exclude=*"]  # no tag: the commit itself
    command = ["git", "-C", str(folder), *words]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return ""
