"""The one answer to what a folder's model is: `read_contents`."""

from pathlib import Path

from lprl_api.errors import UserError
from lprl_workload.folder.architecture import Architecture
from lprl_workload.folder.config import CONFIG, read_format, read_model_class, read_shape
from lprl_workload.folder.contents import FolderContents, stored_tensors
from lprl_workload.folder.files import INDEX_FILE, shown
from lprl_workload.folder.header import read_json

FILE_KEY = "transformers_weights"
"""Key of a config.json that makes transformers read another file."""


def read_contents(folder: Path) -> FolderContents:
    """Return the tensors of the model in `folder`, and the files they are in: what every part of lprl reads of it.

    Raises UserError, naming file and tensor, where files, index, config.json and tensors do not make exactly one model.
    """
    shape, fmt = read_shape(folder), read_format(folder)
    contents = stored_tensors(folder)
    _check_named_file(folder, contents)
    return Architecture(shape, fmt, read_model_class(folder) is not None).held_against(contents)


def _check_named_file(folder: Path, contents: FolderContents) -> None:
    """Refuse a config.json that names other weights than the folder's. Raises UserError."""
    named = read_json(folder / CONFIG).get(FILE_KEY)
    if named is not None and named != INDEX_FILE and tuple(contents.shards) != (named,):
        what = f"{folder / CONFIG}: {FILE_KEY} makes transformers read {str(named)[:80]}; by the rule it is {shown(contents.shards)}"
        raise UserError(what, f"remove {FILE_KEY}, and the files that are not the model")
