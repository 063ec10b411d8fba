"""The benchmark against a real engine: the padded model, the trainer's log-probabilities, and the figures made of them."""

import json
import math
from pathlib import Path

import pytest
import torch
from benchmarks.real.padded import write_padded
from benchmarks.real.served import mismatch, questions, trainer_logprobs
from safetensors.torch import load_file
from transformers import LlamaConfig, LlamaForCausalLM

from lprl_api.spec.precision import Precision

BF16 = Precision.model_validate({"training": "bf16", "rollout": "bf16"})
PROMPTS, ANSWERS = [[3, 1, 4], [1, 5]], [[9, 2, 6], [5]]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One layer with the real model's widths, a small vocabulary and random weights."""
    folder = tmp_path_factory.mktemp("llama")
    torch.manual_seed(0)
    config = LlamaConfig(
        hidden_size=576, num_attention_heads=9, num_key_value_heads=3, head_dim=64, intermediate_size=256, num_hidden_layers=1,
        vocab_size=64, tie_word_embeddings=True, rms_norm_eps=1e-5,
    )  # fmt: skip
    LlamaForCausalLM(config).to(torch.bfloat16).save_pretrained(folder)
    return folder


def test_the_padded_model_computes_the_same_function(model: Path, tmp_path: Path) -> None:
    write_padded(model, tmp_path / "wide")
    config = json.loads((tmp_path / "wide" / "config.json").read_text())
    assert (config["hidden_size"], config["num_attention_heads"], config["num_key_value_heads"]) == (768, 12, 4)
    linear = {n: t for n, t in load_file(tmp_path / "wide" / "model.safetensors").items() if t.ndim == 2 and "embed" not in n}
    assert len(linear) == 7 and all(size % 128 == 0 for tensor in linear.values() for size in tensor.shape)
    narrow, wide = (trainer_logprobs(folder, BF16, PROMPTS, ANSWERS) for folder in (model, tmp_path / "wide"))
    # Norm weights are rounded to BF16 after they were rescaled, so the two are near, not equal.
    assert mismatch(narrow, wide)["k3"] < 1e-5


def test_the_trainer_scores_the_answers_not_the_prompts(model: Path) -> None:
    reference = LlamaForCausalLM.from_pretrained(model, dtype=torch.float32).eval()
    for prompt, answer, found in zip(PROMPTS, ANSWERS, trainer_logprobs(model, BF16, PROMPTS, ANSWERS), strict=True):
        with torch.no_grad():
            logits = reference(torch.tensor([prompt + answer])).logits[0].log_softmax(-1)
        wanted = [logits[len(prompt) - 1 + i, token].item() for i, token in enumerate(answer)]
        assert found == pytest.approx(wanted, abs=1e-4)


def test_figures_of_a_known_difference() -> None:
    found = mismatch([[-1.0, -2.0], [-3.0]], [[-1.0, -2.0 + math.log(3.0)], [-3.0]])
    assert found["tokens"] == 3 and found["k3"] == pytest.approx((3.0 - 1.0 - math.log(3.0)) / 3)
    assert found["logprob_diff_max"] == pytest.approx(math.log(3.0)) and found["ratio_outside_half_to_two"] == pytest.approx(1 / 3)
    # weights 1, 3, 1 of tokens and 3, 1 of answers
    assert found["effective_sample_size_tokens"] == pytest.approx(25 / 33)
    assert found["effective_sample_size_sequences"] == pytest.approx(16 / 20)


def test_no_question_is_asked_twice() -> None:
    assert len(set(questions())) == len(questions()) == 256
