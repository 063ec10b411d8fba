"""transformers' own model of a config.json, built on `meta`: its true sizes, no weights, no memory, no code of the folder."""

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch

NOT_FIELDS = ("auto_map", "quantization_config", "compression_config", "torch_dtype", "dtype", "transformers_version")


class NoClass(Exception):
    """transformers has no class for a config.json, or it cannot be built: the message says why."""


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep transformers' remarks on a configuration to itself: nothing is computed with it here."""
    log = logging.getLogger("transformers")
    before = log.level
    log.setLevel(logging.ERROR)
    try:
        yield
    finally:
        log.setLevel(before)


def build_on_meta(document: Mapping[str, Any]) -> Any:
    """Return transformers' model of a config.json without weights. Raises NoClass."""
    from transformers.initialization import no_init_weights

    with _quiet():
        config = configuration(document)
    model_class = class_of(document, config)
    try:
        with _quiet(), no_init_weights(), torch.device("meta"):
            model = model_class(config)
        model.tie_weights()
    except Exception as error:  # anything a class's constructor raises: its config is not one it can be built from
        raise NoClass(f"{model_class.__name__} cannot be built from this config.json ({first_line(error)})") from error
    return model


def configuration(document: Mapping[str, Any]) -> Any:
    """Return transformers' configuration of a config.json, its quantisation left out. Raises NoClass."""
    from transformers import CONFIG_MAPPING

    model_type = document.get("model_type")
    if model_type not in CONFIG_MAPPING:
        raise NoClass(f"transformers has no class of model_type {model_type!r}")
    plain = {key: _without(value) for key, value in document.items() if key not in NOT_FIELDS}
    try:
        return CONFIG_MAPPING[model_type].from_dict(plain)
    except Exception as error:
        raise NoClass(f"config.json of {model_type} cannot be read by transformers ({first_line(error)})") from error


def _without(value: Any) -> Any:
    """Return a value of config.json, floats that JSON has not (`{"__float__": "Infinity"}`) read, inner quantisation left out."""
    if isinstance(value, dict):
        if set(value) == {"__float__"}:
            return float(value["__float__"])
        return {key: _without(inner) for key, inner in value.items() if key not in ("quantization_config", "auto_map")}
    return [_without(inner) for inner in value] if isinstance(value, list) else value


def class_of(document: Mapping[str, Any], config: Any) -> Any:
    """Return the class that config.json names, where it is transformers' own for this configuration, else that of its model_type."""
    import transformers
    from transformers.models.auto import modeling_auto as auto

    for name in document.get("architectures") or ():
        found: Any = getattr(transformers, name, None) if isinstance(name, str) else None
        if isinstance(found, type) and issubclass(found, transformers.PreTrainedModel):
            wanted: Any = getattr(found, "config_class", None)
            if wanted is not None and isinstance(config, wanted):
                return found
    whole = (auto.MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING, auto.MODEL_FOR_MULTIMODAL_LM_MAPPING)
    text = (auto.MODEL_FOR_CAUSAL_LM_MAPPING, auto.MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING)
    for mapping in (*text, *whole) if config.get_text_config() is config else (*whole, *text):
        if type(config) in mapping:
            return mapping[type(config)]
    raise NoClass(f"transformers has no language model of model_type {document.get('model_type')!r}")


def first_line(error: Exception) -> str:
    """Return an error in one line for a message."""
    lines = str(error).strip().splitlines()
    return (lines[0] if lines else type(error).__name__)[:160]
