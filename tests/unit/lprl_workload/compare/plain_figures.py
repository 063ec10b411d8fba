"""The same figures by the shortest way there is: whole models of transformers, one text at a time, float64 after the logits."""

from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors.torch import load_file, save_file
from torch import Tensor

E4M3_MAX = 448.0


def plain_weights(folder: Path) -> dict[str, Tensor]:
    """Return the tensors of a converted folder of one file as numbers, float32, by the formulas of docs/numerics.md."""
    stored = load_file(folder / "model.safetensors")
    found: dict[str, Tensor] = {}
    for name, tensor in stored.items():
        module = name.rpartition(".")[0]
        if name.endswith(".weight_packed"):
            rows, cols = stored[f"{module}.weight_shape"].tolist()
            codes = torch.stack([(tensor >> (4 * k)) & 15 for k in range(8)], dim=-1).reshape(rows, -1)[:, :cols].float() - 8
            scale = stored[f"{module}.weight_scale"].float()
            found[f"{module}.weight"] = (codes * scale.repeat_interleave(cols // scale.shape[1], dim=1)).bfloat16().float()
        elif tensor.dtype == torch.float8_e4m3fn:
            scale = stored.get(f"{module}.weight_scale_inv", stored.get(f"{module}.weight_scale"))
            assert scale is not None
            if f"{module}.weight_scale_inv" in stored:
                scale = scale.repeat_interleave(128, 0)[: tensor.shape[0]].repeat_interleave(128, 1)[:, : tensor.shape[1]]
            found[name] = tensor.float() * scale.float()
        elif not name.endswith(("weight_scale_inv", "weight_scale", "weight_shape")):
            found[name] = tensor.float()
    return found


def plain_model(folder: Path, source: Path, work: Path) -> Any:
    """Return transformers' model of a converted folder's numbers, under the source's config.json."""
    work.mkdir()
    save_file(plain_weights(folder), work / "model.safetensors", metadata={"format": "pt"})
    (work / "config.json").write_bytes((source / "config.json").read_bytes())
    return load(work)


def load(folder: Path) -> Any:
    return transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="sdpa").eval()


def quantise_inputs(model: Any, names: set[str], group: int) -> None:
    """Make the Linear modules `names` see their input in FP8: one scale per token and `group` channels (0: per token)."""

    def hook(module: torch.nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor]:
        x = args[0]
        size = group or x.shape[-1]
        return (torch.cat([_fp8(part) for part in x.split(size, dim=-1)], dim=-1),)

    for name in names:
        model.get_submodule(name).register_forward_pre_hook(hook)


def _fp8(x: Tensor) -> Tensor:
    most = x.abs().amax(-1, keepdim=True)
    # One division: torch's `448 / tensor` is a reciprocal and a product, which rounds twice.
    qscale = torch.where(most > 0, torch.div(torch.full_like(most, E4M3_MAX), most), 1.0)
    return (x * qscale).to(torch.float8_e4m3fn).float() * (1.0 / qscale)


@torch.inference_mode()
def plain_figures(source: Any, other: Any, texts: list[tuple[list[int], int]]) -> dict[str, float]:
    """Return mean and percentiles of KL, agreement and mean negative log-likelihoods of (ids, first token that counts)."""
    kl, agreed, nll = list[Tensor](), list[Tensor](), list[Tensor]()
    for ids, first in texts:
        logits = [model(torch.tensor([ids])).logits[0, first - 1 : -1] for model in (source, other)]
        p, q = (torch.log_softmax(each.double(), dim=-1) for each in logits)
        kl.append((p.exp() * (p - q)).sum(-1))
        agreed.append(p.argmax(-1) == q.argmax(-1))
        wanted = torch.tensor(ids[first:]).unsqueeze(1)
        nll.append(torch.cat([-p.gather(1, wanted), -q.gather(1, wanted)], dim=1))
    values = torch.cat(kl).sort().values
    means = torch.cat(nll).mean(0).tolist()
    count = len(values)
    return {
        "positions": count,
        "kl_mean": float(values.mean()),
        "kl_p50": float(values[(count + 1) // 2 - 1]),
        "kl_p99": float(values[-(-count * 99 // 100) - 1]),
        "top1_agreement": float(torch.cat(agreed).double().mean()),
        "nll_source": means[0],
        "nll_converted": means[1],
        "nll_change": means[1] - means[0],
    }
