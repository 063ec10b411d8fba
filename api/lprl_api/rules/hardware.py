"""Rules on accelerators: which precision and backend a device can run."""

from collections.abc import Iterator

from lprl_api.catalog.accelerators import accelerator_names
from lprl_api.field_error import FieldError, wrong
from lprl_api.rules.case import Case, Rule
from lprl_api.spec.precision import Rollout, Training


def _row(case: Case) -> Iterator[FieldError]:
    if case.accelerator is None:
        yield wrong("topology.accelerator", case.spec.topology.accelerator, f"one of {accelerator_names()}")


def _training(case: Case) -> Iterator[FieldError]:
    device, precision = case.accelerator, case.spec.precision
    if device is None or device.is_cpu:
        return
    if precision.training is Training.FP8 and case.megatron and not device.has_fp8:
        need = f"bf16 on {device.name} (SM {device.sm / 10}), or an accelerator with FP8 matrix units (SM 8.9 or newer)"
        yield wrong("precision.training", precision.training, need)
    if precision.training is Training.FP8 and device.is_blackwell and precision.fp8.scale_format != "ue8m0":
        need = f"ue8m0 on {device.name}: Blackwell computes block FP8 with power-of-two scales only"
        yield wrong("precision.fp8.scaleFormat", precision.fp8.scale_format, need)
    if precision.training in (Training.INT4_QAT, Training.FP8_QAT) and case.megatron and not device.has_fp8:
        need = f"an accelerator of SM 8.9 or newer ({device.name} is SM {device.sm / 10}): TransformerEngine's recipe hook needs it"
        yield wrong("topology.accelerator", device.name, need)


def _rollout(case: Case) -> Iterator[FieldError]:
    device = case.accelerator
    if device is None or device.is_cpu or not case.sglang:
        return
    precision = case.spec.precision
    if precision.rollout is Rollout.FP8 and precision.fp8.activations == "dynamic" and not device.has_fp8:
        need = f"int4 or bf16 on {device.name} (SM {device.sm / 10}), or an accelerator with FP8 matrix units, or backends.rollout torch"
        yield wrong("precision.rollout", precision.rollout, need)


def _context_attention(case: Case) -> Iterator[FieldError]:
    trainer = case.spec.topology.trainer
    if trainer.context > 1 and trainer.attention_backend == "unfused":
        yield wrong("topology.trainer.attentionBackend", "unfused", "auto, flash or fused: context parallelism needs fused attention")
    if trainer.attention_backend == "flash" and case.accelerator is not None and case.accelerator.is_cpu:
        yield wrong("topology.trainer.attentionBackend", "flash", "auto or unfused with accelerator cpu")
    if trainer.deep_ep and case.accelerator is not None and case.accelerator.sm not in (90, 100):
        yield wrong("topology.trainer.deepEp", True, f"false on {case.accelerator.name}: DeepEP needs Hopper or Blackwell data-centre GPUs")


def _transport(case: Case) -> Iterator[FieldError]:
    transport, placement = case.spec.weight_sync.transport, case.spec.topology.placement
    cpu = case.accelerator is not None and case.accelerator.is_cpu
    if transport == "cuda-ipc" and cpu:
        yield wrong("weightSync.transport", transport, "auto, local, broadcast or disk with accelerator cpu")
    if transport == "broadcast" and placement == "colocated" and case.accelerator is not None and not cpu:
        need = "auto, local, cuda-ipc or disk: broadcast between colocated processes would put two NCCL ranks on one GPU"
        yield wrong("weightSync.transport", transport, need)
    if transport in ("local", "cuda-ipc") and placement == "split":
        yield wrong("weightSync.transport", transport, "auto, broadcast or disk: split engines are on other nodes")


RULES: tuple[Rule, ...] = (_row, _training, _rollout, _context_attention, _transport)
