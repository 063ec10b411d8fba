"""A micro-batch without padding and with shared prompts, against transformers on every sample by itself."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers

from lprl_api.model.hf_config import shape_from_config
from lprl_fixtures.generate import ModelOptions, generate_model
from lprl_workload.episode import TrainSample
from lprl_workload.hf.folder import read_folder
from lprl_workload.hf.model import build_model
from lprl_workload.hf.slots import weight_slots
from lprl_workload.train import policy as policy_module
from lprl_workload.train.batch import collate
from lprl_workload.train.policy import Policy

CPU = torch.device("cpu")
SHARED, OTHER, LONGER, LONE, SHORT = (5, 6, 7, 8, 9), (9, 8, 7, 6, 5), (3, 4, 5, 6, 7, 8, 9, 10), (11, 12, 13), (14, 15)
RESPONSES = (
    (SHARED, (20, 21, 22, 23)), (OTHER, (31, 32, 33)), (LONE, (24, 25, 26, 27, 28)), (SHARED, (20, 29, 41, 42, 21, 40)), (LONGER, (30,)),
    (OTHER, (31, 32, 33)), (SHARED, ()), (LONGER, (33, 32, 31, 30, 29)), (SHORT, (34,)), (SHORT, (35,)), (LONE[:1], ()),
)  # fmt: skip


def sample(prompt: tuple[int, ...], response: tuple[int, ...]) -> TrainSample:
    """A prompt and a response; a token of 39 and above in it is the world's."""
    mask = [False] * len(prompt) + [token < 39 for token in response]
    nothing = np.zeros(sum(mask), np.float32)
    return TrainSample(np.array(prompt + response, np.int32), np.array(mask, np.bool_), nothing, nothing)


def samples() -> list[TrainSample]:
    return [sample(*pair) for pair in RESPONSES]


def test_a_prompt_is_laid_down_once_and_a_last_token_never() -> None:
    batch = collate([sample(SHARED, (20 + n, 30, 35)) for n in range(8)], CPU)
    assert batch.input_ids.tolist() == [[*SHARED, *(token for n in range(8) for token in (20 + n, 30))]]
    assert batch.positions.tolist() == [[0, 1, 2, 3, 4, *[5, 6] * 8]]
    assert batch.predictors.tolist()[0] == 4 and len(batch.predictors) == 1 + 16, "the first tokens share a predictor"
    assert batch.targets.tolist()[:8] == list(range(20, 28))
    assert sorted(batch.cells.tolist()) == list(range(24))


@pytest.fixture(scope="module", params=["llama", "qwen3", "qwen3-moe", "moonlight"])
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp(request.param)
    generate_model(path, ModelOptions(architecture=request.param, size="tiny", seed=1))
    return path


def filled(folder: Path) -> transformers.PreTrainedModel:
    shape = shape_from_config(json.loads((folder / "config.json").read_text()))
    model = build_model(folder, shape, CPU)
    stored = dict(read_folder(folder))
    for slot in weight_slots(model, shape):
        slot.write(stored[slot.name])
    return model


def alone(model: transformers.PreTrainedModel, one: TrainSample) -> tuple[torch.Tensor, torch.Tensor]:
    """Log-probabilities and entropies of one sample's drawn tokens."""
    ids, drawn = torch.from_numpy(one.ids.astype(np.int64)), torch.from_numpy(np.flatnonzero(one.mask))
    logp = (model(input_ids=ids[None], use_cache=False).logits[0] / 0.7).log_softmax(-1)[drawn - 1]
    return logp.gather(1, ids[drawn, None])[:, 0], -(logp.exp() * logp).sum(-1)


@pytest.mark.parametrize("recompute", [False, True], ids=["kept", "recomputed-in-chunks-of-three-positions"])
def test_values_and_gradients_are_those_of_each_sample_alone(folder: Path, recompute: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    plain, packed = filled(folder), filled(folder)
    if recompute:
        monkeypatch.setattr(policy_module, "LOGIT_ELEMENTS", 3 * packed.config.vocab_size)
    policy = Policy(packed, recompute).train()
    batch = collate(samples(), CPU)
    logp, entropy = (batch.spread(value) for value in policy(batch, 0.7, entropy_gradient=True))
    weight = torch.arange(1.0, logp.numel() + 1).view_as(logp) / 10
    ((logp + 0.3 * entropy) * weight).sum().backward()
    for row, one in enumerate(samples()):
        length = one.drawn_tokens
        want, want_entropy = alone(plain, one)
        torch.testing.assert_close(logp[row, :length], want, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(entropy[row, :length], want_entropy, rtol=1e-5, atol=1e-5)
        assert not logp[row, length:].any()
        ((want + 0.3 * want_entropy) * weight[row, :length]).sum().backward()
    for (name, found), wanted in zip(packed.named_parameters(), plain.parameters(), strict=True):
        if wanted.grad is not None:
            error = (found.grad - wanted.grad).norm() / wanted.grad.norm().clamp(min=1e-6)
            assert float(error) < 1e-4, name
