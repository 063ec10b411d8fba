"""What SGLang and vLLM skip of a converted folder, by their rules as restated (and executed) beside, under the names they ask for."""

import json
from collections.abc import Iterator
from pathlib import Path

from tests.unit.lprl_workload.quant import engine_rules as rules

from lprl_workload.folder.model import read_contents
from lprl_workload.quant.rule import Ruled

RUN_AS_ONE = {
    "qkv_proj": ("q_proj", "k_proj", "v_proj"),
    "gate_up_proj": ("gate_proj", "up_proj"),
    "in_proj_qkvz": ("in_proj_qkv", "in_proj_z"),
    "in_proj_ba": ("in_proj_b", "in_proj_a"),
}


def asked(ruled: Ruled, modules: dict[str, bool]) -> Iterator[tuple[str, bool]]:
    """Yield (module as an engine asks, whether it is stored plain): fused ones by their own name, experts as a whole."""
    for module, plain in modules.items():
        base, _, leaf = module.rpartition(".")
        if ".experts." in module:
            yield module[: module.index(".experts.") + len(".experts")], plain
            continue
        together = next(((name, parts) for name, parts in RUN_AS_ONE.items() if leaf in parts), None)
        if together and all(f"{base}.{part}" in modules for part in together[1]):
            yield f"{base}.{together[0]}", plain
        else:
            yield module, plain


def linear_modules(source: Path, ruled: Ruled, taken: set[str]) -> dict[str, bool]:
    """Return the linear layers of a folder -> whether they are stored plain."""
    shapes = {name: tensor.shape for name, tensor in read_contents(source).tensors.items()}
    linear = {n.removesuffix(".weight"): n not in taken for n in ruled.kinds}
    small = ("in_proj_a", "in_proj_b", "in_proj_ba", "shared_expert_gate", "g_proj", "b_proj", "weights_proj", "router")
    for name, shape in shapes.items():
        if ruled.place.layer(name) is not None and len(shape) == 2 and name.rpartition(".")[0].rpartition(".")[2] in small:
            linear[name.removesuffix(".weight")] = name not in taken
    return linear


def check_engines(source: Path, converted: Path, ruled: Ruled, taken: set[str]) -> None:
    """Compare what is stored plain with what the engines' rules skip; `taken`: weights with codes."""
    section = json.loads((converted / "config.json").read_text())["quantization_config"]
    fp8 = section["quant_method"] == "fp8"
    listed = section["modules_to_not_convert" if fp8 else "ignore"]
    linear = linear_modules(source, ruled, taken)
    for rule in (rules.sglang_fp8, rules.vllm_fp8) if fp8 else (rules.sglang_compressed, rules.vllm_compressed):
        wrong = [(name, plain) for name, plain in asked(ruled, linear) if rule(listed, name, {}) != plain]
        assert not wrong, (rule.__name__, wrong[:4])
