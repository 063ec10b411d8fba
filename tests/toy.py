"""The smallest model that control-plane tests of every kind speak of; nobody loads it."""

from lprl_api.model.model_shape import ModelShape

SHAPE = ModelShape(
    architecture="Qwen3ForCausalLM",
    family="qwen3",
    layers=2,
    hidden=128,
    heads=4,
    kv_heads=2,
    head_dim=32,
    ffn=256,
    vocab=64,
    tied_embeddings=True,
    qk_norm=True,
)
