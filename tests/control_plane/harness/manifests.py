"""Manifests whose pods the harness plays: what a pod does is chosen in podTemplate annotations, which reach it unchanged."""

import copy
import json
from typing import Any

from tests.control_plane.harness.plane import KIND, POOL
from tests.toy import SHAPE

from lprl_api import names
from lprl_api.catalog.presets import PRESETS, preset_manifest
from lprl_api.model.model_shape import Inspection, ModelShape, SourceQuantization
from lprl_api.model.shapes import SHAPES

Manifest = dict[str, Any]

PUBLISHED = {"kimi-k2-thinking-int4": SourceQuantization(format="int4-group", group_size=32, scope="routed-experts")}
"""Presets whose source is quantised already: it is served as it is, and a BF16 folder is made to train from."""


def inspection(
    shape: ModelShape,
    fingerprint: str = "ab" * 32,
    shards: int = 2,
    total_bytes: int = 1_000_000,
    quantization: SourceQuantization | None = None,
) -> str:
    """What an inspect pod says of a source; of one in high precision unless a quantisation is given."""
    found = Inspection(
        shape=shape,
        fingerprint=fingerprint,
        total_bytes=total_bytes,
        tensors=24 * shards,
        shards=shards,
        quantization=quantization or SourceQuantization(),
        free_bytes=10**14,
    )
    return found.model_dump_json(by_alias=True)


def annotations(message: str, driver: dict[str, Any] | None = None, **conversion: str) -> dict[str, Any]:
    """podTemplate parts that carry a simulation: `inspect_delay="3s"` becomes the annotation `sim.lprl.dev/inspect-delay`."""
    notes = {f"sim.lprl.dev/{k.replace('_', '-')}": v for k, v in conversion.items()}
    return {
        "conversion": {"annotations": {"sim.lprl.dev/inspect-message": message, **notes}},
        "head": {"annotations": {"sim.lprl.dev/driver": json.dumps(driver or {})}},
    }


def toy(name: str, namespace: str, driver: dict[str, Any] | None = None, steps: int = 4, **spec: Any) -> Manifest:
    """A small job: one CPU worker, INT4 (one conversion of two shards by two pods). `sim` is merged into podTemplate."""
    sim = spec.pop("sim", None) or annotations(inspection(SHAPE), driver)
    base: Manifest = {
        "model": {"source": {"volume": "models", "path": "toy"}},
        "precision": {"training": "int4-qat", "rollout": "int4", "int4": {"groupSize": 32}},
        "conversion": {"volume": "models", "parallelism": 2},
        "data": {"prompts": {"volume": "data", "path": "train.jsonl"}, "reward": {"type": "exact"}},
        "algorithm": {"steps": steps, "rolloutBatchSize": 4, "samplesPerPrompt": 4},
        "sampling": {"maxResponseTokens": 4},
        "topology": {"accelerator": "cpu", "nodes": 1},
        "checkpoint": {"volume": "checkpoints"},
        "failurePolicy": {"backoffSeconds": 0},
        "volumes": {n: {"persistentVolumeClaim": n} for n in ("models", "data", "checkpoints")},
        "podTemplate": merged({"nodeSelector": {POOL: namespace}}, sim),
    }
    return document(name, namespace, merged(base, spec))


def preset(name: str, pool: str, driver: dict[str, Any] | None = None) -> Manifest:
    """One of the six presets as `lprl init` writes it, on a pool's CPU and GPU nodes, with an image that may hold its backends."""
    found = preset_manifest(name)
    shape = SHAPES[PRESETS[name].shape]
    place = {
        "image": "registry.example/workload:with-megatron-and-sglang",
        "nodeSelector": {POOL: pool},
        "head": {"nodeSelector": {KIND: "cpu"}},
        "workers": {"nodeSelector": {KIND: "gpu"}},
    }
    published = PUBLISHED.get(name)
    sim = annotations(inspection(shape, shards=62, total_bytes=6 * 10**11, quantization=published), driver)
    found["spec"]["podTemplate"] = merged(merged(found["spec"].get("podTemplate", {}), place), sim)
    found["metadata"]["namespace"] = pool
    return found


def document(name: str, namespace: str, spec: Manifest) -> Manifest:
    """The whole object."""
    meta = {"name": name, "namespace": namespace}
    return {"apiVersion": names.API_VERSION, "kind": names.KIND, "metadata": meta, "spec": spec}


def merged(base: Manifest, more: Manifest) -> Manifest:
    """Return `base` with mappings of `more` merged in; other values replaced."""
    found = copy.deepcopy(base)
    for key, value in more.items():
        both = isinstance(value, dict) and isinstance(found.get(key), dict)
        found[key] = merged(found[key], value) if both else copy.deepcopy(value)
    return found
