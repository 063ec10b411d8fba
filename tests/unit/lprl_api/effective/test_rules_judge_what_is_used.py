"""A rule looks at the value that is used in the end: a default that follows from other fields counts as if it were written."""

import copy
from pathlib import Path
from typing import Any

import pytest
import yaml

from lprl_api.catalog.presets import PRESETS, preset_manifest
from lprl_api.derived.effective import effective
from lprl_api.derived.trained import trained_document
from lprl_api.field_error import FieldError, InvalidJob
from lprl_api.model.shapes import SHAPES
from lprl_api.rules.case import Case
from lprl_api.rules.check import check
from lprl_api.rules.parse import parse_job
from lprl_api.spec.job import LowPrecisionRLJobSpec

TABLE = Path(__file__).parents[1] / "illegal"
BASES: dict[str, dict[str, Any]] = {
    **yaml.safe_load((TABLE / "bases.yaml").read_text()),
    **{name: preset_manifest(name) for name in PRESETS},
}
HELD_OUT = {"prompts": {"volume": "data", "path": "test.jsonl"}}


def spec_of(base: str, changes: dict[str, Any]) -> LowPrecisionRLJobSpec:
    document = copy.deepcopy(BASES[base])
    for path, value in changes.items():
        node = document if path.startswith("/") else document["spec"]
        *parents, leaf = path.removeprefix("/").split(".")
        for part in parents:
            node = node.setdefault(part, {})
        node[leaf] = value
        if value == "~~":
            del node[leaf]
    return parse_job(document).spec


def evaluation(**fields: Any) -> dict[str, Any]:
    return {"evaluation": {**HELD_OUT, **fields}}


FOUR = {"samplesPerPrompt": 4, "passAt": [1, 4]}
SPLIT_16 = {"topology.rollout.gpusPerEngine": 16, "topology.rollout.tensor": 8}
DYNAMIC = {"algorithm.dynamicSampling.enabled": True}
# (what, base, changes, {field: text in its remedy}); no field: legal.
ROWS: list[tuple[str, str, dict[str, Any], dict[str, str]]] = [
    ("evaluation is greedy by default", "laptop", evaluation(**FOUR), {"evaluation.samplesPerPrompt": "without evaluation.sampling"}),
    ("evaluation greedy as written", "laptop", evaluation(**FOUR, sampling={"temperature": 0}), {"evaluation.samplesPerPrompt": "1 with"}),
    ("evaluation with topK 1", "laptop", evaluation(**FOUR, sampling={"topK": 1}), {"evaluation.samplesPerPrompt": "topK not 1"}),
    ("evaluation with a tiny nucleus", "laptop", evaluation(**FOUR, sampling={"topP": 1e-4}), {"evaluation.samplesPerPrompt": "topP"}),
    ("evaluation nearly at 0", "laptop", evaluation(**FOUR, sampling={"temperature": 1e-6}), {"evaluation.samplesPerPrompt": "0.01"}),
    ("evaluation that samples", "laptop", evaluation(**FOUR, sampling={"temperature": 0.6}), {}),
    ("one greedy answer", "laptop", evaluation(), {}),
    ("training with topK 1", "laptop", {"sampling.topK": 1}, {"sampling.topK": "at least 2"}),
    ("training nearly at 0", "laptop", {"sampling.temperature": 1e-4}, {"sampling.temperature": "at least 0.01"}),
    ("training with a tiny nucleus", "laptop", {"sampling.topP": 1e-6}, {"sampling.topP": "at least 0.01"}),
    ("training with topK 2", "laptop", {"sampling.topK": 2, "sampling.temperature": 0.05}, {}),
    (
        "filter of one-sample groups",
        "laptop",
        DYNAMIC | {"algorithm.name": "reinforce-plus-plus", "algorithm.samplesPerPrompt": 1},
        {"algorithm.samplesPerPrompt": "no group is kept"},
    ),
    (
        "whitening one sample",
        "laptop",
        {"algorithm.name": "reinforce-plus-plus", "algorithm.samplesPerPrompt": 1, "algorithm.rolloutBatchSize": 1},
        {"algorithm.rolloutBatchSize": "whitens"},
    ),
    ("one sample a prompt, many prompts", "laptop", {"algorithm.name": "reinforce-plus-plus", "algorithm.samplesPerPrompt": 1}, {}),
    (
        "batch by default too small for the ranks",
        "qwen3-4b-fp8",
        {"algorithm.globalBatchSize": "~~", "algorithm.rolloutBatchSize": 1, "algorithm.samplesPerPrompt": 2},
        {"algorithm.globalBatchSize": "at least 4"},
    ),
    (
        "batch too small for the fewest nodes auto can take",
        "qwen3-4b-fp8",
        {"topology.nodes": "auto", "algorithm.globalBatchSize": 2},
        {"algorithm.globalBatchSize": "at least 4"},
    ),
    (
        "trainer nodes that the rollout leaves",
        "split",
        {"topology.trainer": {"tensor": 4, "pipeline": 4, "sequenceParallel": True}, "topology.nodes": 3},
        {"topology.nodes": "2 (rollout.nodes) plus a multiple of 2"},
    ),
    (
        "rollout nodes that the trainer leaves",
        "split",
        SPLIT_16 | {"topology.rollout.nodes": "~~", "topology.nodes": 2},
        {"topology.rollout.gpusPerEngine": "8 GPUs of its 1 nodes"},
    ),
    ("rollout nodes that fit", "split", SPLIT_16 | {"topology.rollout.nodes": "~~"}, {}),
    (
        "positions bound a longer contextLength",
        "laptop",
        {"topology.rollout.contextLength": 100000, "sampling.maxResponseTokens": 50000},
        {"topology.rollout.contextLength": "at most 40960", "sampling.maxResponseTokens": "40960 positions"},
    ),
    ("a prompt limit beyond the context", "laptop", {"data.maxPromptTokens": 41000}, {"data.maxPromptTokens": "at most 40959"}),
    (
        "int4 export of routed experts",
        "laptop",
        {
            "precision": {"training": "bf16", "rollout": "bf16"},
            "model.shape": "moonlight-16b-a3b",
            "sampling.maxResponseTokens": 32,
            "checkpoint.exportFormats": ["bf16", "int4"],
        },
        {},
    ),
    (
        "fp8 export in blocks nobody serves",
        "laptop",
        {"precision.fp8": {"blockSize": [64, 64]}, "checkpoint.exportFormats": ["fp8"]},
        {"precision.fp8.blockSize": "[128, 128]"},
    ),
    ("block size that nothing uses", "laptop", {"precision.fp8": {"blockSize": [64, 64]}}, {}),
    (
        "export that leaves nothing",
        "laptop",
        {"precision": {"training": "bf16", "rollout": "bf16", "excludeModules": ["*"]}, "checkpoint.exportFormats": ["fp8"]},
        {"precision.excludeModules": "export fp8-block"},
    ),
    ("one module of a kernel", "laptop", {"precision.excludeModules": ["*.q_proj"]}, {"precision.excludeModules": "k_proj"}),
    ("a kernel as a whole", "laptop", {"precision.excludeModules": ["*.q_proj", "*.k_proj", "*.v_proj"]}, {}),
    (
        "bounds of no correction",
        "laptop",
        {"algorithm.correction": {"low": 0.5, "high": 1.5}},
        {"algorithm.correction.low": "type none", "algorithm.correction.high": "type none"},
    ),
    ("default bounds written out", "laptop", {"algorithm.correction": {"low": 0.0, "high": 2.0}}, {}),
    ("kl in the reward, coefficient 0", "laptop", {"algorithm.kl": {"placement": "reward", "coefficient": 0}}, {}),
    ("warm-up beyond the run", "laptop", {"optimizer.warmupSteps": 11}, {"optimizer.warmupSteps": "at most 10"}),
    ("warm-up in optimizer steps", "laptop", {"optimizer.warmupSteps": 40, "algorithm.globalBatchSize": 4}, {}),
    (
        "rollback whose checkpoints are all of the drift",
        "laptop",
        {"stability.action": "rollback", "checkpoint.everySteps": 1, "checkpoint.keep": 2},
        {"checkpoint.keep": "at least 3"},
    ),
    ("rollback with sparse checkpoints", "laptop", {"stability.action": "rollback", "checkpoint.keep": 2}, {}),
    (
        "system prompt that no template takes",
        "laptop",
        {"data.applyChatTemplate": False, "data.systemPrompt": "Be brief."},
        {"data.systemPrompt": "applyChatTemplate true"},
    ),
    ("broadcast on one GPU", "qwen3-4b-fp8", {"weightSync.transport": "broadcast"}, {"weightSync.transport": "two NCCL ranks"}),
    ("broadcast between processes", "laptop", {"weightSync.transport": "broadcast"}, {}),
    ("normalizeByStd of an objective without groups", "laptop", {"algorithm.name": "reinforce-plus-plus"}, {}),
    ("a prompts slice smaller than a batch wraps around", "laptop", {"data.prompts.lastRow": 2}, {}),
]


