"""Whether a multimodal model's head is its embedding where config.json does not say: what transformers 5 takes of the whole model's class.

The language model's own flag (`text_config.tie_word_embeddings`) is not asked by these classes.
"""

TIED = frozenset(
    (
        "aya_vision", "cohere2_vision", "deepseek_vl", "deepseek_vl_hybrid", "ernie4_5_vl_moe", "fun_asr_nano", "gemma3",
        "gemma3n", "gemma4", "glmasr", "got_ocr2", "granite_speech", "hunyuan_vl", "internvl", "janus", "kimi_k25", "lfm2_vl",
        "lighton_ocr", "mistral3", "ovis2", "paddleocr_vl", "paligemma", "qwen3_asr", "voxtral_realtime",
    )
)  # fmt: skip
UNTIED = frozenset(
    (
        "aria", "exaone4_5", "glm4v", "glm4v_moe", "glm46v", "idefics2", "idefics3", "llama4", "llava", "llava_next",
        "llava_next_video", "llava_onevision", "qwen2_5_vl", "qwen2_vl", "qwen3_5", "qwen3_5_moe", "qwen3_vl", "qwen3_vl_moe",
        "smolvlm", "video_llava", "vipllava",
    )
)  # fmt: skip
"""Of both: `model_type` of the whole model."""


def tied_by_class(model_type: str | None) -> bool | None:
    """Return what the class of a whole model takes, None for one that is in no table."""
    return True if model_type in TIED else False if model_type in UNTIED else None
