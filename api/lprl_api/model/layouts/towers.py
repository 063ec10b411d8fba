"""Weights beside the language model: vision towers and their projectors, from config.json. They are neither trained nor quantised."""

from collections.abc import Callable, Mapping
from typing import Any

from lprl_api.model.config_reader import Reader

Count = Callable[[Reader, Mapping[str, Any], int], int]
"""(reader of vision_config, the whole config, hidden size of the language model) -> weights."""


def _linear(rows: int, cols: int) -> int:
    """Weight and bias."""
    return rows * cols + rows


def _layer(hidden: int, ffn: int) -> int:
    """An encoder layer with biases: two norms of two vectors, four projections, two of the MLP."""
    return 4 * hidden + 4 * _linear(hidden, hidden) + _linear(ffn, hidden) + _linear(hidden, ffn)


def _patch(vision: Reader) -> int:
    """Values of a patch that a convolution over frames reads."""
    return vision.number("in_channels", 3) * vision.number("temporal_patch_size", 2) * vision.number("patch_size", 14) ** 2


def _qwen3(vision: Reader, config: Mapping[str, Any], text: int) -> int:
    hidden, ffn, out = vision.number("hidden_size"), vision.number("intermediate_size"), vision.number("out_hidden_size", text)
    patch = vision.number("in_channels", 3) * vision.number("temporal_patch_size", 2) * vision.number("patch_size", 16) ** 2
    merged = hidden * vision.number("spatial_merge_size", 2) ** 2
    found = vision.values.get("deepstack_visual_indexes")
    deeper = len(found) if isinstance(found, list) else 0
    merger = _linear(merged, merged) + _linear(out, merged)
    positions = vision.number("num_position_embeddings", 2304) * hidden
    mergers = merger + 2 * hidden + deeper * (merger + 2 * merged)
    return _linear(hidden, patch) + positions + vision.number("depth") * _layer(hidden, ffn) + mergers


def _kimi_k25(vision: Reader, config: Mapping[str, Any], text: int) -> int:
    def said(published: str, renamed: str, default: int) -> int:
        return vision.number(published, vision.number(renamed, default))

    hidden, ffn = said("vt_hidden_size", "hidden_size", 1152), said("vt_intermediate_size", "intermediate_size", 4304)
    grid = said("init_pos_emb_height", "pos_emb_height", 64) * said("init_pos_emb_width", "pos_emb_width", 64)
    kernel = vision.values.get("merge_kernel_size", (2, 2))
    merged, projected = hidden * kernel[0] * kernel[1], said("mm_hidden_size", "projection_hidden_size", 1152)
    tower = _linear(hidden, 3 * vision.number("patch_size", 14) ** 2) + grid * hidden + 2 * hidden
    tower += said("vt_num_hidden_layers", "num_hidden_layers", 27) * _layer(hidden, ffn)
    return tower + 2 * projected + _linear(merged, merged) + _linear(text, merged)


