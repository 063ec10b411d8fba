"""Rendered objects: restricted pods, names that fit, secrets by reference, user settings merged and never replacing ours."""

import json
import re
from pathlib import Path

import pytest
import yaml

from lprl_api.model.model_shape import Inspection
from lprl_api.rules.parse import parse_job
from lprl_api.wire.runconfig import ConvertConfig, InspectConfig, RunConfig
from lprl_operator.plan.plan import make_plan
from lprl_operator.resources import sources
from lprl_operator.resources.render import UID_WHEN_MADE, render_all

ROOT = Path(__file__).parents[4]
GPU = {"accelerator": "H100-80GB", "nodes": 2, "gpusPerNode": 8}
BF16 = {"training": "bf16", "rollout": "bf16"}
LONG = "a" * 45


def by_kind(documents, kind):
    return [d for (k, _), d in documents.items() if k == kind]


def templates(documents):
    """Every pod template by a name of its own."""
    found = {}
    for (kind, name), d in documents.items():
        if kind == "Job":
            found[name] = d["spec"]["template"]
        elif kind == "RayCluster":
            found["head"] = d["spec"]["headGroupSpec"]["template"]
            found |= {g["groupName"]: g["template"] for g in d["spec"]["workerGroupSpecs"]}
    return found


def configuration(documents):
    """Every configuration file pods read, by name: values of ConfigMaps, and what Jobs carry."""
    found = {k: v for d in by_kind(documents, "ConfigMap") for k, v in d["data"].items()}
    for template in templates(documents).values():
        for volume in template["spec"]["volumes"]:
            for item in volume.get("downwardAPI", {}).get("items", ()):
                note = re.fullmatch(r"metadata\.annotations\['(.+)'\]", item["fieldRef"]["fieldPath"])[1]
                found[item["path"]] = template["metadata"]["annotations"][note]
    return found


def containers(template):
    return [*template["spec"].get("initContainers", ()), *template["spec"]["containers"]]


def assert_restricted(template, extra=()):
    spec = template["spec"]
    assert spec["securityContext"]["runAsNonRoot"] and spec["securityContext"]["runAsUser"] > 0
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert spec["automountServiceAccountToken"] is False and spec["restartPolicy"] == "Never"
    for container in containers(template):
        security = container["securityContext"]
        assert security["allowPrivilegeEscalation"] is False and security["readOnlyRootFilesystem"] is True
        assert security["capabilities"]["drop"] == ["ALL"]
        assert tuple(security["capabilities"].get("add", ())) == extra
        mounted = {m["name"] for m in container["volumeMounts"]}
        assert mounted <= {v["name"] for v in spec["volumes"]}
        assert "/tmp" in {m["mountPath"] for m in container["volumeMounts"]}
        names = [e["name"] for e in container["env"]]
        assert len(names) == len(set(names))


MANIFESTS = sorted((ROOT / "examples").glob("*.yaml"))


@pytest.mark.parametrize("path", MANIFESTS, ids=[p.stem for p in MANIFESTS])
def test_every_example_renders_restricted_pods_and_names_that_fit(path, lib):
    for document in yaml.safe_load_all(path.read_text()):
        document["metadata"] |= {"name": LONG, "uid": "u", "namespace": "n"}
        job = parse_job(document)
        shape = make_plan_shape(job, lib)
        documents = {
            (d["kind"], d["metadata"]["name"]): d for d in render_all(job, make_plan(job.spec, inspection=shape), shape, lib.SETTINGS)
        }
        for (kind, name), found in documents.items():
            assert len(name) <= (53 if kind == "RayCluster" else 63) and name[0].isalpha()
            owner = found["metadata"]["ownerReferences"][0]
            finalise = found["metadata"]["labels"].get("lprl.dev/role") == "finalise"
            assert (owner["kind"], owner["uid"]) == (("Job", UID_WHEN_MADE) if finalise else ("LowPrecisionRLJob", "u"))
            assert all(len(v) <= 63 for v in found["metadata"]["labels"].values())
        for template in templates(documents).values():
            assert_restricted(template)


