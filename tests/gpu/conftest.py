"""Tests of SGLang are collected where it is installed (docs/serving-sglang.md says where it is looked for)."""

from lprl_workload.rollout.sglang.installed import find_installed

collect_ignore = [] if find_installed() is not None else ["test_sglang.py", "test_sglang_two.py"]
