"""Every preset on simulated GPU nodes: real scheduler, real KubeRay, one worker a node; and what a missing node looks like."""

from collections.abc import Callable
from typing import Any

import pytest
from tests.contract.hand import Hand
from tests.simulated.conftest import Operator, Space, add_node, wait

from lprl_api.model_shape import Inspection, SourceQuantization
from lprl_api.presets import PRESETS, preset_manifest
from lprl_api.shapes import SHAPES
from lprl_operator.reconcile.kube.api import KubeApi

pytestmark = [pytest.mark.cluster, pytest.mark.slow]
LARGEST = "kimi-k2-thinking-int4"
NODES = {
    "qwen3-4b-fp8": 1,
    "qwen3-30b-a3b-fp8": 2,
    "qwen3-30b-a3b-int4": 1,
    "moonlight-16b-a3b-int4": 1,
    "qwen3-235b-a22b-int4": 8,
    LARGEST: 32,
}


def inspection(manifest: dict[str, Any]) -> Inspection:
    """What the inspect Job would say of the preset's model. Kimi-K2-Thinking is published in INT4."""
    shape = SHAPES[manifest["spec"]["model"]["shape"]]
    published = SourceQuantization(format="int4-group", group_size=32, scope="routed-experts")
    quantization = published if manifest["metadata"]["name"] == LARGEST else SourceQuantization()
    return Inspection(shape=shape, fingerprint="ab" * 32, total_bytes=1 << 30, tensors=100, shards=4, quantization=quantization)


@pytest.fixture(scope="module", autouse=True)
def nodes(api: KubeApi) -> None:
    """31 of the 32 GPU nodes the largest preset wants, and one for heads."""
    add_node(api, "cpu-0", 0)
    for number in range(31):
        add_node(api, f"gpu-{number:02}", 8)


@pytest.mark.parametrize("name", [n for n in PRESETS if n != LARGEST])
def test_a_preset_runs_with_every_worker_on_its_own_node(name: str, space: Space, make_operator: Callable[..., Operator]) -> None:
    make_operator().start()
    _runs(name, space)


def test_the_largest_says_what_is_missing_and_goes_on_by_itself(api: KubeApi, space: Space, make_operator: Callable[..., Operator]) -> None:
    make_operator().start()
    manifest = preset_manifest(LARGEST)
    hand = Hand(api, space.name, inspection(manifest), manifest["spec"]["algorithm"]["steps"], kubelet=False)
    space.submit(manifest)

    def short() -> bool:
        message = space.condition(LARGEST, "ClusterReady").get("message", "")
        return "31/32 workers" in message and "1 unschedulable" in message and "nvidia.com/gpu" in message

    hand.drives = False
    wait(short, "31/32 workers; 1 unschedulable: ... nvidia.com/gpu", 180, hand.step)
    add_node(api, "gpu-31", 8)
    _to_running(LARGEST, space, hand)
    api.delete("/api/v1/nodes/gpu-31", {})


def _runs(name: str, space: Space) -> None:
    manifest = preset_manifest(name)
    hand = Hand(space.api, space.name, inspection(manifest), manifest["spec"]["algorithm"]["steps"], kubelet=False)
    space.submit(manifest)
    hand.drives = False
    _to_running(name, space, hand)
    hand.drives = True
    wait(lambda: space.status(name).get("phase") == "Succeeded", f"{name} succeeds", 60, hand.step)
    wait(lambda: not space.workers(), "its workers are gone", 60)


def _to_running(name: str, space: Space, hand: Hand) -> None:
    wait(lambda: space.condition(name, "ClusterReady").get("status") == "True", f"{name} is ready", 180, hand.step)
    workers = space.workers()
    assert len(workers) == NODES[name]
    assert len({w["spec"]["nodeName"] for w in workers}) == NODES[name]
    assert space.status(name)["nodes"]["summary"] == f"{NODES[name]}/{NODES[name]}"
    hand.reports = True
    wait(lambda: space.status(name).get("phase") == "Running", f"{name} runs", 60, hand.step)
