"""`doctor --engine NAME --model FOLDER`: whether an engine serves a folder's weights as we compute with them, and takes them twice."""

from pathlib import Path

import torch

from lprl_api.spec.topology import Backends
from lprl_workload.folder.config import read_format, read_shape
from lprl_workload.launch.backends import check_backends, engine_class, set_up_process
from lprl_workload.launch.doctor import Finding
from lprl_workload.process.errors import WeightMismatchError
from lprl_workload.rollout.second_load import PUSHES, against_ours, others, second_load, served_tensors

CONTEXT = 512
ROWS = 8


def engine_findings(name: str, folder: Path, device: str = "") -> list[Finding]:
    """Start an engine and push into it in turns the weights of a folder and others. Raises UserError for what it cannot serve."""
    check_backends(Backends.model_validate({"rollout": name}))
    set_up_process()
    shape, fmt = read_shape(folder), read_format(folder)
    where = device or ("cuda:0" if torch.cuda.is_available() else "cpu")
    engine = engine_class(name)(folder, fmt, shape, where, context_length=min(CONTEXT, shape.max_positions), max_concurrency=ROWS)
    try:
        problem, first = second_load(engine, shape.vocab, lambda: served_tensors(folder, shape), lambda: others(folder, shape))
    except WeightMismatchError as error:
        return [Finding("engine", name, f"{fmt.kind}: {error}", False)]
    finally:
        engine.close()
    mean, wrong = against_ours(folder, fmt, shape, first.logprobs)
    return [
        Finding("engine", f"{name} second load", problem or f"{fmt.kind}: equal to the first over {PUSHES} pushes in turns", not problem),
        Finding("engine", f"{name} log-probs", wrong or f"{fmt.kind}: {mean:.2g} nats a token from our own arithmetic", not wrong),
    ]
