"""The model folder of a checkpoint: every tensor, in shards, with index, clean config and tokenizer."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from lprl_workload.checkpoint.hf_folder import write_model
from lprl_workload.data import NamedTensor


def source(folder: Path) -> Path:
    folder.mkdir()
    config = {"model_type": "qwen3", "torch_dtype": "float32", "quantization_config": {"quant_method": "fp8"}}
    config["transformers_weights"] = "weights.safetensors"
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "tokenizer.json").write_text("{}")
    (folder / "model.fp16.safetensors.index.json").write_text("{}")
    (folder / "model.safetensors").write_text("old weights")
    (folder / "modeling_evil.py").write_text("raise SystemExit")
    return folder


def tensors() -> list[NamedTensor]:
    return [NamedTensor(f"w{n}", torch.full((4, 8), n, dtype=torch.bfloat16)) for n in range(5)]


@pytest.mark.parametrize(
    ("shard_bytes", "files"),
    [
        pytest.param(1 << 30, 1, id="one-file"),
        pytest.param(128, 3, id="two-tensors-a-file"),
        pytest.param(1, 5, id="a-larger-tensor-alone"),
    ],
)
def test_write_model(tmp_path: Path, shard_bytes: int, files: int) -> None:
    target = tmp_path / "out"
    target.mkdir()
    write_model(target, iter(tensors()), source(tmp_path / "in"), shard_bytes)
    found = sorted(target.glob("*.safetensors"))
    assert len(found) == files
    loaded = {name: tensor for path in found for name, tensor in load_file(path).items()}
    assert {item.name for item in tensors()} == set(loaded)
    assert all(torch.equal(loaded[item.name], item.tensor) for item in tensors())
    assert json.loads((target / "config.json").read_text()) == {"model_type": "qwen3", "dtype": "bfloat16"}
    assert (target / "tokenizer.json").exists() and not (target / "modeling_evil.py").exists()
    assert not (target / "model.fp16.safetensors.index.json").exists()
    index = target / "model.safetensors.index.json"
    assert index.exists() == (files > 1)
    if files > 1:
        document = json.loads(index.read_text())
        assert document["metadata"]["total_size"] == 5 * 64
        assert {name: load_file(target / file)[name].shape for name, file in document["weight_map"].items()}
