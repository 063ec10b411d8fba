"""`python -m lprl_workload doctor`: what this image, machine and environment have, so that a failing pod can be asked."""

import argparse
import json
import os
import platform
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path

from lprl_api import names
from lprl_api.errors import UserError
from lprl_api.model.content_key import QUANTIZER_VERSION
from lprl_api.names import ExitCode
from lprl_workload.config import volumes_root
from lprl_workload.convert.disk import existing_parent, free_bytes, human_bytes
from lprl_workload.process.arguments import Parser, called_as
from lprl_workload.process.cpus import available_cpus
from lprl_workload.process.loading import loading

NEEDED = (
    "lprl",
    "torch",
    "transformers",
    "tokenizers",
    "safetensors",
    "ray",
    "pydantic",
    "blake3",
    "xxhash",
    "huggingface-hub",
    "pyarrow",
    "math-verify",
)
OPTIONAL = (
    "boto3",
    "compressed-tensors",
    "tensorboard",
    "mlflow-skinny",
    "wandb",
    "megatron-core",
    "transformer-engine",
    "sglang",
    "triton",
)
PLAIN_ENV = (
    names.ENV_VOLUMES_ROOT,
    names.ENV_LOCAL_CONFIGMAPS,
    names.ENV_TERMINATION_LOG,
    names.ENV_ATTEMPT,
    "RAY_ADDRESS",
    "HF_HUB_OFFLINE",
)
SECRET_ENV = ("HF_TOKEN", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "WANDB_API_KEY", "RAY_AUTH_TOKEN")
"""Shown as set or not set, never with their value."""
SHM = Path("/dev/shm")


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at."""

    topic: str
    name: str
    value: str
    fine: bool = True


def findings() -> list[Finding]:
    """Look at everything; takes as long as importing torch does."""
    return [*_versions(), *_devices(), *_machine(), *_environment()]


def _versions() -> list[Finding]:
    python = Finding("version", "python", platform.python_version(), sys.version_info >= (3, 11))
    found = [python, Finding("version", "quantizer", QUANTIZER_VERSION)]
    for name in (*NEEDED, *OPTIONAL):
        try:
            found.append(Finding("version", name, metadata.version(name)))
        except metadata.PackageNotFoundError:
            found.append(Finding("version", name, "not installed", name not in NEEDED))
    return found


def _devices() -> list[Finding]:
    with loading(keep=True):
        import torch

        from lprl_workload.quant.native import kernels
    found = [Finding("device", "cpu", f"{available_cpus()} of {os.cpu_count()} usable, torch uses {torch.get_num_threads()} threads")]
    for i in range(torch.cuda.device_count()):
        properties = torch.cuda.get_device_properties(i)
        memory = human_bytes(properties.total_memory)
        found.append(Finding("device", f"cuda:{i}", f"{properties.name}, {memory}, compute {properties.major}.{properties.minor}"))
    native = "built" if kernels() is not None else "no compiler: the torch path is used (slower, equal bytes)"
    found.append(Finding("device", "native kernels", native))
    return found


def _machine() -> list[Finding]:
    found = [Finding("disk", str(path), f"{human_bytes(free_bytes(path))} free") for path in _volumes()]
    shm = free_bytes(SHM) if SHM.is_dir() else 0
    found.append(Finding("memory", str(SHM), f"{human_bytes(shm)} free", shm >= 64 << 20))
    meminfo = Path("/proc/meminfo")
    if meminfo.exists():
        available = next((int(row.split()[1]) for row in meminfo.read_text().splitlines() if row.startswith("MemAvailable")), 0)
        found.append(Finding("memory", "available", human_bytes(available * 1024)))
    return found


def _volumes() -> list[Path]:
    root = volumes_root()
    mounted = sorted(path for path in root.iterdir() if path.is_dir()) if root.is_dir() else []
    return mounted or [existing_parent(root)]


def _environment() -> list[Finding]:
    shown = [Finding("environment", name, os.environ.get(name, "not set")) for name in PLAIN_ENV]
    return shown + [Finding("environment", name, "set" if os.environ.get(name) else "not set") for name in SECRET_ENV]


def doctor_command(argv: Sequence[str]) -> int:
    """Print the findings; exit code 3 when something a job needs is missing."""
    parser = Parser(
        prog=called_as("doctor"),
        description="Say what this image and machine have: versions, devices, Ray, disks, memory, environment (secrets: only whether set).",
        epilog="examples:\n  python -m lprl_workload doctor\n  kubectl exec POD -- python -m lprl_workload doctor --output json\n"
        "  python -m lprl_workload doctor --engine sglang --model /models/qwen3-8b-fp8",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--output", choices=("table", "json"), default="table", help="default table")
    parser.add_argument("--engine", choices=("torch", "sglang"), help="also see whether this engine takes the weights of --model twice")
    parser.add_argument("--model", type=Path, help="folder whose weights are in the format the engine serves")
    parser.add_argument("--device", default="", help="of the engine; default cuda:0 where there is one, else cpu")
    given = parser.parse_args(argv)
    output, found = given.output, findings()
    if (given.engine is None) != (given.model is None):
        raise UserError("doctor: --engine and --model belong together", "name the engine and a folder it can serve")
    if given.engine is not None:
        from lprl_workload.launch.engine_doctor import engine_findings

        found += engine_findings(given.engine, given.model, given.device)
    if output == "json":
        print(json.dumps([asdict(finding) for finding in found], indent=1))
    else:
        for finding in found:
            print(f"{'ok ' if finding.fine else 'BAD'} {finding.topic:<11} {finding.name:<22} {finding.value}")
    return ExitCode.OK if all(finding.fine for finding in found) else ExitCode.USER_ERROR
