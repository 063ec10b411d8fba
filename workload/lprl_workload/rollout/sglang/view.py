"""The folder a server starts from: a model's small files with the config.json of the format that is served. Weights come by pushes."""

import json
import shutil
from pathlib import Path
from typing import Any

from lprl_api.model.checkpoint_tensors import checkpoint_tensors
from lprl_api.model.formats import WeightFormat
from lprl_api.model.model_shape import ModelShape
from lprl_workload.folder.header import read_json
from lprl_workload.quant.config_json import KEYS, quantization_config, strip_quantization
from lprl_workload.quant.select import Selection

MAX_BYTES = 64 * 1024 * 1024
"""Of one small file: a tokenizer of a large vocabulary."""
WEIGHTS = (".safetensors", ".bin", ".pt", ".gguf", ".index.json")
GENERATED = ("config.json", "manifest.json")


def write_view(source: Path, fmt: WeightFormat, shape: ModelShape, target: Path) -> None:
    """Write a folder from which a server of `source` in `fmt` starts, whatever format the source's own weights have.

    Raises UserError for a source without a readable config.json, or one that has nothing for the format.
    """
    config: dict[str, Any] = strip_quantization(read_json(source / "config.json"))
    names = tuple(checkpoint_tensors(shape))
    section = quantization_config(fmt, Selection.of(fmt, shape, names), names)
    if section is not None:
        config[KEYS[0]] = section
    target.mkdir(parents=True, exist_ok=True)
    for path in sorted(source.iterdir()):
        if path.is_file() and path.name not in GENERATED and not path.name.endswith(WEIGHTS) and path.stat().st_size <= MAX_BYTES:
            shutil.copyfile(path, target / path.name)
    (target / "config.json").write_text(json.dumps(config, indent=1) + "\n")
