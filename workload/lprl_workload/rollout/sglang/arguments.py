"""What a job says -> arguments and environment of an SGLang server: one table, which docs/serving-sglang.md repeats. Pure."""

import os
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from lprl_api.errors import UserError
from lprl_api.model.formats import WeightFormat
from lprl_workload.hf.model import compute_dtype
from lprl_workload.rollout.sglang.inside import LOADER

Value = str | int | float | bool | tuple[int, ...] | None
"""Of an argument: True is a switch, None and False leave it out."""
STREAM_TOKENS, STREAM_TOKENS_CPU = 32, 4
"""Tokens of a response that the server sends at a time."""
KEEP_ALIVE_S = 120
"""A server closes a connection that was idle for so long: long after its client gave it up, however busy the machine is."""
PLATFORM = "lprl-cpu"
"""Our plugin that has SGLang compute on a CPU (lprl_sglang_cpu)."""
SPARE_CONTEXT = 16
"""Tokens of a context that servers keep for themselves; the engine sees to it that no response goes beyond the job's."""
_FIELD = re.compile(r"^    ([a-z][a-z0-9_]*)\s*:", re.MULTILINE)
_FLAG = re.compile(r"--[a-z][a-z0-9-]+")


@dataclass(frozen=True, slots=True)
class ServerOptions:
    """What a server is told beyond what every engine is."""

    tensor: int = 1
    """Tensor-parallel ranks."""
    expert: int = 1
    """Expert-parallel groups of them."""
    graph_sizes: tuple[int, ...] = ()
    """Batch sizes captured as CUDA graphs; empty: the server's own."""
    seed: int = 0
    """Of the server's own random stream."""
    sleeps: bool = True
    """Whether its memory is given to others between rollouts."""
    fp32_head: bool = True
    """Whether the output head computes in float32 on GPUs, as the trainer's does; benchmarks measure what that costs."""


@dataclass(frozen=True, slots=True)
class Settings:
    """Everything a server is started from."""

    model: Path
    """Folder with config.json of what is served; no weights are read from it."""
    fmt: WeightFormat
    device: str
    """Torch device of its first rank."""
    host: str
    port: int
    context: int
    """Longest prompt plus response, tokens."""
    rows: int | None = None
    """Requests in work at a time; None: as many as its cache holds."""
    memory_fraction: float = 0.7
    cache_tokens: int = 0
    """KV cache on a CPU, where a share of the memory would be the machine's."""
    threads: int = 1
    """CPU threads of each rank."""
    server: ServerOptions = ServerOptions()

    @property
    def cuda(self) -> bool:
        """Whether it runs on GPUs."""
        return self.device.startswith("cuda")


@dataclass(frozen=True, slots=True)
class Row:
    """One thing that is said to a server."""

    field: str
    """Of a job's spec, or why it is said where no field says it."""
    flags: tuple[str, ...]
    """What releases call it, the newest first."""
    value: Callable[[Settings], Value]
    how: str = ""
    """In words, for the docs."""
    needed: bool = True
    """Whether a release without it cannot be used."""


def _first_gpu(s: Settings) -> Value:
    return int(s.device.partition(":")[2] or 0) if s.cuda else None


def _fp32_head(s: Settings) -> Value:
    return s.cuda and s.server.fp32_head


