"""Which files of a model folder count: weights, and the small files around them. Everything else is never read or copied."""

from pathlib import Path

from lprl_api.errors import UserError
from lprl_workload.folder.config import CONFIG as CONFIG
from lprl_workload.folder.files import INDEX_FILE

MANIFEST = "manifest.json"
REPORT = "conversion_report.json"
REPORT_TABLE = "conversion_report.txt"
WEIGHT_SUFFIX = ".safetensors"
SIDE_SUFFIXES = (".json", ".txt", ".model", ".jinja", ".tiktoken")
"""Configuration, tokenizers and chat templates. Python files of a model folder are never run, so they are not passed on."""
OWN_FILES = (CONFIG, INDEX_FILE, MANIFEST, REPORT, REPORT_TABLE)
"""Written anew for every conversion."""
MAX_SIDE_BYTES = 256 * 1024 * 1024
MAX_FILES = 20_000


def is_side_file(name: str) -> bool:
    """Return whether a plain file name is one of the small files around the weights."""
    return not name.startswith(".") and name.endswith(SIDE_SUFFIXES) and f"{WEIGHT_SUFFIX}." not in name


def is_wanted(name: str) -> bool:
    """Return whether a remote file is downloaded: weights and small files at the top of the folder, with harmless names."""
    plain = Path(name).name == name and name not in (".", "..") and "\\" not in name and name.isprintable() and len(name) <= 255
    return plain and not name.startswith(".") and (name.endswith(WEIGHT_SUFFIX) or is_side_file(name) or name == INDEX_FILE)


def side_files(folder: Path) -> tuple[str, ...]:
    """Return the small files of a model folder, sorted: config.json is one, the weight index is not.

    Raises UserError when config.json is missing or a small file is not small.
    """
    names = sorted(p.name for p in folder.iterdir() if is_side_file(p.name) and p.is_file() and p.name not in OWN_FILES[1:])
    if CONFIG not in names:
        raise UserError(f"{folder}: no {CONFIG}", "name a Hugging Face model folder (config.json beside .safetensors files)")
    for name in names:
        if (folder / name).stat().st_size > MAX_SIDE_BYTES:
            raise UserError(f"{folder / name}: {(folder / name).stat().st_size} bytes; at most {MAX_SIDE_BYTES} fit such a file")
    return tuple(names)


def copied_files(folder: Path) -> tuple[str, ...]:
    """Return the small files that a converted folder takes over unchanged: tokenizer, templates, generation_config."""
    return tuple(name for name in side_files(folder) if name not in OWN_FILES)
