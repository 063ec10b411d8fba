"""The RunConfig of a run that is a few lines of arithmetic."""

from typing import Any

from lprl_fixtures.runs import ONE_RANK

PATH = {"volume": "v", "path": "p"}
DOCUMENT: dict[str, Any] = {
    "job_name": "j",
    "namespace": "n",
    "job_uid": "u",
    "model_path": PATH,
    "reference_path": PATH,
    "rollout_path": PATH,
    "shape": {
        "architecture": "Qwen3ForCausalLM",
        "family": "qwen3",
        "layers": 1,
        "hidden": 64,
        "heads": 1,
        "kv_heads": 1,
        "head_dim": 64,
        "ffn": 64,
        "vocab": 64,
        "tied_embeddings": True,
    },
    "precision": {"rollout": "fp8"},
    "rollout_format": {"kind": "fp8-block"},
    "training_format": {"kind": "bf16"},
    "data": {"prompts": PATH},
    "algorithm": {"steps": 7, "rollout_batch_size": 3, "samples_per_prompt": 2, "global_batch_size": 3},
    "optimizer": {"learning_rate": 1e-3},
    "sampling": {"max_response_tokens": 4},
    "evaluation": {"every_steps": 3, "prompts": PATH},
    "ranks": ONE_RANK,
    "trainer": {},
    "rollout": {},
    "backends": {},
    "weight_sync": {},
    "checkpoint": {"directory": PATH, "every_steps": 2, "keep": 2, "load_from": None, "export_formats": ["bf16"]},
    "stability": {"absolute_limit": 1.0, "relative_limit": None, "patience": 1},
    "tracking": {},
    "progress": {},
    "refill_steps": 3,
}


def changed(base: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    return base | {k: changed(base[k], v) if isinstance(v, dict) and isinstance(base.get(k), dict) else v for k, v in changes.items()}