def make_plan_shape(job, lib):
    """An inspection that fits the example: a shape with experts where it wants some."""
    moe = {"experts": 8, "expertsPerToken": 2, "expertFfn": 128} if "moe" in str(job.spec.model.source.path) else None
    shape = {**lib.SHAPE.document(), "layers": 4, "hidden": 256, "heads": 8, "kvHeads": 4, "ffn": 512, "moe": moe}
    shape |= {"family": "qwen3-moe", "architecture": "Qwen3MoeForCausalLM"} if moe else {}
    return Inspection.model_validate({**lib.INSPECTION.document(), "shape": shape})


def test_order_and_configs_parse(rendered):
    documents = rendered()
    kinds = [k for k, _ in documents]
    wanted = [
        "Job",
        "Job",
        "Job",
        "NetworkPolicy",
        "ConfigMap",
        "ConfigMap",
        "ServiceAccount",
        "Role",
        "RoleBinding",
    ]
    assert kinds == [*wanted, "RayCluster"]
    data = configuration(documents)
    config = RunConfig.model_validate_json(data["runconfig.json"])
    convert = ConvertConfig.model_validate_json(data["convert.json"])
    InspectConfig.model_validate_json(data["inspect.json"])
    assert config.rollout_path == convert.target and str(config.model_path) == "models:toy"
    assert str(config.checkpoint.directory) == "checkpoints:checkpoints/toy"


def test_config_maps_are_named_by_content_and_immutable(rendered):
    name = {n for k, n in rendered() if n.startswith("toy-run-")}
    assert name == {n for k, n in rendered() if n.startswith("toy-run-")}
    assert name != {n for k, n in rendered(optimizer={"learningRate": 1e-3}) if n.startswith("toy-run-")}
    assert all(d["immutable"] for d in by_kind(rendered(), "ConfigMap") if not d["metadata"]["name"].endswith("progress"))


def test_convert_job_is_indexed_and_knows_what_not_to_retry(rendered):
    convert = next(d for d in by_kind(rendered(), "Job") if d["spec"].get("completionMode") == "Indexed")
    spec = convert["spec"]
    assert (spec["completions"], spec["parallelism"], spec["podReplacementPolicy"]) == (2, 2, "Failed")
    assert spec["backoffLimitPerIndex"] == 3 and "backoffLimit" not in spec
    rules = spec["podFailurePolicy"]["rules"]
    assert [r["action"] for r in rules] == ["Ignore", "FailJob"]
    assert rules[1]["onExitCodes"]["values"] == [3, 5]
    assert [o.get("controller") for o in convert["metadata"]["ownerReferences"]] == [None], "a shared object has no controller"


def test_head_runs_the_driver_beside_ray(rendered):
    cluster = by_kind(rendered(), "RayCluster")[0]
    head = cluster["spec"]["headGroupSpec"]
    assert cluster["spec"]["authOptions"] == {"mode": "token"} and head["rayStartParams"]["num-cpus"] == "0"
    assert cluster["metadata"]["annotations"]["ray.io/disable-provisioned-head-restart"] == "true"
    spec = head["template"]["spec"]
    ray, driver = spec["containers"]
    assert spec["shareProcessNamespace"] is True and spec["serviceAccountName"] == "toy-a1-driver"
    assert "command" not in ray, "KubeRay makes it"
    paths = [{m["mountPath"] for m in c["volumeMounts"]} for c in (ray, driver)]
    assert {"/tmp/ray", "/dev/shm"} <= paths[0] & paths[1]
    assert "/var/run/secrets/kubernetes.io/serviceaccount" in paths[1] - paths[0]
    env = {e["name"]: e for e in driver["env"]}
    assert env["RAY_AUTH_TOKEN"]["valueFrom"]["secretKeyRef"] == {"name": "toy-a1", "key": "auth_token"}
    assert env["LPRL_ATTEMPT"]["valueFrom"]["fieldRef"]["fieldPath"] == "metadata.labels['lprl.dev/attempt']"
    assert env["LPRL_RECORDED_STEP"]["valueFrom"]["fieldRef"]["fieldPath"] == "metadata.annotations['lprl.dev/recorded-step']"


