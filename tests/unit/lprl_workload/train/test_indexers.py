"""What chooses keys has no gradient, so it stays as published: in masters, through weight decay, and in what is exported."""

from pathlib import Path

import pytest
import torch
from tests.contract.trainer_bench import batch, export_of, paths_of, run_config, step
from tests.zoo.families import ALL, Case
from tests.zoo.tiny import save, tiny_model

from lprl_api.model.formats import Bf16
from lprl_workload.config import RankInfo
from lprl_workload.hf.folder import read_folder
from lprl_workload.train.actor_torch import TorchTrainActor


@pytest.mark.parametrize("case", [c for c in ALL if c.model_type in ("deepseek_v32", "glm_moe_dsa")], ids=lambda c: c.model_type)
def test_an_indexers_weights_stay_as_published(case: Case, tmp_path: Path) -> None:
    folder = save(tiny_model(case.model_type, case.changes), tmp_path / "model")
    run = run_config(folder, Bf16(), optimizer={"learning_rate": 1e-2, "weight_decay": 0.5}, backends={"trainer": "torch"})
    actor = TorchTrainActor(run, paths_of(folder), RankInfo(0, 1, "cpu"))
    published, before = dict(read_folder(folder)), {name: m.value.clone() for name, m in actor.masters.items.items()}
    for seed in range(2):
        step(actor, batch(seed))
    kept = {name for name in before if ".indexer." in name}
    assert kept and {name for name, m in actor.masters.items.items() if torch.equal(m.value, before[name])} >= kept
    exported = export_of(actor)
    index = [name for name in published if ".indexer." in name]
    assert index and all(torch.equal(exported[name], published[name].to(torch.bfloat16)) for name in index)
    assert not torch.equal(exported["lm_head.weight"], published["lm_head.weight"]), "the rest is trained"
    actor.close()
