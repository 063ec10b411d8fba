"""ServedModel against transformers' own loading of the same folder, and against dequantised weights, format by format."""

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from lprl_api.errors import UserError
from lprl_api.model.formats import Bf16, Fp8Block, Fp8Channel, Fp8Tensor, Int4Group, WeightFormat
from lprl_api.spec.precision import Scope
from lprl_workload.folder.model import read_contents
from lprl_workload.hf.activations import fake_quantize_activations
from lprl_workload.hf.folder import read_folder
from lprl_workload.hf.served import ServedModel
from lprl_workload.hf.slots import weight_slots
from lprl_workload.quant.scheme import dequantize, module_of, quantize
from lprl_workload.quant.select import Selection

FORMATS = [
    Fp8Block(),
    Fp8Block(scale_format="ue8m0"),
    Fp8Channel(),
    Fp8Tensor(),
    Int4Group(group_size=32, scope=Scope.ALL_LINEAR, exclude_modules=("*.kv_b_proj",)),
    Int4Group(group_size=32, scope=Scope.ROUTED_EXPERTS),
]
IDS = ["fp8-block", "fp8-ue8m0", "fp8-channel", "fp8-tensor", "int4-all", "int4-experts"]


def served(source: Any, fmt: WeightFormat) -> Iterator[tuple[str, Tensor]]:
    selection = Selection(fmt, source.shape)
    for name, tensor in read_folder(source.folder):
        if not isinstance(fmt, Bf16) and selection.selects(name, tuple(tensor.shape)):
            yield from quantize(name, tensor, fmt).items()
        else:
            yield name, tensor


def logits(model: Any, ids: Tensor) -> Tensor:
    with torch.no_grad():
        return model(input_ids=ids).logits


IDS_BATCH = torch.randint(0, 60, (3, 17), generator=torch.Generator().manual_seed(1))


def test_sharded_folder(source: Any) -> None:
    assert len(read_contents(source.folder).shards) > 1


def test_bf16_folder_computes_what_transformers_computes(source: Any) -> None:
    model = ServedModel(source.folder, Bf16(), source.shape, "cpu")
    model.load_folder(source.folder)
    torch.testing.assert_close(logits(model.model, IDS_BATCH), logits(source.oracle(), IDS_BATCH), rtol=1e-4, atol=1e-4)


def test_slots_name_exactly_the_checkpoint(source: Any) -> None:
    model = ServedModel(source.folder, Bf16(), source.shape, "cpu")
    model.load_folder(source.folder)
    stored = dict(read_folder(source.folder))
    slots = weight_slots(model.model, source.shape)
    assert [slot.name for slot in slots] == sorted(stored)
    for slot in slots:
        assert torch.equal(slot.read(), stored[slot.name].float()), slot.name


@pytest.mark.parametrize("fmt", FORMATS, ids=IDS)
def test_every_weight_is_the_dequantised_one(source: Any, fmt: WeightFormat) -> None:
    if isinstance(fmt, Int4Group) and fmt.scope is Scope.ROUTED_EXPERTS and source.shape.moe is None:
        with pytest.raises(UserError, match="routed-experts"):
            ServedModel(source.folder, fmt, source.shape, "cpu")
        return
    model = ServedModel(source.folder, fmt, source.shape, "cpu")
    items = list(served(source, fmt))
    model.load(reversed(items))
    assert model.missing() == ()
    parts = dict(items)
    selection = Selection(fmt, source.shape)
    quantised = 0
    for slot in weight_slots(model.model, source.shape):
        if selection.selects(slot.name, slot.shape):
            quantised += 1
            want = dequantize(parts, module_of(slot.name), fmt)
        else:
            want = parts[slot.name]
        assert torch.equal(slot.read(), want.float()), slot.name
    assert quantised > 0


@pytest.mark.parametrize("fmt", [FORMATS[0], FORMATS[2]], ids=["block", "channel"])
def test_fp8_quantises_activations_of_quantised_layers_only(sources: Any, fmt: WeightFormat) -> None:
    source = sources["qwen3-moe"]
    model = ServedModel(source.folder, fmt, source.shape, "cpu")
    model.load(served(source, fmt))
    weights_only = ServedModel(source.folder, Bf16(), source.shape, "cpu")
    values = {slot.name: slot.read().to(torch.float32) for slot in weight_slots(model.model, source.shape)}
    for slot in weight_slots(weights_only.model, source.shape):
        slot.write(values[slot.name])
    with_activations, without = logits(model.model, IDS_BATCH), logits(weights_only.model, IDS_BATCH)
    difference = (with_activations - without).abs().mean() / without.abs().mean()
    assert 1e-3 < difference < 0.3


def test_loads_in_pieces_whose_memory_is_reused(sources: Any) -> None:
    source, fmt = sources["moonlight"], FORMATS[4]
    whole = ServedModel(source.folder, fmt, source.shape, "cpu")
    whole.load(served(source, fmt))
    pieces = ServedModel(source.folder, fmt, source.shape, "cpu")
    for name, tensor in served(source, fmt):
        staging = tensor.clone()
        pieces.load([(name, staging)])
        staging.fill_(1)
    for a, b in zip(weight_slots(whole.model, source.shape), weight_slots(pieces.model, source.shape), strict=True):
        assert torch.equal(a.read(), b.read()), a.name