def test_the_driver_may_touch_one_object(rendered):
    rules = by_kind(rendered(), "Role")[0]["rules"]
    assert rules == [{"apiGroups": [""], "resources": ["configmaps"], "resourceNames": ["toy-a1-progress"], "verbs": ["get", "patch"]}]


EXPRESSION = {"key": "zone", "operator": "In", "values": ["a"]}
NEAR = {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [{"matchExpressions": [EXPRESSION]}]}}


def test_split_placement_has_a_group_for_each_side(rendered):
    topology = {"accelerator": "cpu", "placement": "split", "nodes": 3, "trainer": {"nodes": 2}, "rollout": {"nodes": 1}}
    cluster = by_kind(rendered(topology=topology), "RayCluster")[0]
    found = {
        g["groupName"]: (g["replicas"], json.loads(json.loads(g["rayStartParams"]["resources"])))
        for g in cluster["spec"]["workerGroupSpecs"]
    }
    assert found == {"trainer": (2, {"lprl_trainer": 1}), "rollout": (1, {"lprl_rollout": 1})}


def test_gpu_workers_take_whole_nodes(rendered):
    documents = rendered(topology=GPU, precision=BF16, podTemplate={"topologyKey": "rack"})
    workers = templates(documents)["workers"]
    assert workers["spec"]["containers"][0]["resources"]["limits"]["nvidia.com/gpu"] == "8"
    affinity = workers["spec"]["affinity"]
    apart = affinity["podAntiAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"][0]
    together = affinity["podAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"][0]
    assert (apart["topologyKey"], together["topologyKey"]) == ("kubernetes.io/hostname", "rack")
    # By the RayCluster: a pod that another one left on a dead node must not draw these into its rack.
    assert together["labelSelector"]["matchLabels"] == {"lprl.dev/job": "toy", "ray.io/cluster": "toy-a1"}
    assert "nvidia.com/gpu" not in str(templates(documents)["head"])


def test_user_settings_are_merged_not_replaced(rendered):
    mine = {
        "image": "mine:1",
        "labels": {"team": "rl"},
        "tolerations": [{"key": "gpu", "operator": "Exists"}],
        "env": [{"name": "A", "value": "1"}, {"name": "NCCL_DEBUG", "value": "INFO"}, {"name": "RAY_ADDRESS", "value": "x"}],
        "affinity": {"nodeAffinity": NEAR},
        "head": {"nodeSelector": {"pool": "cpu"}, "resources": {"limits": {"memory": "16Gi"}}},
        "workers": {"image": "mine:gpu", "resources": {"limits": {"nvidia.com/gpu": "1"}}},
        "rdma": {"resource": "rdma/hca", "count": 2},
    }
    documents = rendered(topology=GPU, precision=BF16, podTemplate=mine)
    found = templates(documents)
    head, workers = found["head"], found["workers"]
    assert head["metadata"]["labels"]["lprl.dev/job"] == "toy" and head["metadata"]["labels"]["team"] == "rl"
    assert head["spec"]["nodeSelector"] == {"pool": "cpu"} and "nodeSelector" not in workers["spec"]
    assert {c["image"] for c in head["spec"]["containers"]} == {"mine:1"}
    assert workers["spec"]["containers"][0]["image"] == "mine:gpu"
    env = {e["name"]: e.get("value") for e in head["spec"]["containers"][1]["env"]}
    assert (env["A"], env["RAY_ADDRESS"]) == ("1", "127.0.0.1:6379")
    assert {e["name"]: e.get("value") for e in workers["spec"]["containers"][0]["env"]}["NCCL_DEBUG"] == "INFO"
    assert set(workers["spec"]["affinity"]) == {"podAntiAffinity", "nodeAffinity"}
    ray, driver = (c["resources"] for c in head["spec"]["containers"])
    assert ray == {"requests": {"cpu": "1"}, "limits": {"memory": "16Gi"}}, "the head's resources are Ray's"
    assert driver == {"requests": {"cpu": "1", "memory": "8Gi"}}
    limits = workers["spec"]["containers"][0]["resources"]["limits"]
    assert (limits["nvidia.com/gpu"], limits["rdma/hca"]) == ("8", "2"), "planned devices stay"
    assert_restricted(workers, extra=("IPC_LOCK",))


