"""The math worker's answers are its own: what a library prints is none."""

import json
import subprocess
import sys

NOISY = """
import os, sys
from lprl_workload.rollout import math_worker
def judge(response, label, limit_s):
    print("true")
    os.write(1, b"true\\n")
    return response == label
math_worker.judge = judge
math_worker.main()
"""


def test_what_a_library_prints_is_not_taken_for_the_verdict() -> None:
    asked = "".join(json.dumps([response, "4", 1]) + "\n" for response in ("4", "5"))
    done = subprocess.run([sys.executable, "-c", NOISY], input=asked, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["true", "false"] and done.stderr.count("true") == 4
