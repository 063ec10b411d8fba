"""Run against the tree with the three files in it: a folder is converted, verified, planned, served and trained in the new format."""

import sys
from pathlib import Path

import torch
from safetensors.torch import load_file

from lprl_api.catalog.servable import folder_warnings
from lprl_api.model.formats import FORMATS, Bf16
from lprl_api.model.weights import format_bytes
from lprl_fixtures.generate import ModelOptions, generate_model
from lprl_workload.convert.cli import convert_all_command
from lprl_workload.convert.run import convert_shards
from lprl_workload.convert.verify import verify_folder
from lprl_workload.convert.weights import ModelFolder
from lprl_workload.folder.config import read_format, read_shape
from lprl_workload.folder.model import read_contents
from lprl_workload.hf.served import ServedModel
from lprl_workload.quant.scheme import fake_quantize
from lprl_workload.quant.specs import served_specs

work = Path(sys.argv[1])
source, target, back = work / "bf16", work / "int8", work / "back"
generate_model(source, ModelOptions(architecture="qwen3"))
assert convert_all_command([str(source), str(target), "--to", "int8-row", "--exclude", "*.o_proj"]) == 0
fmt, shape = read_format(target), read_shape(target)
assert fmt.kind == "int8-row" and fmt.excluded("model.layers.0.self_attn.o_proj")
found = verify_folder(target, source, max_error=0.01)
assert not found.problems and any(check.by_the_rule for check in found.tensors), found
assert not verify_folder(target, source, max_error=0.0001).worst.relative_rms_error < 0.0001

served = ServedModel(target, fmt, shape, "cpu")
served.load_folder(target)
name = "model.layers.0.mlp.up_proj.weight"
weight = ModelFolder(source).weight(name).values()
held = {item.name: item.tensor for item in served.held()}
assert torch.equal(held[name].float(), fake_quantize(weight, fmt).to(held[name].dtype).float())
assert [spec[:2] for spec in served_specs(name, tuple(weight.shape), fmt)] == [(name, "I8"), (f"{name}_scale", "F32")]

assert format_bytes(shape, FORMATS["bf16"]()) > format_bytes(shape, fmt)
assert "nothing is known of how SGLang serves int8-row" in folder_warnings(shape, fmt)[0]
(shard,) = read_contents(target).shards
convert_shards(target, back, Bf16(), shape, [shard], 1, lambda _: None)
assert torch.equal(load_file(back / shard)[name], fake_quantize(weight, fmt).to(torch.bfloat16))