TABLE: tuple[Row, ...] = (
    Row("model, precision.rollout", ("--model-path",), lambda s: str(s.model), "a folder with the config.json of the served format"),
    Row("each push", ("--load-format",), lambda s: "dummy", "`dummy`: weights come by pushes alone"),
    Row("each push", ("--custom-weight-loader",), lambda s: LOADER, "our own loader inside the server, through SGLang's official seam"),
    Row("topology.rollout.gpusPerEngine", ("--device",), lambda s: "cuda" if s.cuda else "cpu", "`cuda`, or `cpu`"),
    Row("place of the engine", ("--base-gpu-id",), _first_gpu, "first GPU of the engine on its node"),
    Row("topology.rollout.tensor", ("--tp-size",), lambda s: s.server.tensor, ""),
    Row("topology.rollout.expert", ("--ep-size",), lambda s: s.server.expert if s.server.expert > 1 else None, "left out where it is 1"),
    Row("topology.rollout.memoryFraction", ("--mem-fraction-static",), lambda s: s.memory_fraction if s.cuda else None, "on GPUs"),
    Row("memory of a CPU", ("--max-total-tokens",), lambda s: None if s.cuda else s.cache_tokens, "KV cache of 2 GiB at most"),
    Row(
        "topology.rollout.cudaGraphBatchSizes",
        ("--cuda-graph-bs-decode", "--cuda-graph-bs"),
        lambda s: s.server.graph_sizes if s.cuda and s.server.graph_sizes else None,
        "default: SGLang's own",
    ),
    Row("topology.rollout.maxConcurrency", ("--max-running-requests",), lambda s: s.rows, "default: what its cache holds"),
    Row(
        "topology.rollout.contextLength", ("--context-length",), lambda s: s.context + SPARE_CONTEXT, "and what the server keeps for itself"
    ),
    Row("algorithm.seed", ("--random-seed",), lambda s: s.server.seed % 2**31, "of the server; requests have no seed of their own"),
    Row("arithmetic of the device", ("--dtype",), lambda s: str(compute_dtype(s.device)).removeprefix("torch."), "float32 on CPUs"),
    Row("output head of the trainer", ("--enable-fp32-lm-head",), _fp32_head, "float32, as the trainer's", needed=False),
    Row(
        "topology.placement colocated",
        ("--enable-memory-saver",),
        lambda s: s.cuda and s.server.sleeps,
        "its memory is freed in sleep",
    ),
    Row("tokens in, tokens out", ("--skip-tokenizer-init",), lambda s: True, "no text passes through the server"),
    Row("tokens in, tokens out", ("--grammar-backend",), lambda s: "none", "`none`", needed=False),
    Row(
        "streams",
        ("--stream-interval",),
        lambda s: STREAM_TOKENS if s.cuda else STREAM_TOKENS_CPU,
        f"{STREAM_TOKENS} tokens; {STREAM_TOKENS_CPU} on CPUs",
    ),
    Row("streams", ("--incremental-streaming-output", "--stream-output"), lambda s: True, "each message has new tokens only", needed=False),
    Row(
        "time of a CPU",
        ("--sleep-on-idle",),
        lambda s: not s.cuda,
        "on CPUs, which others need: a server that waits would ask for requests without end",
        needed=False,
    ),
    Row("address", ("--host",), lambda s: s.host, "127.0.0.1"),
    Row("address", ("--port",), lambda s: s.port, "a free one"),
    Row("logs", ("--log-level",), lambda s: "info", ""),
    Row("logs", ("--log-level-http",), lambda s: "warning", "no line for each request", needed=False),
    Row("metrics", ("--enable-metrics",), lambda s: True, "Prometheus, at /metrics of its address", needed=False),
)
ELSEWHERE: Mapping[str, str] = {
    "sampling.temperature, topP, topK": "of each request; log-probabilities are those at the temperature, before top-p and top-k",
    "sampling.maxResponseTokens": "`max_new_tokens` of each request",
    "sampling.stopTokenIds, end tokens of the model": "`stop_token_ids` of each request",
    "sampling.stop": "the engine looks for them in what is drawn, and ends the request",
    "topology.rollout.nodes, healthCheckSeconds": "the driver's own; an engine lies on one node",
    "precision.fp8.activations none": "`SGLANG_FORCE_FP8_MARLIN=1` in the server's environment (GPUs)",
}
"""What reaches a server in another way than by an argument."""


def known_flags(sources: Iterable[str]) -> frozenset[str]:
    """Return the arguments a release takes, by the text of its server_args.py and arg_groups/fields/: importing it takes ten seconds."""
    found: set[str] = set()
    for text in sources:
        found |= set(_FLAG.findall(text)) | {"--" + name.replace("_", "-") for name in _FIELD.findall(text)}
    return frozenset(found)


def arguments(settings: Settings, known: frozenset[str]) -> list[str]:
    """Return the arguments of a server whose release takes the `known` ones; raises UserError where it lacks one that is needed."""
    found: list[str] = []
    for row in TABLE:
        value = row.value(settings)
        if value is None or value is False:
            continue
        flag = next((name for name in row.flags if name in known), None)
        if flag is not None:
            found += [flag, *_words(value)]
        elif row.needed:
            raise UserError(f"{row.field}: the installed SGLang has no {' nor '.join(row.flags)}", "use a release from 0.5.17 to 0.5.23")
    return found


def _words(value: Value) -> list[str]:
    if value is True:
        return []
    return [str(item) for item in value] if isinstance(value, tuple) else [str(value)]


def environment(settings: Settings, given: Mapping[str, str]) -> dict[str, str]:
    """Return the environment of a server, from that of the process which starts it."""
    ours = {
        # /health then tells whether it has started, without drawing a token: also of a paused one.
        "SGLANG_ENABLE_HEALTH_ENDPOINT_GENERATION": "0",
        "SGLANG_ALLOW_OVERWRITE_LONGER_CONTEXT_LEN": "1",  # for SPARE_CONTEXT
        "SGLANG_TIMEOUT_KEEP_ALIVE": str(KEEP_ALIVE_S),
        "PYTHONUNBUFFERED": "1",
        "HF_HUB_OFFLINE": "1",
    }
    if settings.cuda:
        if getattr(settings.fmt, "activations", "dynamic") == "none":
            ours["SGLANG_FORCE_FP8_MARLIN"] = "1"
    else:
        ours["OMP_NUM_THREADS"] = str(settings.threads)
        ours["SGLANG_PLATFORM"] = given.get("SGLANG_PLATFORM", PLATFORM)
        if settings.server.tensor > 1:
            ours["SGLANG_CPU_OMP_THREADS_BIND"] = "|".join(str(rank % (os.cpu_count() or 1)) for rank in range(settings.server.tensor))
    return dict(given) | ours
