"""The cluster file: what it asks for reaches the steps it is meant for, and nothing else passes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from google.protobuf import json_format
from kfp import compiler
from kfp.kubernetes.kubernetes_executor_config_pb2 import KubernetesExecutorConfig as Settings

from orchestration.kubeflow.cluster import Cluster, ClusterError, load_cluster
from orchestration.resources import RESOURCES, CompileOptions
from orchestration.train_job.spec import VARIABLE, TrainJobSpec
from pipeline import build_for_cluster
from tests.pipeline.pipeline_graph import parse, parse_platform, problems, settings_of, tasks_of

FOLDER = Path(__file__).parents[3] / "deploy" / "cluster"
EXAMPLE, WITH_JOB = FOLDER / "cluster.yaml", FOLDER / "train-job.yaml"
USES_CACHE = {"ingest", "tokenize", "train", "train-baseline", "train-ranker"}
TRAINS = {"train", "train-baseline", "train-ranker"}
SHARDED = {"choose-encoder", "embed", "merge"}  # only in a pipeline of shards
Tree = dict[str, Any]


def compiled(folder: Path, options: CompileOptions) -> list[Tree]:
    path = folder / "pipeline.yaml"
    compiler.Compiler().compile(build_for_cluster(options), str(path))
    return list(yaml.safe_load_all(path.read_text()))


@pytest.fixture(scope="module")
def ir(tmp_path_factory: pytest.TempPathFactory) -> list[Tree]:
    options = CompileOptions(image="registry.example/car@sha256:1", gpus=1, cluster=load_cluster(EXAMPLE))
    return compiled(tmp_path_factory.mktemp("ir"), options)


@pytest.fixture(scope="module")
def settings(ir: list[Tree]) -> dict[str, Settings]:
    return settings_of(parse_platform(ir[1]))


def steps_where(settings: dict[str, Settings], field: str) -> set[str]:
    return {step for step, config in settings.items() if getattr(config, field)}


def test_it_is_a_sound_pipeline_with_settings_for_every_step(
    ir: list[Tree], settings: dict[str, Settings]
) -> None:
    assert len(ir) == 2
    assert problems(parse(ir[0])) == []
    assert settings.keys() == tasks_of(parse(ir[0])).keys() == RESOURCES.keys() - SHARDED


def test_the_steps_of_a_shard_have_settings_too(tmp_path: Path) -> None:
    options = CompileOptions(
        image="registry.example/car@sha256:1", gpus=1, cluster=load_cluster(EXAMPLE), shards=2
    )
    _, platform = compiled(tmp_path, options)
    settings = settings_of(parse_platform(platform))
    assert settings.keys() == RESOURCES.keys()
    assert steps_where(settings, "pvc_mount") == USES_CACHE | {"embed"}
    assert all(config.active_deadline_seconds > 0 for config in settings.values())


def test_settings_that_kfp_does_not_know_are_refused(ir: list[Tree]) -> None:
    executors = ir[1]["platforms"]["kubernetes"]["deploymentSpec"]["executors"]
    broken = {"platforms": {"kubernetes": {"deploymentSpec": {"executors": dict(executors)}}}}
    executors = broken["platforms"]["kubernetes"]["deploymentSpec"]["executors"]
    executors["exec-train"] = {**executors["exec-train"], "nodeSelectors": {}}
    with pytest.raises(json_format.ParseError):
        settings_of(parse_platform(broken))


def test_steps_that_train_go_where_the_accelerators_are(
    ir: list[Tree], settings: dict[str, Settings]
) -> None:
    assert dict(settings["gate"].node_selector.labels) == {"kubernetes.io/arch": "amd64"}
    accelerated = {"kubernetes.io/arch": "amd64", "cloud.google.com/gke-accelerator": "nvidia-l4"}
    for step, config in settings.items():
        expected = [("dedicated", "Equal", "pipelines", "NoSchedule")]
        expected += [("nvidia.com/gpu", "Exists", "", "NoSchedule")] if step in TRAINS else []
        tolerations = [(taint.key, taint.operator, taint.value, taint.effect) for taint in config.tolerations]
        assert tolerations == expected, step
        assert (dict(config.node_selector.labels) == accelerated) == (step in TRAINS)
        container = ir[0]["deploymentSpec"]["executors"][f"exec-{step}"]["container"]
        assert ("accelerator" in container["resources"]) == (step in TRAINS)


def test_the_cache_is_mounted_where_it_is_used(settings: dict[str, Settings]) -> None:
    assert steps_where(settings, "pvc_mount") == USES_CACHE
    (mount,) = settings["train"].pvc_mount
    assert (mount.constant, mount.mount_path) == ("car-cache", "/cache")


def test_secrets_are_named_and_never_written(ir: list[Tree], settings: dict[str, Settings]) -> None:
    for step, config in settings.items():
        assert [(secret.secret_name, secret.mount_path) for secret in config.secret_as_volume] == [
            ("car-storage", "/var/run/secrets/car-storage")
        ]
        variables = {pair.env_var for secret in config.secret_as_env for pair in secret.key_to_env}
        assert variables == {"HF_TOKEN"} | ({"CAR_NOTIFY_URL"} if step == "conclude" else set())
        assert [secret.secret_name for secret in config.image_pull_secret] == ["car-registry"]
        assert dict(config.pod_metadata.annotations) == {"sidecar.istio.io/inject": "false"}
    assert "env" not in ir[0]["deploymentSpec"]["executors"]["exec-train"]["container"]


def test_every_step_has_an_end_and_no_rights(settings: dict[str, Settings]) -> None:
    for step, config in settings.items():
        assert config.active_deadline_seconds > 0, step
        assert config.security_context.run_as_non_root
        assert config.security_context.run_as_user == 10001
    assert settings["train"].active_deadline_seconds == 43200
    assert settings["ingest"].active_deadline_seconds == 7200
    assert settings["gate"].active_deadline_seconds == RESOURCES["gate"].timeout


def test_a_lost_step_is_tried_again_even_if_it_is_lost_at_its_end(
    ir: list[Tree], settings: dict[str, Settings]
) -> None:
    for step, (_, task) in tasks_of(parse(ir[0])).items():
        policy = task.retry_policy
        assert (policy.max_retry_count, policy.backoff_duration.seconds) == (3, 30)
        assert policy.backoff_factor == 2.0
        window = policy.backoff_max_duration.seconds  # of all tries; the waits are 30, 60 and 120 s
        assert window >= 3 * settings[step].active_deadline_seconds + 210, step


def test_no_retries_is_a_choice(tmp_path: Path) -> None:
    tree = compiled(tmp_path, CompileOptions(cluster=Cluster.model_validate({"retries": {"count": 0}})))[0]
    assert not any(task.HasField("retry_policy") for _, task in tasks_of(parse(tree)).values())


def test_vertex_gets_the_same_graph_without_what_only_kubernetes_understands(
    tmp_path: Path, ir: list[Tree]
) -> None:
    options = CompileOptions(
        image="registry.example/car@sha256:1",
        gpus=1,
        gpu_type="NVIDIA_L4",
        cluster=load_cluster(EXAMPLE),
        platform="vertex",
    )
    (tree,) = compiled(tmp_path, options)
    assert problems(parse(tree)) == []
    assert tree["components"] == ir[0]["components"]
    assert tree["root"] == ir[0]["root"]
    resources = tree["deploymentSpec"]["executors"]["exec-train"]["container"]["resources"]
    assert resources["accelerator"]["resourceType"] == "NVIDIA_L4"


def variables(tree: Tree, step: str) -> dict[str, str]:
    pairs = tree["deploymentSpec"]["executors"][f"exec-{step}"]["container"].get("env", [])
    return {pair["name"]: pair["value"] for pair in pairs}


def test_the_train_step_gets_the_jobs_spec_and_needs_no_accelerator(tmp_path: Path) -> None:
    options = CompileOptions(image="registry.example/car@sha256:1", gpus=2, cluster=load_cluster(WITH_JOB))
    tree, platform = compiled(tmp_path, options)
    assert problems(parse(tree)) == []
    steps = tasks_of(parse(tree))
    assert {step for step in steps if variables(tree, step)} == {"train"}
    spec = TrainJobSpec.model_validate_json(variables(tree, "train")[VARIABLE])
    assert (spec.nodes, spec.processes, spec.world) == (2, 2, 4)
    assert (spec.image, spec.seconds) == ("registry.example/car@sha256:1", 86400)
    assert spec.resources == {"cpu": "8", "memory": "16Gi", "nvidia.com/gpu": "2"}
    assert (spec.claim, spec.path, spec.user) == ("car-cache", "/cache", 10001)
    assert spec.selector == {"cloud.google.com/gke-accelerator": "nvidia-l4"}
    assert spec.tolerations == ({"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"},)
    settings = settings_of(parse_platform(platform))
    for step, has_accelerator in (("train", False), ("train-baseline", True)):
        resources = tree["deploymentSpec"]["executors"][f"exec-{step}"]["container"]["resources"]
        assert ("accelerator" in resources) == bool(settings[step].node_selector.labels) == has_accelerator
        assert (resources["resourceCpuRequest"] == "1") == has_accelerator  # a step that waits takes little


def test_without_a_train_job_no_step_gets_a_spec(ir: list[Tree], tmp_path: Path) -> None:
    assert not any(variables(ir[0], step) for step in tasks_of(parse(ir[0])))
    options = CompileOptions(
        image="registry.example/car@sha256:1", cluster=load_cluster(WITH_JOB), platform="vertex"
    )
    (tree,) = compiled(tmp_path, options)
    assert not any(variables(tree, step) for step in tasks_of(parse(tree)))


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("retries: {times: 3}", "there is no setting 'retries.times'."),
        ("retries: {count: -1}", "'retries.count' is -1: input should be greater than or equal to 0."),
        ("retries: {factor: 1.5}", "'retries.factor' is 1.5: input should be a valid integer"),
        ("retries: {backoff: 5m}", "'retries.backoff' is '5m': string should match pattern"),
        ("secrets: [{name: key}]", "'secrets.0': secret key needs either env or path."),
        (
            "secrets: [{name: key, path: /x, env: {a: A}}]",
            "'secrets.0': secret key needs either env or path.",
        ),
        ("nodes: {tolerations: [{key: a, operator: Exists, value: b}]}", "takes no value."),
        ("nodes: {tolerations: [{value: b}]}", "a toleration without a key must be Exists."),
        (
            "accelerated: {tolerations: [{key: a, effect: Never}]}",
            "'accelerated.tolerations.0.effect' is 'Never': input should be 'NoExecute', ",
        ),
        ("cache: {claim: ''}", "'cache.claim' is '': string should have at least 1 character."),
        (
            "cache: {claim: a, path: cache}",
            "'cache.path' is 'cache': the path of the cache must be absolute.",
        ),
        ("train_job: {nodes: 2}", "cluster.yaml: a train_job needs a cache: its nodes and the step share"),
        (
            "{train_job: {nodes: 0}, cache: {claim: a}}",
            "'train_job.nodes' is 0: input should be greater than or",
        ),
        ("sizes: {train: {memory: 4GB}}", "'sizes.train.memory' is '4GB': string should match pattern"),
        ("[1, 2]", "cluster.yaml: input should be a valid dictionary"),
        ("nodes: [", "is not valid YAML"),
    ],
)
def test_a_wrong_setting_is_named(tmp_path: Path, content: str, sentence: str) -> None:
    path = tmp_path / "cluster.yaml"
    path.write_text(content)
    with pytest.raises(ClusterError) as caught:
        load_cluster(path)
    assert sentence in str(caught.value)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_steps_size_is_the_clusters_or_its_own(ir: list[Tree]) -> None:
    executors = ir[0]["deploymentSpec"]["executors"]
    own = executors["exec-tokenize"]["container"]["resources"]
    assert (own["resourceCpuRequest"], own["resourceMemoryRequest"]) == ("2", "6Gi")  # as the file says
    assert (
        own["resourceMemoryLimit"]
        == executors["exec-evaluate"]["container"]["resources"]["resourceMemoryLimit"]
    )


def test_a_step_that_does_not_train_has_no_gpus() -> None:
    sizes = {"sizes": {"train-ranker": {"gpus": 0}, "tokenize": {"gpus": 1}}}
    with pytest.raises(ClusterError, match="sizes: tokenize does not train, so it can't use the 1 gpus"):
        CompileOptions(cluster=Cluster.model_validate(sizes))


def test_a_timeout_of_an_unknown_step_is_named(tmp_path: Path) -> None:
    with pytest.raises(ClusterError, match="sizes: there is no step trian; steps are resolve-champion"):
        CompileOptions(cluster=Cluster.model_validate({"sizes": {"trian": {"cpu": "1"}}}))
    with pytest.raises(ClusterError, match="timeouts: there is no step trian; steps are resolve-champion"):
        CompileOptions(cluster=Cluster.model_validate({"timeouts": {"trian": 1}}))
    with pytest.raises(ClusterError, match="can't be read"):
        load_cluster(tmp_path / "missing.yaml")


def test_an_empty_file_and_none_are_the_defaults(tmp_path: Path) -> None:
    (tmp_path / "empty.yaml").write_text("# nothing\n")
    assert load_cluster(tmp_path / "empty.yaml") == load_cluster(None) == Cluster()
    assert Cluster().cache_path("checkpoints") == ""
    assert load_cluster(EXAMPLE).cache_path("checkpoints", "1") == "/cache/checkpoints/1"


def manifests() -> list[tuple[str, Tree]]:
    files = sorted(FOLDER.glob("*.yaml"))
    applied = [file for file in files if file not in (EXAMPLE, WITH_JOB)]
    return [(file.name, manifest) for file in applied for manifest in yaml.safe_load_all(file.read_text())]


RIGHTS = {"Role", "RoleBinding", "ClusterRole", "ClusterRoleBinding"}
KNOWN = RIGHTS | {"Job", "PersistentVolume", "PersistentVolumeClaim", "ServiceAccount"}


def test_every_manifest_is_what_kubernetes_takes() -> None:
    assert {
        manifest["kind"] for _, manifest in manifests()
    } == KNOWN  # an unknown kind would only be warned of
    for _, manifest in manifests():
        kubernetes_validate.validate(manifest, "1.37", strict=True)


def test_the_check_of_manifests_sees_a_typing_error() -> None:
    claim = next(manifest for _, manifest in manifests() if manifest["kind"] == "PersistentVolumeClaim")
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(
            {**claim, "spec": {**claim["spec"], "accessMode": []}}, "1.37", strict=True
        )


def test_names_in_the_example_are_those_of_the_manifests() -> None:
    claims = {
        manifest["metadata"]["name"]
        for _, manifest in manifests()
        if manifest["kind"] == "PersistentVolumeClaim"
    }
    for file in (EXAMPLE, WITH_JOB):
        cluster = load_cluster(file)
        assert cluster.cache
        assert claims == {cluster.cache.claim}


def test_rights_are_given_to_the_service_account_of_the_steps() -> None:
    bindings = [manifest for _, manifest in manifests() if manifest["kind"].endswith("Binding")]
    account, same = [manifest for _, manifest in manifests() if manifest["kind"] == "ServiceAccount"]
    assert account == same  # of a standalone and a multi-user Kubeflow
    assert {subject["name"] for manifest in bindings for subject in manifest["subjects"]} == {
        account["metadata"]["name"]
    }
    roles = {
        (manifest["kind"], manifest["metadata"]["name"])
        for _, manifest in manifests()
        if manifest["kind"] in RIGHTS
    }
    for manifest in bindings:
        reference = manifest["roleRef"]["kind"], manifest["roleRef"]["name"]
        kubeflows = {("ClusterRole", "kubeflow-edit"), ("Role", "pipeline-runner")}
        assert reference in roles | kubeflows
    rules = [rule for _, manifest in manifests() for rule in manifest.get("rules", [])]
    assert not any("*" in rule[part] for rule in rules for part in ("apiGroups", "resources", "verbs"))
