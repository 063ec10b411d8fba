"""Which models have a table here (ModelShape of a family): the others are converted by their class or index, and not trained."""

from collections.abc import Mapping
from typing import Any

from lprl_api.model.hf_config import ARCHITECTURES, FAMILIES


def has_table(config: Mapping[str, Any]) -> bool:
    """Return whether the language model of a parsed config.json is of a family with a table, or says of none what it is."""
    nested = config.get("text_config")
    text = nested if isinstance(nested, Mapping) else config
    model_type = text.get("model_type")
    if model_type is None:
        return text is not config or config.get("model_type") is None
    return not isinstance(model_type, str) or model_type in FAMILIES


def model_type(config: Mapping[str, Any]) -> str:
    """Return the model_type of the language model of a parsed config.json."""
    nested = config.get("text_config")
    inner = nested.get("model_type") if isinstance(nested, Mapping) else None
    return str(inner or config.get("model_type"))


def tables() -> str:
    """Return the model types with a table, for messages."""
    return ", ".join(FAMILIES)


__all__ = ["ARCHITECTURES", "has_table", "tables"]
