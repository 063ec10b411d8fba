"""A Hugging Face config.json -> ModelShape for planning: more families than can be trained, every refusal naming the key."""

from collections.abc import Callable, Mapping
from typing import Any

from lprl_api.errors import UserError
from lprl_api.model.config_reader import Reader
from lprl_api.model.hf_config import FAMILIES, first_architecture, language_model, shape_from_config
from lprl_api.model.layouts.decoders import DECODERS, decoder
from lprl_api.model.layouts.ernie import ernie_moe
from lprl_api.model.layouts.hybrid import nemotron_h, qwen2_moe, qwen_hybrid
from lprl_api.model.layouts.kimi_linear import kimi_linear
from lprl_api.model.layouts.latent import deepseek_v4, latent
from lprl_api.model.layouts.source import Source
from lprl_api.model.layouts.ties import tied_by_class
from lprl_api.model.layouts.towers import tower_parameters
from lprl_api.model.layouts.windowed import gemma4, gpt_oss, llama4, mimo_v2, minimax_m3, step3p7
from lprl_api.model.model_shape import ModelShape

BUILDERS: Mapping[str, Callable[[Source], ModelShape]] = {
    "glm4_moe_lite": latent,
    "glm_moe_dsa": latent,
    "deepseek_v2": latent,
    "deepseek_v32": latent,
    "mistral4": latent,
    "deepseek_v4": deepseek_v4,
    "qwen2_moe": qwen2_moe,
    "qwen3_next": qwen_hybrid,
    "qwen3_5": qwen_hybrid,
    "qwen3_5_text": qwen_hybrid,
    "qwen3_5_moe": qwen_hybrid,
    "qwen3_5_moe_text": qwen_hybrid,
    "kimi_linear": kimi_linear,
    "ernie4_5_moe": ernie_moe,
    "nemotron_h": nemotron_h,
    "gpt_oss": gpt_oss,
    "llama4_text": llama4,
    "gemma4_text": gemma4,
    "mimo_v2_flash": mimo_v2,
    "step3p5": step3p7,
    "step3p7": step3p7,
    "minimax_m3": minimax_m3,
    "minimax_m3_vl": minimax_m3,
    "minimax_m3_vl_text": minimax_m3,
}
"""model_type -> the function that reads its layers, for families no row of DECODERS describes."""


def planned_shape(config: Mapping[str, Any]) -> ModelShape:
    """Return the shape of a model from its parsed config.json, of any family that is counted here, towers included.

    Raises UserError naming the key that is missing, malformed or of no known family.
    """
    text, prefix, outer = language_model(config)
    read = Reader(text, prefix)
    model_type = read.text("model_type") or outer.text("model_type")
    shape = _shape(config, text, read, outer, model_type)
    found: dict[str, object] = {"tower_parameters": tower_parameters(config, shape.hidden)}
    found |= {"architecture": whole} if (whole := first_architecture(config)) and shape.family == "other" else {}
    if text is not config and not outer.has("tie_word_embeddings"):
        tied = tied_by_class(outer.text("model_type"))
        found |= {} if tied is None else {"tied_embeddings": tied}
    return shape.model_copy(update=found)


def _shape(config: Mapping[str, Any], text: Mapping[str, Any], read: Reader, outer: Reader, model_type: str | None) -> ModelShape:
    if model_type is None or model_type in FAMILIES:
        return shape_from_config(config)
    source = Source(text, read, outer, first_architecture(text) or first_architecture(config) or model_type)
    if model_type in BUILDERS:
        return BUILDERS[model_type](source)
    if model_type in DECODERS:
        return decoder(source, DECODERS[model_type])
    raise UserError(
        f"config.json: {'text_config.' if read.has('model_type') and text is not config else ''}model_type: got {model_type!r}; "
        f"no weights are counted of this family",
        f"a model of one of {', '.join(sorted({*FAMILIES, *BUILDERS, *DECODERS}))}",
    )
