"""What the Megatron trainer saves: damaged, of another trainer, of ranks that are not there; and the model of it, made later."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.contract import trainer_bench
from tests.contract.trainer_bench import FORMATS, batch, export_of, make, paths_of, run_config, save, step
from tests.megatron_cpu.models import tensors_of, write_model

from lprl_api.errors import UserError
from lprl_workload.checkpoint.store import CheckpointStore
from lprl_workload.config import RankInfo
from lprl_workload.folder.config import read_shape
from lprl_workload.hf.folder import read_folder
from lprl_workload.launch.trained_model import write_model_of
from lprl_workload.train.actor_torch import TorchTrainActor

folders = trainer_bench.folders


def on_torch(folder: Path) -> TorchTrainActor:
    return TorchTrainActor(run_config(folder, FORMATS["bf16"]), paths_of(folder), RankInfo(0, 1, "cpu"))


def test_a_checkpoint_of_the_other_trainer_is_refused_by_its_name(folders: dict[str, Path], tmp_path: Path) -> None:
    ours, theirs = make(folders["qwen3"], FORMATS["bf16"]), on_torch(folders["qwen3"])
    for name, actor in (("megatron", ours), ("torch", theirs)):
        (tmp_path / name).mkdir()
        save(actor, tmp_path / name)
    with pytest.raises(UserError, match=r"the trainer state of backends\.trainer torch, which megatron does not read"):
        ours.load(tmp_path / "torch")
    with pytest.raises(UserError, match=r"the trainer state of backends\.trainer megatron, which torch does not read"):
        theirs.load(tmp_path / "megatron")
    assert step(ours, batch(1))["skipped_steps"] == 0, "it goes on as it was"


def test_a_checkpoint_that_lacks_a_rank_is_refused_by_tensor(folders: dict[str, Path], tmp_path: Path) -> None:
    actor = make(folders["qwen3"], FORMATS["bf16"])
    save(actor, tmp_path)
    path = tmp_path / "trainer-00000-of-00001.json"
    document: dict[str, Any] = json.loads(path.read_text())
    del document["pieces"]["model.norm.weight"]
    path.write_text(json.dumps(document))
    with pytest.raises(UserError, match=r"elements of model\.norm\.weight are missing from the trainer state"):
        actor.load(tmp_path)


def test_a_checkpoint_of_another_model_is_refused_by_tensor(folders: dict[str, Path], tmp_path: Path) -> None:
    save(make(folders["qwen3"], FORMATS["bf16"]), tmp_path)
    with pytest.raises(UserError, match=r"model\.layers\.0\.mlp\.\w+\.weight of shape .* is not this model's"):
        make(folders["qwen3-moe"], FORMATS["bf16"]).load(tmp_path)


@pytest.mark.parametrize("name", ["qwen3", "moonlight", "kimi_k25"])
def test_the_model_made_of_a_checkpoint_later_is_what_the_trainer_exports(folders: dict[str, Path], tmp_path: Path, name: str) -> None:
    """Of a model that the trained one is a part of, everything else is the source's."""
    if name == "kimi_k25":
        write_model(tmp_path / "source", name, 2)
    source, store = folders.get(name, tmp_path / "source"), CheckpointStore(tmp_path / "run", 1, 3)
    actor = make(source, FORMATS["int4-qat"])
    step(actor, batch(2))
    store.take_over()
    (folder := store.begin(20) / "trainer").mkdir()
    store.publish(20, [record.below("trainer") for record in save(actor, folder)], str(source), read_shape(source))
    (tmp_path / "made").mkdir()
    write_model_of(store.folder(20), None, tmp_path / "made")
    found, wanted = dict(read_folder(tmp_path / "made")), export_of(actor)
    beside = {key: tensor for key, tensor in read_folder(source) if key not in tensors_of(source, read_shape(source))}
    assert bool(beside) == (name == "kimi_k25")
    wanted |= beside
    assert found.keys() == wanted.keys()
    assert all(torch.equal(found[key], tensor) and found[key].dtype == tensor.dtype for key, tensor in wanted.items())