@pytest.mark.parametrize(("base", "changes", "wanted"), [pytest.param(*row[1:], id=row[0]) for row in ROWS])
def test_a_rule_judges_what_is_used(base: str, changes: dict[str, Any], wanted: dict[str, str]) -> None:
    found = {error.path.removeprefix("spec."): error for error in check(spec_of(base, changes))}
    assert set(found) == set(wanted), "\n".join(map(str, found.values()))
    for path, text in wanted.items():
        assert text in found[path].need, found[path]


def fields(errors: list[FieldError]) -> set[str]:
    """Return the fields of errors; an engine's tensor size is named by the field it follows from."""
    return {error.path.replace("rollout.tensor", "rollout.gpusPerEngine") for error in errors}


def test_a_group_must_divide_what_is_exported_too() -> None:
    shape = SHAPES["qwen3-0.6b"].model_copy(update={"ffn": 3136})
    changes = {"model.shape": None, "precision": {"training": "bf16", "rollout": "bf16"}, "checkpoint.exportFormats": ["bf16", "int4"]}
    spec = spec_of("laptop", changes)
    assert [str(error) for error in check(spec, shape)] == [
        "spec.precision.int4.groupSize: got 128; need 64: mlp.down_proj has 3136 input channels (for export int4)"
    ]
    assert check(spec_of("laptop", {**changes, "checkpoint.exportFormats": ["bf16"]}), shape) == []


LEGAL_OR_NOT = [(row[0], row[1], row[2]) for row in ROWS] + [
    (case["id"], case["base"], case["set"]) for case in yaml.safe_load((TABLE / "cases.yaml").read_text())
]


@pytest.mark.parametrize(("base", "changes"), [pytest.param(*row[1:], id=row[0]) for row in LEGAL_OR_NOT])
def test_writing_the_defaults_out_changes_no_verdict(base: str, changes: dict[str, Any]) -> None:
    try:
        spec = spec_of(base, changes)
    except InvalidJob:
        return  # told by the schema
    shape = Case.of(spec, None, None).shape
    written = effective(spec, shape)
    assert effective(written, shape) == written
    assert fields(check(parse_job({**BASES[base], "spec": written.document()}).spec)) == fields(check(spec))


@pytest.mark.parametrize("base", BASES)
def test_a_default_written_out_is_the_same_run(base: str) -> None:
    spec = spec_of(base, {})
    assert trained_document(effective(spec)) == trained_document(spec)
