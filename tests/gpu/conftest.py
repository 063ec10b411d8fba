"""Tests of SGLang and of Megatron are collected where it is installed (docs/serving-sglang.md says where SGLang is looked for)."""

from lprl_workload.rollout.sglang.installed import find_installed
from lprl_workload.train.megatron.installed import is_installed

collect_ignore = [
    *([] if find_installed() is not None else ["test_sglang.py", "test_sglang_two.py"]),
    *([] if is_installed() else ["test_megatron.py"]),
]