def _llama4(vision: Reader, config: Mapping[str, Any], text: int) -> int:
    hidden, ffn = vision.number("hidden_size", 768), vision.number("intermediate_size", 5632)
    patch, image = vision.number("patch_size", 14), vision.number("image_size", 448)
    tower = hidden * vision.number("num_channels", 3) * patch**2 + hidden * (2 + (image // patch) ** 2) + 4 * hidden
    tower += vision.number("num_hidden_layers", 34) * _layer(hidden, ffn)
    into, out = vision.number("projector_input_dim", 4096), vision.number("projector_output_dim", 4096)
    return tower + ffn * into + out * out + vision.number("vision_output_dim", 7680) * text


def _gemma4(vision: Reader, config: Mapping[str, Any], text: int) -> int:
    hidden, ffn, dim = vision.number("hidden_size"), vision.number("intermediate_size"), vision.number("head_dim", 64)
    heads = vision.number("num_attention_heads")
    keys = vision.number("num_key_value_heads", heads)
    layer = 4 * hidden + hidden * dim * (2 * heads + 2 * keys) + 2 * dim + 3 * hidden * ffn
    tower = 3 * vision.number("patch_size", 16) ** 2 * hidden + 2 * vision.number("position_embedding_size", 10240) * hidden
    tower += 2 * hidden if vision.flag("standardize", False) else 0
    return tower + vision.number("num_hidden_layers") * layer + hidden * text


def _minimax_m3(vision: Reader, config: Mapping[str, Any], text: int) -> int:
    hidden, ffn = vision.number("hidden_size", 1280), vision.number("intermediate_size", 5120)
    said = vision.values.get("img_token_compression_config")
    compression = Reader(said if isinstance(said, Mapping) else {}, "vision_config.img_token_compression_config.")
    frames = vision.number("temporal_patch_size", compression.number("temporal_patch_size", 2))
    merge = vision.number("spatial_merge_size", compression.number("spatial_merge_size", 2))
    tower = hidden * vision.number("num_channels", 3) * frames * vision.number("patch_size", 14) ** 2 + 2 * hidden
    tower += vision.number("num_hidden_layers", 32) * _layer(hidden, ffn)
    wide = Reader(config, "").number("projector_hidden_size", 6144)
    return tower + _linear(wide, hidden) + _linear(text, wide) + _linear(wide, text * merge**2) + _linear(text, wide)


def _step3p7(vision: Reader, config: Mapping[str, Any], text: int) -> int:
    hidden, layers = (
        vision.number("width", vision.number("hidden_size", 1536)),
        vision.number("layers", vision.number("num_hidden_layers", 47)),
    )
    ratio = vision.values.get("mlp_ratio", 8960 / 1536)
    ffn = int(hidden * ratio) if isinstance(ratio, int | float) else 0
    patch, image = vision.number("patch_size", 14), vision.number("image_size", 728)
    tower = hidden * vision.number("num_channels", 3) * patch**2 + hidden * (image // patch) ** 2 + 2 * hidden
    tower += layers * (_layer(hidden, ffn) + 2 * hidden)
    tower += _linear(2 * hidden, 9 * hidden) + _linear(4 * hidden, 18 * hidden)
    return tower + 4 * hidden * text + (text if config.get("projector_bias") else 0)


def _qwen2(vision: Reader, config: Mapping[str, Any], text: int) -> int:
    hidden, out = vision.number("embed_dim", 1280), vision.number("hidden_size", text)
    merged = hidden * vision.number("spatial_merge_size", 2) ** 2
    layers = vision.number("depth", 32) * _layer(hidden, hidden * vision.number("mlp_ratio", 4))
    return hidden * _patch(vision) + layers + 2 * hidden + _linear(merged, merged) + _linear(out, merged)


def _qwen2_5(vision: Reader, config: Mapping[str, Any], text: int) -> int:
    hidden, ffn, out = vision.number("hidden_size"), vision.number("intermediate_size", 3420), vision.number("out_hidden_size", text)
    merged = hidden * vision.number("spatial_merge_size", 2) ** 2
    layer = 2 * hidden + 4 * _linear(hidden, hidden) + 2 * _linear(ffn, hidden) + _linear(hidden, ffn)
    return hidden * _patch(vision) + vision.number("depth", 32) * layer + hidden + _linear(merged, merged) + _linear(out, merged)


def _glm4v(vision: Reader, config: Mapping[str, Any], text: int) -> int:
    hidden, out = vision.number("hidden_size", 1536), vision.number("out_hidden_size", text)
    positions = (vision.number("image_size", 336) // vision.number("patch_size", 14)) ** 2
    bias = 3 * hidden if vision.flag("attention_bias", False) else 0
    layers = vision.number("depth", 24) * (2 * hidden + 4 * hidden**2 + bias + 3 * hidden * out)
    merger = out**2 + 2 * out + 3 * out * vision.number("intermediate_size", 13696)
    merged = hidden * vision.number("spatial_merge_size", 2) ** 2
    return _linear(hidden, _patch(vision)) + positions * hidden + layers + 2 * hidden + _linear(out, merged) + merger


def _pixtral(vision: Reader, config: Mapping[str, Any], text: int) -> int:
    hidden, ffn, outer = vision.number("hidden_size", 1024), vision.number("intermediate_size", 4096), Reader(config, "")
    tower = hidden * vision.number("num_channels", 3) * vision.number("patch_size", 16) ** 2 + hidden
    tower += vision.number("num_hidden_layers", 24) * (2 * hidden + 4 * hidden**2 + 3 * hidden * ffn)
    bias = 2 * text if outer.flag("multimodal_projector_bias", False) else 0
    return tower + hidden + hidden**2 * outer.number("spatial_merge_size", 2) ** 2 + hidden * text + text**2 + bias


def _siglip(vision: Reader, config: Mapping[str, Any], text: int) -> int:
    hidden, ffn = vision.number("hidden_size", 768), vision.number("intermediate_size", 3072)
    patch, image = vision.number("patch_size", 16), vision.number("image_size", 224)
    tower = _linear(hidden, vision.number("num_channels", 3) * patch**2) + (image // patch) ** 2 * hidden + 2 * hidden
    tower += vision.number("num_hidden_layers", 12) * _layer(hidden, ffn)
    if vision.flag("vision_use_head", True):  # a probe, one more attention, a norm and an MLP
        tower += hidden + 4 * _linear(hidden, hidden) + 2 * hidden + _linear(ffn, hidden) + _linear(hidden, ffn)
    return tower + hidden * text + hidden


TOWERS: Mapping[str, Count] = {
    "qwen2_vl": _qwen2,
    "qwen2_5_vl": _qwen2_5,
    "glm4v": _glm4v,
    "glm4v_moe": _glm4v,
    "mistral3": _pixtral,
    "gemma3": _siglip,
    "qwen3_vl": _qwen3,
    "qwen3_vl_moe": _qwen3,
    "qwen3_5": _qwen3,
    "qwen3_5_moe": _qwen3,
    "kimi_k25": _kimi_k25,
    "llama4": _llama4,
    "gemma4": _gemma4,
    "minimax_m3_vl": _minimax_m3,
    "step3p7": _step3p7,
}
"""model_type of the whole model -> its count."""


def tower_parameters(config: Mapping[str, Any], text: int) -> int | None:
    """Return the weights beside the language model; 0 for a plain one, None for a kind of tower that is in no table.

    `text`: hidden size of the language model, whose keys may lie outside, beside `vision_config`.
    """
    vision, count = config.get("vision_config"), TOWERS.get(str(config.get("model_type")))
    if config.get("text_config") is None and vision is None:
        return 0
    others = (config.get("audio_config"), config.get("speech_config"))
    if count is None or any(others):
        return None
    if vision is None and config.get("model_type") not in ("llama4", "step3p7"):
        return None  # the others' classes have no tower of their own size
    return count(Reader(vision if isinstance(vision, Mapping) else {}, "vision_config."), config, text)
