"""The simulator of a push is held against pushes that were measured, and says what bounds one."""

import pytest

from lprl_api.catalog.presets import PRESETS, preset_manifest
from lprl_api.model.formats import Bf16, Fp8Block, WeightFormat
from lprl_api.model.shapes import SHAPES
from lprl_api.model.weights import format_bytes
from lprl_api.rules.parse import parse_job
from lprl_operator.plan.explain import explain
from lprl_operator.plan.plan import make_plan
from lprl_operator.plan.push import Names, Route, Way, load_of, plan_push, predict

MIB, GIB = 1 << 20, 1 << 30
DENSE, EXPERTS = "qwen3-8b", "qwen3-30b-a3b"
FP8 = Fp8Block()
ONE_GPU: list[tuple[str, WeightFormat, Names, int, float]] = [
    (DENSE, Bf16(), "names", 512 * MIB, 0.13), (DENSE, Bf16(), "names", 2 * GIB, 0.061),
    (DENSE, FP8, "names", 512 * MIB, 0.137), (DENSE, FP8, "names", 2 * GIB, 0.083),
    (EXPERTS, Bf16(), "names", 512 * MIB, 1.62), (EXPERTS, Bf16(), "names", 2 * GIB, 1.37),
    (EXPERTS, FP8, "names", 512 * MIB, 3.53), (EXPERTS, FP8, "names", 2 * GIB, 3.95),
    (EXPERTS, Bf16(), "layout", 512 * MIB, 0.25), (EXPERTS, Bf16(), "layout", 2 * GIB, 0.14),
    (EXPERTS, FP8, "layout", 512 * MIB, 0.21), (EXPERTS, FP8, "layout", 2 * GIB, 0.089),
]  # fmt: skip
"""Model, format, names, bucket, seconds measured: trainer and engine on one H200, weights quantised before."""
TWO_GPUS: list[tuple[str, WeightFormat, Names, Way, float]] = [
    (DENSE, Bf16(), "names", "broadcast", 0.061), (DENSE, FP8, "names", "broadcast", 0.056),
    (EXPERTS, Bf16(), "names", "broadcast", 1.95), (EXPERTS, FP8, "names", "broadcast", 4.06),
    (DENSE, Bf16(), "layout", "broadcast", 0.055), (DENSE, FP8, "layout", "broadcast", 0.039),
    (EXPERTS, Bf16(), "layout", "broadcast", 0.176), (EXPERTS, FP8, "layout", "broadcast", 0.103),
    (DENSE, Bf16(), "layout", "ipc", 0.046), (EXPERTS, FP8, "layout", "ipc", 0.087),
]  # fmt: skip
"""Two H200: NCCL from one to the other; by handle, from a trainer to an engine over the same two GPUs, double-buffered 1 GiB."""


@pytest.mark.parametrize(("shape", "fmt", "names", "bucket", "measured"), ONE_GPU)
def test_pushes_on_one_gpu_are_predicted(shape: str, fmt: WeightFormat, names: Names, bucket: int, measured: float) -> None:
    load = load_of(SHAPES[shape], fmt)
    route = Route("ipc", names, bucket, same_gpu=True)
    assert predict(load, route).seconds == pytest.approx(measured, rel=0.2)


@pytest.mark.parametrize(("shape", "fmt", "names", "way", "measured"), TWO_GPUS)
def test_pushes_between_two_gpus_are_predicted(shape: str, fmt: WeightFormat, names: Names, way: Way, measured: float) -> None:
    route = Route(way, names, GIB, overlapped=way == "ipc")
    assert predict(load_of(SHAPES[shape], fmt), route).seconds == pytest.approx(measured, rel=0.2)


@pytest.mark.parametrize(
    ("shape", "fmt", "names", "parameters", "gigabytes"),
    [(DENSE, Bf16(), 399, 291, 16.4), (DENSE, FP8, 651, 435, 9.4), (EXPERTS, Bf16(), 18867, 435, 61.1), (EXPERTS, FP8, 37491, 627, 31.2)],
)
def test_what_a_push_carries_is_what_was_counted(shape: str, fmt: WeightFormat, names: int, parameters: int, gigabytes: float) -> None:
    load = load_of(SHAPES[shape], fmt)
    assert (load.names, load.parameters, round(load.nbytes / 1e9, 1)) == (names, parameters, gigabytes)


def test_what_bounds_a_push_is_said() -> None:
    load = load_of(SHAPES[EXPERTS], FP8)
    assert "per tensor" in predict(load, Route("broadcast", "names", GIB)).bound
    assert predict(load, Route("broadcast", "layout", GIB)).bound == "NVLink"
    assert predict(load, Route("broadcast", "layout", GIB, crossing=1.0)).bound == "network (nominal)"


@pytest.mark.parametrize("name", PRESETS)
def test_a_plan_says_how_long_a_push_takes_and_what_bounds_it(name: str) -> None:
    plan = make_plan(parse_job(preset_manifest(name)).spec)
    assert plan.push is not None and plan.push.nbytes == format_bytes(plan.shape, plan.rollout_format)
    (line,) = (line for line in explain(plan).splitlines() if line.startswith("Weight push"))
    assert line.split("about ")[1].startswith(tuple(f"{plan.push.seconds:{form}} s (" for form in (".2g", ".0f")))


def test_nothing_is_said_of_pushes_on_a_cpu() -> None:
    job = preset_manifest("qwen3-4b-fp8")
    ranks = make_plan(parse_job(job).spec).ranks.model_copy(update={"accelerator": "cpu"})
    assert plan_push(SHAPES["qwen3-4b"], FP8, ranks, GIB) is None
