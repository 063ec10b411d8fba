"""Real models through Megatron on gloo ranks: transformers' log-probabilities, and the folder's own bits handed out again."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.megatron_cpu.crew import Job, run
from tests.megatron_cpu.models import CHOOSING, GROUPED, SHARING, is_beside, reference_logprobs, samples, stored, write_model

from lprl_api.errors import UserError
from lprl_fixtures.architectures import Architecture
from lprl_workload.config import RankInfo
from lprl_workload.episode import TrainSample
from lprl_workload.train.megatron.logprobs import logprobs
from lprl_workload.train.megatron.stages import Stages
from lprl_workload.train.megatron.weights import PartsSource
from lprl_workload.train.mesh import TrainMesh

TEMPERATURE = 0.8
MODELS: dict[str, tuple[Architecture | str, dict[str, Any]]] = {
    "llama": ("llama", {}),
    "qwen2-tied": ("qwen2", {"tie_word_embeddings": True}),
    "qwen3": ("qwen3", {}),
    "qwen3-one-group": ("qwen3", {"num_key_value_heads": 1}),
    "qwen3-moe": ("qwen3-moe", {}),
    "qwen3-moe-unnormed": ("qwen3-moe", {"norm_topk_prob": False}),
    "deepseek-v3": ("deepseek-v3", {}),
    "deepseek-v3-groups": ("deepseek-v3", {"n_group": 2, "topk_group": 1}),
    "moonlight": ("moonlight", {}),
    "glm4_moe": ("glm4_moe", {}),
    "glm-4.6": ("glm4_moe", {"use_qk_norm": True, "attention_bias": True}),
    "glm4_moe_lite": ("glm4_moe_lite", {}),
    "kimi_k25": ("kimi_k25", {}),
    "qwen3_next": ("qwen3_next", GROUPED),
    "qwen3.5": ("qwen3_5", GROUPED),
    "qwen3.5-tied": ("qwen3_5_text", {"tie_word_embeddings": True}),
    "qwen3.5-one-group": ("qwen3_5_text", {"num_key_value_heads": 1}),
    "qwen3.5-moe": ("qwen3_5_moe_text", GROUPED),
    "deepseek-v3.2": ("deepseek_v32", CHOOSING),
    "glm-5": ("glm_moe_dsa", SHARING),
}
CASES: dict[str, tuple[str, TrainMesh, tuple[int, ...], bool]] = {
    "llama": ("llama", TrainMesh(), (4,), False),
    "qwen2-tied": ("qwen2-tied", TrainMesh(), (4,), False),
    "moe-unnormed": ("qwen3-moe-unnormed", TrainMesh(), (4,), False),
    "tp2": ("qwen3", TrainMesh(tp=2), (4,), False),
    "tp2-sp": ("qwen3", TrainMesh(tp=2), (4,), True),
    "tp2-through-a-group": ("qwen3-one-group", TrainMesh(tp=2), (4,), False),
    "pp2-tied": ("qwen2-tied", TrainMesh(pp=2), (2, 2), False),
    "pp2-uneven-moe": ("qwen3-moe", TrainMesh(pp=2), (3, 1), False),
    "pp2-vpp2": ("qwen3", TrainMesh(pp=2, vpp=2), (2, 2), False),
    "ep2": ("qwen3-moe", TrainMesh(dp=2, ep=2), (4,), False),
    "tp2-ep2-sp": ("qwen3-moe", TrainMesh(tp=2, ep=2), (4,), True),
    "tp2-etp2-sp": ("qwen3-moe", TrainMesh(tp=2, etp=2), (4,), True),
    "tp2-pp2": ("qwen3", TrainMesh(tp=2, pp=2), (2, 2), False),
    "tp2-pp2-ep2-sp": ("qwen3-moe", TrainMesh(tp=2, pp=2, ep=2), (2, 2), True),
    "latent-groups": ("deepseek-v3-groups", TrainMesh(), (4,), False),
    "latent-tp2": ("deepseek-v3", TrainMesh(tp=2), (4,), False),
    "latent-tp2-ep2-sp": ("deepseek-v3", TrainMesh(tp=2, ep=2), (4,), True),
    "latent-plain-query-pp2": ("moonlight", TrainMesh(pp=2), (3, 1), False),
    "latent-plain-query-ep2": ("moonlight", TrainMesh(dp=2, ep=2), (4,), False),
    "glm-4.5-tp2": ("glm4_moe", TrainMesh(tp=2), (4,), False),
    "glm-4.6-pp2": ("glm-4.6", TrainMesh(pp=2), (3, 1), False),
    "glm-4.6-ep2": ("glm-4.6", TrainMesh(dp=2, ep=2), (4,), False),
    "glm-4.6-tp2-ep2-sp": ("glm-4.6", TrainMesh(tp=2, ep=2), (4,), True),
    "glm-4.7-flash-pp2-vpp2": ("glm4_moe_lite", TrainMesh(pp=2, vpp=2), (2, 2), False),
    "glm-4.7-flash-tp2-ep2-sp": ("glm4_moe_lite", TrainMesh(tp=2, ep=2), (4,), True),
    "kimi-k2.5-tp2": ("kimi_k25", TrainMesh(tp=2), (4,), False),
    "kimi-k2.5-pp2-ep2": ("kimi_k25", TrainMesh(dp=2, pp=2, ep=2), (3, 1), False),
    "qwen3.5-tied": ("qwen3.5-tied", TrainMesh(), (4,), False),
    "qwen3.5-tp2": ("qwen3.5", TrainMesh(tp=2), (4,), False),
    "qwen3.5-tp2-through-a-group": ("qwen3.5-one-group", TrainMesh(tp=2), (4,), False),
    "qwen3.5-pp2-vpp2": ("qwen3.5", TrainMesh(pp=2, vpp=2), (2, 2), False),
    "qwen3.5-moe-ep2": ("qwen3.5-moe", TrainMesh(dp=2, ep=2), (4,), False),
    "qwen3.5-moe-pp2-ep2": ("qwen3.5-moe", TrainMesh(dp=2, pp=2, ep=2), (3, 1), False),
    "qwen3-next-tp2-ep2-sp": ("qwen3_next", TrainMesh(tp=2, ep=2), (4,), True),
    "deepseek-v3.2-tp2": ("deepseek-v3.2", TrainMesh(tp=2), (4,), False),
    "deepseek-v3.2-pp2-ep2": ("deepseek-v3.2", TrainMesh(dp=2, pp=2, ep=2), (3, 1), False),
    "glm-5-pp2": ("glm-5", TrainMesh(pp=2), (2, 2), False),
    "glm-5-tp2-ep2-sp": ("glm-5", TrainMesh(tp=2, ep=2), (4,), True),
    "cp2": ("qwen3", TrainMesh(cp=2), (4,), False),
    "latent-cp2": ("deepseek-v3", TrainMesh(cp=2), (4,), False),
    "pp2-cp2-tied": ("qwen2-tied", TrainMesh(pp=2, cp=2), (2, 2), False),
    "tp2-cp2-ep2-sp": ("qwen3-moe", TrainMesh(tp=2, cp=2, ep=2), (4,), True),
    "pp4": ("qwen3", TrainMesh(pp=4), (1, 1, 1, 1), False),
}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, Any]]:
    root = tmp_path_factory.mktemp("models")
    return {name: (root / name, write_model(root / name, kind, **changes)) for name, (kind, changes) in MODELS.items()}


def dealt(mesh: TrainMesh) -> list[list[list[TrainSample]]]:
    """Two micro-batches for each data index, unequal in tokens; with two indices the second one's last is empty."""
    if mesh.dp == 1:
        return [[samples()[:4], samples()[4:]]]
    return [[samples()[:4], samples()[4:5]], [samples()[5:], []]]


