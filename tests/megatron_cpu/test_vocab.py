"""The output head over a cut vocabulary: its own backward pass is what autograd makes of the formulas, in pieces and whole."""

from itertools import product
from pathlib import Path

import pytest
import torch
from tests.megatron_cpu.crew import Job, run
from tests.megatron_cpu.models import write_model
from torch import Tensor

from lprl_workload.config import RankInfo
from lprl_workload.hf.packed_attention import whole
from lprl_workload.train.batch import MicroBatch
from lprl_workload.train.megatron import vocab
from lprl_workload.train.megatron.ranks import Ranks
from lprl_workload.train.megatron.stages import Stages
from lprl_workload.train.mesh import TrainMesh

STATES, CHANNELS, TOKENS = 13, 8, 24
CASES = tuple(product((1.0, 0.7), (True, False), (1 << 20, 5 * TOKENS)))
"""Temperature, whether entropies have a gradient, and logits at a time."""
Found = dict[str, Tensor]


def made() -> tuple[Tensor, Tensor, MicroBatch, Tensor]:
    """Return hidden states [N, 1, H], weights [V, H], what is asked of them, and the gradient of each answer [2, T]."""
    draw = torch.Generator().manual_seed(3)
    hidden, weight = (torch.randn(*size, generator=draw) for size in ((STATES + 4, 1, CHANNELS), (TOKENS, CHANNELS)))
    rows = torch.tensor([0, 1, 1, 1, 2, 4, 5, 6, 7, 8, 8, 9, 10, 11, 12])
    targets = torch.randint(TOKENS, rows.shape, generator=draw)
    ids = torch.zeros((1, STATES + 4), dtype=torch.int64)
    layout = (whole([STATES + 4], ids.device),)
    batch = MicroBatch(ids, ids, layout, torch.arange(2, STATES + 2), rows, targets, rows, (1, len(rows)), (len(rows),))
    return hidden, weight, batch, torch.randn(2, len(rows), generator=draw)


def plain(temperature: float, entropy_gradient: bool) -> Found:
    """Return answers and gradients of whole logits."""
    hidden, weight, batch, grads = made()
    hidden.requires_grad_(), weight.requires_grad_()
    logp = (hidden[:, 0][batch.predictors] @ weight.t() / temperature).log_softmax(-1)
    entropy = -(logp.exp() * logp).sum(-1)[batch.rows]
    found = torch.stack([logp[batch.rows, batch.targets], entropy if entropy_gradient else entropy.detach()])
    torch.autograd.backward(found, grads)
    assert hidden.grad is not None and weight.grad is not None
    return {"found": found.detach(), "of_hidden": hidden.grad, "of_weight": weight.grad}


def on_rank(job: Job, rank: RankInfo) -> list[Found]:
    """Answer every case with this rank's part of the vocabulary: the last one has padding."""
    ranks, answers = Ranks(rank, job.mesh), []
    for temperature, entropy_gradient, at_a_time in CASES:
        hidden, weight, batch, grads = made()
        share = TOKENS // job.mesh.tp + 3
        first = share * ranks.place.tensor
        mine = weight[first : first + share]
        padded = torch.cat([mine, torch.full((share - len(mine), CHANNELS), 50.0)]).requires_grad_()
        hidden.requires_grad_()
        vocab.LOGIT_ELEMENTS = at_a_time  # of this process, which ends with its answers
        head = vocab.VocabHead(first, len(mine), ranks.tensor_group, sequence_parallel=False)
        found = torch.stack(head(hidden, padded, batch, temperature, entropy_gradient))
        torch.autograd.backward(found, grads)
        assert hidden.grad is not None and padded.grad is not None
        assert not padded.grad[len(mine) :].any()
        answers.append({"found": found.detach(), "of_hidden": hidden.grad, "of_weight": padded.grad[: len(mine)]})
    ranks.close()
    return answers


@pytest.mark.parametrize("tensor", [1, 2])
def test_values_and_gradients_are_those_of_whole_logits(tmp_path: Path, tensor: int) -> None:
    job = Job(tmp_path, write_model(tmp_path, "qwen3"), TrainMesh(tp=tensor), Stages((2,)), [])
    ranks = run(job, on_rank)
    for number, (temperature, entropy_gradient, _) in enumerate(CASES):
        wanted = plain(temperature, entropy_gradient)
        for answers in ranks:
            torch.testing.assert_close(answers[number]["found"], wanted["found"], rtol=1e-5, atol=1e-6)
            torch.testing.assert_close(answers[number]["of_hidden"], wanted["of_hidden"], rtol=1e-5, atol=1e-6)
        of_weight = torch.cat([answers[number]["of_weight"] for answers in ranks])
        torch.testing.assert_close(of_weight, wanted["of_weight"], rtol=1e-5, atol=1e-6)
