"""Which models have a table here (ModelShape of a family): the others are converted by their class or index, and not trained."""

from collections.abc import Mapping
from typing import Any

from lprl_api.model.hf_config import FAMILIES


def text_section(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the part of a parsed config.json that is about the language model: `text_config` where there is one."""
    nested = config.get("text_config")
    return nested if isinstance(nested, Mapping) else config


def has_table(config: Mapping[str, Any]) -> bool:
    """Return whether the language model of a parsed config.json is of a family with a table, or says of none what it is."""
    text = text_section(config)
    found = text.get("model_type")
    if found is None:
        return text is not config or config.get("model_type") is None
    return not isinstance(found, str) or found in FAMILIES


def model_type(config: Mapping[str, Any]) -> str:
    """Return the model_type of the language model of a parsed config.json."""
    return str(text_section(config).get("model_type") or config.get("model_type"))