def tool(name, **more):
    return {"name": name, "url": "https://t/x", "description": "d", "parameters": {"type": "object"}, **more}


def test_secrets_are_references_everywhere(rendered):
    secret = {"name": "s", "key": "k"}
    documents = rendered(
        model={
            "source": {"huggingFace": {"repo": "a/b", "tokenSecret": secret}},
            "reference": {"s3": {"uri": "s3://b/c", "secret": "aws"}},
        },
        data={"prompts": {"volume": "data", "path": "t.jsonl"}, "reward": {"type": "remote", "url": "http://r", "headersSecret": secret}},
        episode={"type": "tools", "tools": [tool("a"), tool("b", headersSecret=secret)]},
        tracking={"wandb": {"project": "p", "apiKeySecret": secret}, "mlflow": {"trackingUri": "http://m", "tokenSecret": secret}},
    )
    env = {}
    for template in templates(documents).values():
        for container in containers(template):
            env |= {e["name"]: e for e in container["env"]}
    for name in (
        "HF_TOKEN",
        "AWS_ACCESS_KEY_ID",
        "AWS_SECRET_ACCESS_KEY",
        "WANDB_API_KEY",
        "MLFLOW_TRACKING_TOKEN",
        "LPRL_REWARD_AUTHORIZATION",
        "LPRL_TOOL_AUTHORIZATION_1",
    ):
        assert "secretKeyRef" in env[name]["valueFrom"] and "value" not in env[name]
    assert "LPRL_TOOL_AUTHORIZATION_0" not in env


def test_what_an_episode_is_travels_to_the_pods_that_run_it(rendered):
    documents = rendered(episode={"type": "tools", "tools": [tool("a")]})
    data = configuration(documents)
    config = RunConfig.model_validate_json(data["runconfig.json"])
    inspect = InspectConfig.model_validate_json(data["inspect.json"])
    assert [t.name for t in config.episode.tools] == ["a"] and inspect.preflight.episode == config.episode
    assert inspect.preflight.imports_episode
    documents = rendered(episode={"type": "tools", "tools": [tool("a")]}, podTemplate={"workers": {"env": [{"name": "A", "value": "b"}]}})
    inspect = InspectConfig.model_validate_json(configuration(documents)["inspect.json"])
    assert inspect.preflight.imports_reward and not inspect.preflight.imports_episode


def test_remote_sources_say_where_downloads_go(rendered, make_manifest):
    model = {"source": {"huggingFace": {"repo": "a/b"}}, "reference": {"s3": {"uri": "s3://b/c"}}}
    documents = rendered(model=model)
    data = configuration(documents)
    inspect = InspectConfig.model_validate_json(data["inspect.json"])
    config = RunConfig.model_validate_json(data["runconfig.json"])
    job = parse_job(make_manifest(model=model))
    assert str(inspect.source.cache) == "models:sources" and inspect.volume_identity == "rl/models"
    assert config.model_path == sources.folder(inspect.source, job.spec) and config.model_path.path.startswith("sources/a--b-")
    template = templates(documents)["toy-inspect"]
    assert [c["command"][-1] for c in containers(template)] == ["/etc/lprl/reference.json", "/etc/lprl/inspect.json"]
