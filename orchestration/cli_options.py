"""Options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from orchestration.kubeflow.auth import AuthMethod
from orchestration.resources import Platform

Data = Annotated[str, typer.Option(help="movielens (fetched), amazon2014, or custom (your own).")]
DataDir = Annotated[str, typer.Option(help="Folder of the dataset; for custom, with a dataset.json.")]
Channel = Annotated[str, typer.Option(help="Channel to compare with and to promote to.")]
Bootstrap = Annotated[bool, typer.Option(help="Let a first release through, which has no champion.")]
Epochs = Annotated[int | None, typer.Option(min=1, help="Maximum number of training epochs.")]
Levels = Annotated[int | None, typer.Option(min=1, help="Semantic-ID levels.")]
CodebookSize = Annotated[
    int | None, typer.Option(min=0, help="Codes per level; 0 follows the catalogue's size.")
]
CodebookMode = Annotated[
    str,
    typer.Option(
        "--codebook",
        help="reuse the champion's codebook, refresh it with stable codes, or fit a new one.",
    ),
]
Training = Annotated[
    bool,
    typer.Option("--train/--no-train", help="Train, or skip training and reuse the champion's weights."),
]
WarmStart = Annotated[bool, typer.Option("--warm-start", help="Train from the champion's weights.")]
Encoder = Annotated[
    str, typer.Option(help="Text encoder: a name or a folder. Default of submit: Sentence-T5.")
]
Recipe = Annotated[str, typer.Option(help='Training settings as JSON, such as {"d_model": 32}.')]
Ranker = Annotated[
    str, typer.Option(help='Settings of the ranker by action as JSON, such as {"liked": 4}; off: no ranker.')
]
Seed = Annotated[int, typer.Option(help="Seed of the codebook and of the training.")]
GatePolicy = Annotated[str, typer.Option(help="Gate policy (YAML file); default: the project's own.")]
Shards = Annotated[
    int, typer.Option(min=1, max=1000, help="Number of parts of the catalogue to embed in parallel.")
]
Image = Annotated[str, typer.Option(help="Container image of the steps, best named by digest.")]
Gpu = Annotated[int, typer.Option(min=0, help="Accelerators for the steps that train.")]
GpuType = Annotated[str, typer.Option(help="Resource name of the accelerator.")]
ClusterFile = Annotated[
    Path | None,
    typer.Option("--cluster", help="The cluster's settings (YAML), such as deploy/cluster/cluster.yaml."),
]
PlatformName = Annotated[Platform, typer.Option(help="vertex leaves out what only Kubernetes understands.")]

RemoteRegistry = Annotated[
    str, typer.Option("--registry", help="gs://bucket/prefix that the cluster reaches.")
]
RemoteData = Annotated[
    str, typer.Option("--data-dir", help="Folder with a dataset.json that names gs:// files.")
]
Host = Annotated[str, typer.Option(envvar="KF_PIPELINES_ENDPOINT", help="URL of Kubeflow Pipelines.")]
Namespace = Annotated[str, typer.Option(help="Namespace (profile) to run in.")]
Experiment = Annotated[str, typer.Option(help="Experiment to file the run under.")]
Auth = Annotated[
    AuthMethod | None,
    typer.Option("--auth", help="How to authenticate; default: token if there is one, else none."),
]
Token = Annotated[
    str, typer.Option(envvar="KF_PIPELINES_TOKEN", help="Bearer token; better set in the environment.")
]
Cookie = Annotated[
    str, typer.Option(envvar="KF_PIPELINES_COOKIE", help="Session cookie; better set in the environment.")
]
SecretFile = Annotated[Path | None, typer.Option(help="File that holds the token or the cookie.")]
Certificates = Annotated[
    str, typer.Option("--ca", help="File of certificates that the server's is checked with.")
]
ServiceAccount = Annotated[str, typer.Option(help="What the steps run as; default: Kubeflow's own.")]
Cron = Annotated[
    str,
    typer.Option("--schedule", help='Run again at these times, such as "0 0 3 * * *" (seconds first).'),
]
