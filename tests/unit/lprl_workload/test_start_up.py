"""What a process of the workload loads before it works: libraries of seconds come where they are needed, and nowhere before."""

import subprocess
import sys

import pytest

LIBRARIES = ("torch", "transformers", "ray", "numpy", "safetensors", "huggingface_hub", "httpx2", "pyarrow", "jinja2", "sympy", "boto3")


def run(code: str, lines: int = 1) -> list[str]:
    """Run Python code in a process of its own; returns the last lines that it prints."""
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, timeout=600)
    return done.stdout.splitlines()[-lines:]


def loaded(code: str, libraries: tuple[str, ...] = LIBRARIES) -> list[str]:
    """Return which of `libraries` a process has loaded that ran `code`."""
    (found,) = run(f"import sys\n{code}\nprint(*(name for name in {libraries!r} if name in sys.modules))")
    return found.split()


def test_explaining_any_command_loads_no_library() -> None:
    code = """
from contextlib import suppress
from lprl_workload.__main__ import COMMANDS, main
for command in COMMANDS:
    with suppress(SystemExit):
        main([command, "--help"])
"""
    assert loaded(code) == []


@pytest.mark.parametrize(
    "what",
    [
        pytest.param("lprl_workload.convert.finalise", id="publishing-a-conversion"),
        pytest.param("lprl_workload.convert.inspect", id="inspecting-a-folder"),
        pytest.param("lprl_workload.compare.checkpoints", id="verifying-checkpoints"),
    ],
)
def test_what_computes_nothing_loads_no_torch(what: str) -> None:
    assert loaded(f"import {what}", ("torch", "transformers", "numpy")) == []


MODELS = ("transformers.modeling_utils", "torch._dynamo", "torch.distributed.tensor", "accelerate", "sympy")
"""What comes with any model of transformers: as much again as torch itself."""


def test_actors_land_without_transformers_drivers_run_without_a_model_and_a_rank_loads_no_family_it_does_not_train() -> None:
    code = f"""
import lprl_workload.launch.ray_cluster, lprl_workload.launch.ray_engines
print([name for name in ("transformers", "torch.distributed.tensor") if name in sys.modules])
import lprl_workload.launch.drive
print([name for name in {MODELS!r} if name in sys.modules])
from lprl_workload.launch.backends import trainer_class
trainer_class("torch")
assert "transformers.modeling_utils" in sys.modules
print([name for name in sys.modules if name.startswith("transformers.models.") and ".modeling_" in name and ".auto" not in name])
"""
    assert run(f"import sys\n{code}", 3) == ["[]", "[]", "[]"]


def test_nothing_is_collected_while_libraries_come_and_what_came_is_looked_through_no_more() -> None:
    code = """
import gc
from lprl_workload.process.loading import loading
with loading(keep=True):
    import decimal
    assert not gc.isenabled()
kept = gc.get_freeze_count()
assert kept and gc.isenabled()
with loading(keep=True):
    import decimal  # there already: nothing else is kept for it
with loading():
    import fractions
print(gc.get_freeze_count() == kept and gc.isenabled())
"""
    assert run(code) == ["True"]
