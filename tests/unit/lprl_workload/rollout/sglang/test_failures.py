"""Why a server died, from the lines it left: texts as SGLang 0.5.17 to 0.5.23 write them."""

import pytest

from lprl_api.errors import UserError
from lprl_workload.process.errors import RemoteError, ServerLostError
from lprl_workload.rollout.sglang.failures import explain, lost_error, missing_weights, start_error

AT = "[2026-11-28 10:00:00 TP0] "
TRACE = ["Traceback (most recent call last):", '  File "scheduler.py", line 1, in run', "    self.go()"]
END = ["[2026-11-28 10:00:01] Received sigquit from a child process. It usually means the child failed."]


@pytest.mark.parametrize(
    ("lines", "kind", "words"),
    [
        ([*TRACE, "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB."], "memory", "out of memory: torch.OutOf"),
        ([*TRACE, "RuntimeError: Not enough memory. Please try to increase --mem-fraction-static."], "memory", "Not enough memory"),
        (
            [AT + "Parameter model.layers.0.mlp.down_proj.weight_scale not found in params_dict", *TRACE,
             "torch.AcceleratorError: CUDA error: device-side assert triggered"],
            "weights", "model.layers.0.mlp.down_proj.weight_scale not found",
        ),
        ([*TRACE, "torch.AcceleratorError: CUDA error: an illegal memory access was encountered"], "device", "a device error: torch.Acc"),
        ([*TRACE, "RuntimeError: gptq_marlin.cuh:667: Invalid thread config: thread_m_blocks = 1", *TRACE,
          "Exception: Capture cuda graph failed: ..."], "unsupported", "Invalid thread config"),
        ([*TRACE, "ValueError: Weight output_partition_size = 576 is not divisible by weight quantization block_n = 128."],
         "unsupported", "output_partition_size = 576"),
        (["launch_server.py: error: unrecognized arguments: --nope 3"], "unsupported", "--nope"),
        ([*TRACE, "AssertionError: the last dimension of `x` cannot be divisible by `group_size`"], "unsupported", "group_size"),
        ([*TRACE, "AssertionError: batch is empty"], "assertion", "an assertion: AssertionError: batch is empty"),
        ([*TRACE, "    assert size > 0", "AssertionError"], "assertion", "AssertionError at assert size > 0"),
        ([*TRACE, "KeyError: 'weight'"], "unknown", "an error: KeyError: 'weight'"),
        ([AT + "Decode batch, #running-req: 3"], "killed", "killed by signal 9"),
        ([], "killed", "killed by signal 9"),
    ],
)  # fmt: skip
def test_the_line_that_tells_is_found_among_those_that_follow_it(lines: list[str], kind: str, words: str) -> None:
    found = explain(lines + (END if "signal" not in words else []), 137)
    assert found.kind == kind and words in found.words


def test_a_warning_of_something_unsupported_is_no_reason_of_an_end() -> None:
    found = explain([AT + "torchao is not supported here, falling back", AT + "Decode batch"], 139)
    assert found.kind == "unknown" and not found.user


def test_what_no_attempt_mends_is_told_as_input_and_what_chance_may_mend_as_a_loss() -> None:
    wide = explain(["ValueError: output_partition_size = 576 is not divisible by 128."], 137)
    error = start_error(wide, "SGLang at http://127.0.0.1:1", "/tmp/server.log")
    assert isinstance(error, UserError) and "did not start: widths" in error.message and error.remedy
    full = start_error(explain(["torch.OutOfMemoryError: CUDA out of memory."], 137), "S", "L")
    assert isinstance(full, RemoteError) and full.blame == "memory"
    assert isinstance(start_error(explain(["OSError: [Errno 98] Address already in use"], 1), "S", "L"), ServerLostError)
    assert "is lost: killed by signal 9" in str(lost_error(explain([], 137), "S", "L"))


def test_tensors_without_a_place_are_told_by_name() -> None:
    line = "Parameter model.layers.0.self_attn.qkv_proj.weight not found in params_dict"
    assert missing_weights([line, line, "x"]) == "1 tensors found no place in the server, such as model.layers.0.self_attn.qkv_proj.weight"
    assert missing_weights(["all fine"]) == ""
