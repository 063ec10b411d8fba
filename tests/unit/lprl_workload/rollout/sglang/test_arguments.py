"""What a job says reaches a server: every field, by the names its release has."""

from dataclasses import replace
from pathlib import Path

import pytest

from lprl_api.errors import UserError
from lprl_api.model.formats import Bf16, Fp8Block
from lprl_api.spec.topology import RolloutLayout
from lprl_workload.rollout.sglang.arguments import ELSEWHERE, TABLE, ServerOptions, Settings, arguments, environment, known_flags
from lprl_workload.rollout.sglang.client import KEPT_S

ROOT = Path(__file__).parents[5]
CPU = Settings(Path("/m"), Bf16(), "cpu", "127.0.0.1", 4000, 512, cache_tokens=4096)
SERVER = ServerOptions(tensor=2, expert=2, graph_sizes=(1, 8), seed=7)
GPU = replace(CPU, device="cuda:2", rows=64, memory_fraction=0.6, server=SERVER)
ALL = frozenset(flag for row in TABLE for flag in row.flags[:1])


def value_of(found: list[str], flag: str) -> str:
    return found[found.index(flag) + 1]


def test_a_gpu_server_gets_every_field_of_the_layout() -> None:
    found = arguments(GPU, ALL)
    for flag, value in {
        "--tp-size": "2",
        "--ep-size": "2",
        "--base-gpu-id": "2",
        "--mem-fraction-static": "0.6",
        "--max-running-requests": "64",
        "--context-length": "528",
        "--random-seed": "7",
        "--dtype": "bfloat16",
        "--load-format": "dummy",
    }.items():
        assert value_of(found, flag) == value
    at = found.index("--cuda-graph-bs-decode")
    assert found[at + 1 : at + 3] == ["1", "8"] and "--enable-memory-saver" in found and "--max-total-tokens" not in found


def test_a_cpu_server_computes_as_the_trainer_there_and_takes_no_share_of_the_memory() -> None:
    found = arguments(CPU, ALL)
    assert value_of(found, "--dtype") == "float32" and value_of(found, "--max-total-tokens") == "4096"
    assert not {"--mem-fraction-static", "--enable-memory-saver", "--base-gpu-id", "--enable-fp32-lm-head"} & set(found)
    assert "--sleep-on-idle" in found and "--sleep-on-idle" not in arguments(GPU, ALL), "its scheduler takes a core while nothing is asked"


def test_every_field_of_the_rollout_layout_is_in_the_table_or_said_to_go_elsewhere() -> None:
    told = " ".join([row.field for row in TABLE] + list(ELSEWHERE))
    names = {field.alias or name for name, field in RolloutLayout.model_fields.items()}
    assert {name for name in names if name not in told} == set()


def test_the_page_repeats_the_table() -> None:
    page = (ROOT / "docs/serving-sglang.md").read_text()
    missing = [row.flags[0] for row in TABLE if f"| {row.field} | `{row.flags[0]}` |" not in page]
    assert not missing and all(field in page for field in ELSEWHERE)


def test_an_older_release_is_told_by_the_names_it_has() -> None:
    found = arguments(GPU, ALL - {"--cuda-graph-bs-decode"} | {"--cuda-graph-bs"})
    assert "--cuda-graph-bs" in found and "--cuda-graph-bs-decode" not in found


def test_a_release_that_lacks_what_a_job_asks_for_is_refused_by_the_fields_name() -> None:
    with pytest.raises(UserError, match=r"topology.rollout.tensor: the installed SGLang has no --tp-size"):
        arguments(GPU, ALL - {"--tp-size"})
    assert "--enable-metrics" not in arguments(GPU, ALL - {"--enable-metrics"}), "what is only wished for is left out"


def test_the_arguments_of_a_release_are_read_off_its_source() -> None:
    old = 'parser.add_argument("--tp-size", type=int)\n    model_path: str\n'
    new = "class Parallel:\n    ep_size: A[int, 'x'] = 1\n"
    assert {"--tp-size", "--model-path", "--ep-size"} <= known_flags([old, new])


def test_weight_only_fp8_is_asked_of_the_kernels_on_gpus() -> None:
    weight_only = Fp8Block(activations="none")
    assert environment(replace(GPU, fmt=weight_only), {})["SGLANG_FORCE_FP8_MARLIN"] == "1"
    assert "SGLANG_FORCE_FP8_MARLIN" not in environment(GPU, {})
    assert int(environment(GPU, {})["SGLANG_TIMEOUT_KEEP_ALIVE"]) > 10 * KEPT_S, "a client gives a connection up before its server does"
    assert environment(CPU, {"A": "b"})["A"] == "b" and environment(CPU, {})["SGLANG_PLATFORM"] == "lprl-cpu"
