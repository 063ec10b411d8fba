"""The one answer to what a folder's model is: `read_contents`."""

from pathlib import Path

from lprl_api.errors import UserError
from lprl_api.model.hf_quantization import READABLE
from lprl_workload.folder.architecture import Architecture
from lprl_workload.folder.config import CONFIG, read_config, read_format, read_known_shape, read_model_class
from lprl_workload.folder.contents import FolderContents, stored_tensors
from lprl_workload.folder.files import INDEX_FILE, shown
from lprl_workload.folder.header import read_json

MODELOPT = "hf_quant_config.json"
FILE_KEY = "transformers_weights"
"""Key of a config.json that makes transformers read another file."""


def read_contents(folder: Path) -> FolderContents:
    """Return the tensors of the model in `folder`, and the files they are in: what every part of lprl reads of it.

    Raises UserError, naming file and tensor, where files, index, config.json and tensors do not make exactly one model.
    """
    _refuse_modelopt(folder)
    shape, fmt = read_known_shape(folder), read_format(folder)
    contents = stored_tensors(folder)
    _check_named_file(folder, contents)
    if shape is None:
        # The model's class, by torch and transformers: seconds that a family with a table need not take.
        from lprl_workload.folder.by_rule import held_by_rule

        return held_by_rule(contents, read_config(folder), fmt)
    return Architecture(shape, fmt, read_model_class(folder) is not None).held_against(contents)


def _refuse_modelopt(folder: Path) -> None:
    """Refuse what ModelOpt has quantised and says only beside config.json. Raises UserError."""
    if (folder / MODELOPT).is_file():
        found = read_json(folder / MODELOPT).get("quantization")
        algorithm = found.get("quant_algo") if isinstance(found, dict) else None
        raise UserError(
            f"{folder / MODELOPT}: weights quantised by ModelOpt ({algorithm or 'no algorithm named'}) cannot be read", READABLE
        )


def _check_named_file(folder: Path, contents: FolderContents) -> None:
    """Refuse a config.json that names other weights than the folder's. Raises UserError."""
    named = read_json(folder / CONFIG).get(FILE_KEY)
    if named is not None and named != INDEX_FILE and tuple(contents.shards) != (named,):
        what = f"{folder / CONFIG}: {FILE_KEY} makes transformers read {str(named)[:80]}; by the rule it is {shown(contents.shards)}"
        raise UserError(what, f"remove {FILE_KEY}, and the files that are not the model")