def test_update_overwrites_in_place_and_counts_what_is_missing(sources: Any) -> None:
    source = sources["qwen3"]
    model = ServedModel(source.folder, FORMATS[0], source.shape, "cpu")
    items = dict(served(source, FORMATS[0]))
    assert set(model.missing()) == set(items) == set(model.served_tensors())
    model.load(items.items())
    address = model.model.model.layers[0].mlp.up_proj.weight.data_ptr()
    model.begin()
    victim = "model.layers.0.mlp.up_proj.weight"
    model.load((n, t) for n, t in items.items() if n != victim)
    assert model.missing() == (victim,)
    model.load([(victim, torch.zeros_like(items[victim]))])
    assert model.missing() == ()
    assert model.model.model.layers[0].mlp.up_proj.weight.data_ptr() == address
    assert not model.model.model.layers[0].mlp.up_proj.weight.any()


@pytest.mark.parametrize(
    ("name", "tensor", "match"),
    [
        pytest.param("model.layers.0.mlp.nothing.weight", torch.zeros(2, 2), "not in a bf16", id="unknown"),
        pytest.param("model.norm.weight", torch.zeros(3), r"found shape \[3\], needs \[64\]", id="shape"),
        pytest.param("model.norm.weight", torch.zeros(64, dtype=torch.int32), "found int32", id="codes"),
    ],
)
def test_refuses(sources: Any, name: str, tensor: Tensor, match: str) -> None:
    source = sources["qwen3"]
    model = ServedModel(source.folder, Bf16(), source.shape, "cpu")
    with pytest.raises(UserError, match=match):
        model.load([(name, tensor)])


def test_fused_expert_tensors_in_the_folder(sources: Any, tmp_path: Any) -> None:
    source = sources["qwen3-moe"]
    stored = dict(read_folder(source.folder))
    fused = {n: t for n, t in stored.items() if ".experts." not in n}
    for layer in range(2):
        prefix = f"model.layers.{layer}.mlp.experts."

        def stack(part: str, prefix: str = prefix) -> Tensor:
            return torch.stack([stored[f"{prefix}{e}.{part}.weight"] for e in range(6)])

        fused[f"{prefix}gate_up_proj"] = torch.cat([stack("gate_proj"), stack("up_proj")], dim=1)
        fused[f"{prefix}down_proj"] = stack("down_proj")
    (tmp_path / "config.json").write_bytes((source.folder / "config.json").read_bytes())
    save_file(fused, tmp_path / "model.safetensors")
    model = ServedModel(source.folder, Bf16(), source.shape, "cpu")
    model.load_folder(tmp_path)
    for slot in weight_slots(model.model, source.shape):
        assert torch.equal(slot.read(), stored[slot.name].float()), slot.name


def test_shared_inputs_are_quantised_once_with_equal_results(sources: Any) -> None:
    source, fmt = sources["qwen3"], Fp8Block()
    model = ServedModel(source.folder, fmt, source.shape, "cpu")
    model.load(served(source, fmt))
    first = logits(model.model, IDS_BATCH)
    assert torch.equal(logits(model.model, IDS_BATCH), first)
    attention = model.model.model.layers[0].self_attn
    (hook,) = attention.q_proj._forward_pre_hooks.values()
    assert hook._last is None, "no input may outlive the pass"
    x = torch.randn(2, 64)
    a, b = hook(attention.q_proj, (x,))[0], hook(attention.k_proj, (x,))[0]
    assert a is b and torch.equal(a, fake_quantize_activations(x, 128))
    x.mul_(2)
    assert torch.equal(hook(attention.v_proj, (x,))[0], fake_quantize_activations(x, 128))


def test_extra_tensors_of_published_checkpoints_are_left_out(sources: Any) -> None:
    source = sources["qwen3"]
    model = ServedModel(source.folder, Bf16(), source.shape, "cpu")
    extras = ("lm_head.weight", "model.layers.2.eh_proj.weight", "model.layers.0.self_attn.rotary_emb.inv_freq")
    model.load((name, torch.zeros(1)) for name in extras)
    assert len(model.missing()) == len(model.served_tensors())


def test_folder_with_a_tensor_missing(sources: Any, tmp_path: Any) -> None:
    source = sources["llama"]
    (tmp_path / "config.json").write_bytes((source.folder / "config.json").read_bytes())
    stored = dict(read_folder(source.folder))
    del stored["model.norm.weight"]
    save_file(stored, tmp_path / "model.safetensors")
    model = ServedModel(tmp_path, Bf16(), source.shape, "cpu")
    with pytest.raises(UserError, match=r"1 tensor missing: model\.norm\.weight"):
        model.load_folder(tmp_path)
    assert model.missing() == model.served_tensors(), "nothing of a folder that is no model is read"


def test_remote_code_and_quantization_config_play_no_part(sources: Any, tmp_path: Any) -> None:
    import json

    source = sources["moonlight"]
    config = json.loads((source.folder / "config.json").read_text())
    config |= {"auto_map": {"AutoModelForCausalLM": "evil.Model"}, "model_type": "kimi_k2", "quantization_config": {"quant_method": "fp8"}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    model = ServedModel(tmp_path, Bf16(), source.shape, "cpu")
    model.load_folder(source.folder)
    torch.testing.assert_close(logits(model.model, IDS_BATCH), logits(source.oracle(), IDS_BATCH), rtol=1e-4, atol=1e-4)
