"""A number in a spec costs the operator no time and no memory, whatever it is: it judges the jobs of every namespace."""

import copy
import json
import subprocess
import sys
from collections.abc import Iterator
from functools import reduce
from pathlib import Path
from typing import Any

import pytest
import yaml

from lprl_api.catalog.presets import preset_manifest
from lprl_api.crd.generate import crd

BASES: dict[str, dict[str, Any]] = {
    **yaml.safe_load((Path(__file__).parents[1] / "lprl_api" / "illegal" / "bases.yaml").read_text()),
    "experts": preset_manifest("qwen3-30b-a3b-int4"),
}
"""With known shapes, so that each is planned: of one process, of two sides, and of experts."""
NUMBERS = (2**31, 2**63 - 1)
PROMPTS = {"volume": "work", "path": "some.jsonl"}
ASIDE: dict[str, Any] = {
    "evaluation": {"prompts": PROMPTS},
    "conversion.verify": {"prompts": PROMPTS},
    "episode": {"type": "tools"},
    "episode.tools.0": {"name": "look", "description": "x", "parameters": {"type": "object"}},
    "episode.tools.0.sandbox": {"pool": "pool"},
    "podTemplate.rdma": {"resource": "rdma/devices"},
    "podTemplate.topology": {"required": "rack"},
}
"""What has to be beside a number where a manifest has no such part."""
AUTO = {"topology.nodes": "auto", "topology.trainer.nodes": None, "topology.rollout.nodes": None}
MANY = {"algorithm.rolloutBatchSize": 10**9, "algorithm.samplesPerPrompt": 10**4, "algorithm.globalBatchSize": None}
TOGETHER: tuple[dict[str, Any], ...] = (
    {"topology.gpusPerNode": 10**11, "topology.rollout.gpusPerEngine": 7},
    {"topology.rollout.gpusPerEngine": 10**11, "topology.rollout.tensor": 7},
    {"topology.rollout.gpusPerEngine": 10**11, "topology.rollout.tensor": 10**11, "topology.rollout.expert": 7},
    {**AUTO, **MANY, "topology.placement": "split", "topology.nodes": 10**11},
    # As large as the schema lets each be.
    {"topology.gpusPerNode": 1024, "topology.rollout.gpusPerEngine": 7},
    {"topology.rollout.gpusPerEngine": 65536, "topology.rollout.tensor": 7},
    {"topology.rollout.gpusPerEngine": 65536, "topology.rollout.tensor": 65536, "topology.rollout.expert": 7},
    {**AUTO, **MANY, "topology.placement": "split", "topology.nodes": 16384, "topology.gpusPerNode": 4},
    {**AUTO, "topology.placement": "split", "evaluation.engines": 65536},
    # Never fits, however many nodes.
    {**AUTO, **MANY, "topology.trainer.maxTokensPerGpu": 2**40},
    {**AUTO, **MANY, "topology.placement": "split", "topology.nodes": 16384, "topology.trainer.maxTokensPerGpu": 2**40},
)


def integers(node: dict[str, Any], path: tuple[str, ...] = ()) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield path and schema of each integer; `0` stands for an item of a list, `any` for a key."""
    if node.get("type") == "integer" or node.get("x-kubernetes-int-or-string"):
        yield ".".join(path), node
    for name, child in node.get("properties", {}).items():
        yield from integers(child, (*path, name))
    for word, key in (("0", "items"), ("any", "additionalProperties")):
        if isinstance(node.get(key), dict):
            yield from integers(node[key], (*path, word))


def with_numbers(spec: dict[str, Any], numbers: dict[str, Any]) -> dict[str, Any]:
    """Return a spec with these numbers, and what has to be beside them."""
    changed = copy.deepcopy(spec)
    for path, number in numbers.items():
        parts, node = path.split("."), changed
        for depth, part in enumerate(parts[:-1], 1):
            fresh: Any = [{}] if parts[depth] == "0" else copy.deepcopy(ASIDE.get(".".join(parts[:depth]), {}))
            if isinstance(node, list):
                node[0] = {**ASIDE.get(".".join(parts[:depth]), {}), **node[0]}
                node = node[0]
            else:
                node[part] = node.get(part) or fresh
                node = node[part]
        if isinstance(node, list):
            node[0] = number
        else:
            node[parts[-1]] = number
    for path in [p for p, number in numbers.items() if number is None]:
        *parents, leaf = path.split(".")
        del reduce(dict.__getitem__, parents, changed)[leaf]
    return changed


def table() -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield name and manifest."""
    schema = crd()["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]
    fields = {path: {*NUMBERS, *filter(None, [node.get("maximum")])} for path, node in integers(schema)}
    assert len(fields) > 100
    for base, document in BASES.items():
        meta = {"uid": "u", "generation": 1, "resourceVersion": "1", "namespace": "x", "creationTimestamp": "2026-01-01T00:00:00Z"}
        rows = [
            {path: number}
            for path, numbers in fields.items()
            for number in sorted(numbers)
            if base == "laptop" or path.split(".")[0] != "podTemplate"
        ]
        for row in (*rows, *TOGETHER):
            yield f"{base}: {row}", {**document, "metadata": {**document["metadata"], **meta}, "spec": with_numbers(document["spec"], row)}


@pytest.mark.timeout(1500)
def test_no_number_holds_the_operator_up() -> None:
    manifests = "".join(json.dumps(row) + "\n" for row in table())
    command = [sys.executable, str(Path(__file__).with_name("large_numbers.py"))]
    done = subprocess.run(command, input=manifests, capture_output=True, text=True, timeout=1200, check=False)
    lines = done.stdout.splitlines()
    assert done.returncode == 0, f"{lines[-1:]}: {done.stderr[-2000:]}"
    answers = [json.loads(line) for line in lines if line.startswith("[")]
    assert len(answers) == len(manifests.splitlines())
    planned = [name for name, _, message in answers if "need less memory" in str(message)]
    assert any("maxTokensPerGpu" in name for name in planned)
    assert not [name for name, allowed, _ in answers if allowed and ("100000000000" in name or "topology.nodes': 2147483648" in name)]