def everything(job: Job, rank: RankInfo) -> tuple[Any, Any]:
    """Return a rank's log-probabilities by micro-batch and sample, and every piece of the weights it owns."""
    ranks, model = job.staged(rank)
    source = PartsSource(model.mapping, ranks.rank, model.parameters, ranks.device)
    shards = [(s.name, s.offset, s.tensor) for s in source.shards([e.name for e in source.manifest().entries])]
    found = logprobs(model, ranks, job.mine(rank.rank), TEMPERATURE)
    ranks.close()
    return found, shards


@pytest.mark.parametrize("case", CASES)
def test_a_model_on_ranks_is_transformers_model(case: str, folders: dict[str, tuple[Path, Any]]) -> None:
    name, mesh, layers, sequence_parallel = CASES[case]
    folder, shape = folders[name]
    job = Job(folder, shape, mesh, Stages(layers, mesh.vpp), dealt(mesh), sequence_parallel)
    answers = run(job, everything)
    for rank, (found, _) in enumerate(answers):
        if mesh.takes_data(rank):
            for part, rows in zip(job.parts[mesh.coordinates(rank).data], found, strict=True):
                wanted = reference_logprobs(folder, part, TEMPERATURE)
                for row, want in zip(rows, wanted, strict=True):
                    np.testing.assert_allclose(row, want, atol=1e-5, rtol=0)
    whole = {name: tensor for name, tensor in stored(folder).items() if not is_beside(name)}
    handed_out = {name: torch.full(tensor.shape, torch.nan, dtype=tensor.dtype) for name, tensor in whole.items()}
    for _, shards in answers:
        for tensor_name, offset, values in shards:
            index = tuple(slice(a, a + n) for a, n in zip(offset, values.shape, strict=True))
            assert handed_out[tensor_name][index].isnan().all()
            handed_out[tensor_name][index] = values
    assert all(torch.equal(handed_out[n], tensor) for n, tensor in whole.items())


def test_heads_that_ranks_cannot_share_are_refused_by_key(tmp_path: Path) -> None:
    shape = write_model(tmp_path, "qwen3_5_text", 2, linear_num_key_heads=3, linear_num_value_heads=6)
    words = r"topology\.trainer\.tensor 2: config\.json says linear_num_key_heads 3, which ranks cannot share equally"
    with pytest.raises(UserError, match=words):
        run(Job(tmp_path, shape, TrainMesh(tp=2), Stages((2,)), [[samples()]]), everything)


def test_layers_with_a_state_are_not_cut_over_context_ranks(folders: dict[str, tuple[Path, Any]]) -> None:
    for name in ("qwen3.5", "glm-5"):
        folder, shape = folders[name]
        with pytest.raises(UserError, match=r"topology\.trainer\.context 2: layers of \w+ need whole sequences"):
            run(Job(folder, shape, TrainMesh(cp=2), Stages((4,)), [[samples()]]), everything)


def test_a_choice_of_keys_does_not_go_from_stage_to_stage(folders: dict[str, tuple[Path, Any]]) -> None:
    folder, shape = folders["glm-5"]
    words = r"topology\.trainer: layer 3 takes the keys that layer 2 chooses, which lies in another stage or chunk"
    with pytest.raises(UserError, match=words):
        run(Job(folder, shape, TrainMesh(pp=2), Stages((3, 1)), [[samples()]]), everything)
