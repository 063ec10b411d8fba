"""Known shapes: rows for spec.model.shape, so that a plan needs no pod. Values are those of the published config.json."""

from typing import Literal

from lprl_api.model.model_shape import Mla, ModelShape, Moe
from lprl_api.model.shapes_planned import PLANNED_SHAPES

_Family = Literal["llama", "qwen2", "qwen3", "qwen3-moe", "deepseek-v3"]
_ARCHITECTURES: dict[_Family, str] = {
    "llama": "LlamaForCausalLM",
    "qwen2": "Qwen2ForCausalLM",
    "qwen3": "Qwen3ForCausalLM",
    "qwen3-moe": "Qwen3MoeForCausalLM",
    "deepseek-v3": "DeepseekV3ForCausalLM",
}


def _dense(
    family: _Family, layers: int, hidden: int, heads: int, kv: int, ffn: int, *, vocab: int, tied: bool, positions: int
) -> ModelShape:
    return ModelShape(
        architecture=_ARCHITECTURES[family],
        family=family,
        layers=layers,
        hidden=hidden,
        heads=heads,
        kv_heads=kv,
        head_dim=128 if family == "qwen3" else hidden // heads,
        ffn=ffn,
        vocab=vocab,
        tied_embeddings=tied,
        qk_norm=family == "qwen3",
        attention_bias=family == "qwen2",
        max_positions=positions,
    )


def _qwen3(layers: int, hidden: int, heads: int, ffn: int, tied: bool) -> ModelShape:
    return _dense("qwen3", layers, hidden, heads, 8, ffn, vocab=151936, tied=tied, positions=40960)


def _qwen3_moe(layers: int, hidden: int, heads: int, ffn: int, expert_ffn: int) -> ModelShape:
    return ModelShape(
        architecture=_ARCHITECTURES["qwen3-moe"],
        family="qwen3-moe",
        layers=layers,
        hidden=hidden,
        heads=heads,
        kv_heads=4,
        head_dim=128,
        ffn=ffn,
        vocab=151936,
        tied_embeddings=False,
        qk_norm=True,
        max_positions=40960,
        moe=Moe(experts=128, experts_per_token=8, expert_ffn=expert_ffn),
    )


def _deepseek(
    layers: int,
    hidden: int,
    heads: int,
    ffn: int,
    moe: Moe,
    *,
    q_lora: int | None,
    vocab: int,
    positions: int,
    mtp: int = 0,
    architecture: str = _ARCHITECTURES["deepseek-v3"],
) -> ModelShape:
    return ModelShape(
        architecture=architecture,
        family="deepseek-v3",
        layers=layers,
        hidden=hidden,
        heads=heads,
        kv_heads=heads,
        head_dim=192,
        ffn=ffn,
        vocab=vocab,
        tied_embeddings=False,
        max_positions=positions,
        moe=moe,
        mla=Mla(q_lora_rank=q_lora, kv_lora_rank=512, qk_nope_head_dim=128, qk_rope_head_dim=64, v_head_dim=128),
        mtp_layers=mtp,
    )


def _moe(experts: int, top: int, ffn: int, shared: int, dense: int) -> Moe:
    return Moe(experts=experts, experts_per_token=top, expert_ffn=ffn, shared_expert_ffn=shared, dense_layers=dense)


SHAPES: dict[str, ModelShape] = {
    # huggingface.co/Qwen/Qwen3-*/blob/main/config.json
    "qwen3-0.6b": _qwen3(28, 1024, 16, 3072, tied=True),
    "qwen3-1.7b": _qwen3(28, 2048, 16, 6144, tied=True),
    "qwen3-4b": _qwen3(36, 2560, 32, 9728, tied=True),
    "qwen3-8b": _qwen3(36, 4096, 32, 12288, tied=False),
    "qwen3-14b": _qwen3(40, 5120, 40, 17408, tied=False),
    "qwen3-32b": _qwen3(64, 5120, 64, 25600, tied=False),
    "qwen3-30b-a3b": _qwen3_moe(48, 2048, 32, 6144, 768),
    "qwen3-235b-a22b": _qwen3_moe(94, 4096, 64, 12288, 1536),
    # huggingface.co/Qwen/Qwen2.5-*/blob/main/config.json
    "qwen2.5-0.5b": _dense("qwen2", 24, 896, 14, 2, 4864, vocab=151936, tied=True, positions=32768),
    "qwen2.5-7b": _dense("qwen2", 28, 3584, 28, 4, 18944, vocab=152064, tied=False, positions=131072),
    # huggingface.co/meta-llama/Llama-3.1-*, Llama-3.2-1B
    # huggingface.co/HuggingFaceTB/SmolLM2-135M-Instruct
    "smollm2-135m": _dense("llama", 30, 576, 9, 3, 1536, vocab=49152, tied=True, positions=8192),
    "llama-3.1-8b": _dense("llama", 32, 4096, 32, 8, 14336, vocab=128256, tied=False, positions=131072),
    "llama-3.1-70b": _dense("llama", 80, 8192, 64, 8, 28672, vocab=128256, tied=False, positions=131072),
    "llama-3.2-1b": _dense("llama", 16, 2048, 32, 8, 8192, vocab=128256, tied=True, positions=131072),
    # huggingface.co/moonshotai/Moonlight-16B-A3B, Kimi-K2-Thinking; deepseek-ai/DeepSeek-V3
    "moonlight-16b-a3b": _deepseek(27, 2048, 16, 11264, _moe(64, 6, 1408, 2816, 1), q_lora=None, vocab=163840, positions=8192),
    "kimi-k2-thinking": _deepseek(61, 7168, 64, 18432, _moe(384, 8, 2048, 2048, 1), q_lora=1536, vocab=163840, positions=262144),
    "deepseek-v3": _deepseek(61, 7168, 128, 18432, _moe(256, 8, 2048, 2048, 3), q_lora=1536, vocab=129280, positions=163840, mtp=1),
    **PLANNED_SHAPES,
}


def known_shapes() -> str:
    """Return the rows as a list for messages."""
    return ", ".join(SHAPES)
