"""Megatron on a CPU: what it asks of CUDA by name is answered by the CPU while a pass runs, and nothing of it stays changed afterwards.

megatron-core 0.19.2 has no switch for another device: it makes tensors on `torch.cuda.current_device()` or on "cuda", and copies sizes
on a stream of their own. No file of it is touched; outside of `on_device` torch is what it was.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
import torch.distributed as dist
from megatron.core.tensor_parallel import random as megatron_random
from torch.overrides import TorchFunctionMode

CPU = torch.device("cpu")


class _Stream:
    """A stream or an event, where everything is done in order anyway."""

    def __init__(self, *_: object, **__: object) -> None:
        """Take whatever CUDA's takes."""

    def wait_stream(self, stream: object) -> None:
        """Nothing is under way."""

    def wait_event(self, event: object) -> None:
        """Nothing is under way."""

    def record_event(self, event: object = None) -> "_Stream":
        """Return an event that has happened."""
        return self

    def record(self, stream: object = None) -> None:
        """It happens now."""

    def wait(self, stream: object = None) -> None:
        """It has happened."""

    def synchronize(self) -> None:
        """It has happened."""


_STREAM = _Stream()


class _OnCpu(TorchFunctionMode):
    """Tensors asked for on "cuda" are made on the CPU."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        named = dict(kwargs or {})
        if _is_cuda(named.get("device")):
            named["device"] = CPU
        if func is torch.Tensor.cuda:
            return args[0]
        return func(*args, **named)


def _is_cuda(device: object) -> bool:
    return str(device).startswith("cuda") if isinstance(device, str | torch.device) else False


def _split_sizes(all_to_all: Callable[..., Any]) -> Callable[..., Any]:
    """Return `all_to_all_single` taking split sizes as tensors, too: Megatron turns those of CUDA tensors into lists only."""

    def call(output: Any, given: Any, output_split_sizes: Any = None, input_split_sizes: Any = None, **kwargs: Any) -> Any:
        sizes = (s.tolist() if isinstance(s, torch.Tensor) else s for s in (output_split_sizes, input_split_sizes))
        return all_to_all(output, given, *sizes, **kwargs)

    return call


@contextmanager
def _on_cpu() -> Iterator[None]:
    answers: list[tuple[Any, str, Any]] = [
        (torch.cuda, "current_device", lambda: CPU),
        (torch.cuda, "synchronize", lambda *_: None),
        (torch.cuda, "Stream", _Stream),
        (torch.cuda, "Event", _Stream),
        (torch.cuda, "current_stream", lambda *_: _STREAM),
        (torch.cuda, "stream", lambda _: nullcontext()),
        (dist, "all_to_all_single", _split_sizes(dist.all_to_all_single)),
        # Recomputed layers draw what they drew before: the CPU's generator, which is kept beside.
        (torch.cuda.random, "get_rng_state", lambda *_, **__: torch.empty(0, dtype=torch.uint8)),
        (megatron_random, "_lazy_call", lambda *_, **__: None),
    ]
    before = [(module, name, getattr(module, name)) for module, name, _ in answers]
    for module, name, answer in answers:
        setattr(module, name, answer)
    try:
        # Its router is compiled where nobody says otherwise: pods on CPUs have no compiler.
        with _OnCpu(), torch.compiler.set_stance("force_eager"):
            yield
    finally:
        for module, name, answer in before:
            setattr(module, name, answer)


@contextmanager
def on_device(device: torch.device) -> Iterator[None]:
    """Run Megatron's code for `device`: building and every pass, forward and backward, belong inside. Not to be nested."""
    if device.type == "cpu":
        with _on_cpu():
            yield
    else:
        yield
