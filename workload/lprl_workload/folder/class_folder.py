"""The checkpoint of a folder's class: layout and rule, under the names the class publishes, whatever form the folder keeps weights in."""

import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from lprl_api.errors import UserError
from lprl_workload.folder.by_rule import ruled_by_class
from lprl_workload.folder.class_layout import ClassLayout, layout_of_text
from lprl_workload.folder.config import read_config
from lprl_workload.quant.rule import Ruled


def layout_of_config(config: Mapping[str, Any], folder: Path) -> ClassLayout:
    """Return the checkpoint layout of a config.json's class. Raises UserError, which names the folder, where transformers has none."""
    return _layout(_text(config), str(folder))


def ruled_of_folder(folder: Path) -> Ruled:
    """Return what the rule says of a folder's class. Raises UserError where transformers has none."""
    return _ruled(_text(read_config(folder)), str(folder))


def _text(config: Mapping[str, Any]) -> str:
    # A converted folder is the same model: what its weights are stored as plays no part.
    return json.dumps({k: v for k, v in config.items() if k != "quantization_config"}, sort_keys=True)


def _layout(text: str, where: str) -> ClassLayout:
    found = layout_of_text(text)
    if isinstance(found, str):
        raise UserError(f"{where}: {found}", "install the transformers release the model was published with")
    return found


@cache
def _ruled(text: str, where: str) -> Ruled:
    return ruled_by_class(_layout(text, where))
