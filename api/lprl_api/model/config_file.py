"""A parsed config.json -> shape and format, with errors that name the file and say what to do: the same words wherever one is read."""

from collections.abc import Callable
from typing import Any, TypeVar

from lprl_api.errors import UserError
from lprl_api.model.by_class import trained_by_class, trained_types, unproven_keys
from lprl_api.model.formats import Bf16, WeightFormat
from lprl_api.model.hf_config import model_class, shape_from_config
from lprl_api.model.hf_quantization import READABLE, is_mxfp4, parse_quantization_config
from lprl_api.model.known import has_table, model_type, text_section
from lprl_api.model.layouts.planned import planned_shape
from lprl_api.model.model_shape import ModelShape, SourceQuantization

_T = TypeVar("_T")
_CONFIG = "config.json: "
"""How the parsers call a file whose place they do not know."""


def shape_of(config: dict[str, Any], where: str) -> ModelShape:
    """Return the shape a config.json of a trained family says; `where` names it in errors. Raises UserError naming file and key."""
    parse = planned_shape if not has_table(config) and trained_by_class(config) else shape_from_config
    return _of(config, where, parse, "name a model of a supported family, with the config.json it was published with")


def planned_shape_of(config: dict[str, Any], where: str) -> ModelShape:
    """Return the shape of a model that is only planned: of more families than are trained. Raises UserError naming file and key."""
    return _of(config, where, planned_shape, "name a model whose weights are counted, with the config.json it was published with")


def format_of(config: dict[str, Any], where: str, shape: ModelShape | None = None) -> WeightFormat:
    """Return the format a config.json says its weights are in. Raises UserError naming file and key."""
    return _of(config, where, lambda found: parse_quantization_config(found, shape), READABLE)


def whole_model_of(config: dict[str, Any], where: str) -> str | None:
    """Return the class of a model whose language model is a part of it (`text_config`), None for a plain language model."""
    return _of(config, where, model_class, "")


def check_trainable(config: dict[str, Any], where: str) -> None:
    """Refuse a model that can be converted and served but not trained: raises UserError for a family without a table, or `text_config`."""
    if not has_table(config):
        also = "lprl convert and lprl plan --config take this one"
        if not trained_by_class(config):
            what = f"{where}: model_type {model_type(config)} cannot be trained here; model_types that can: {trained_types()}"
            raise UserError(what, f"train one of these; {also}")
        if wrong := next(unproven_keys(text_section(config)), None):
            raise UserError(f"{where}: {wrong}", f"train a model without it; {also}")
        if is_mxfp4(config):
            what = f"{where}: experts are MXFP4, which no trainer reads"
            raise UserError(what, "unpack them first (lprl convert SOURCE TARGET --to bf16), and train that folder")
    whole = whole_model_of(config, where)
    if whole is not None and not trained_by_class(config):
        raise UserError(
            f"{where}: {whole} keeps its language model in text_config, which the torch trainer cannot train",
            "name a language model of its own (its config.json has no text_config); lprl convert takes this one",
        )


def source_quantization(fmt: WeightFormat) -> SourceQuantization:
    """Return a source's own precision, normalised."""
    return SourceQuantization() if isinstance(fmt, Bf16) else SourceQuantization(format=fmt.kind, **fmt.facts())


def _of(config: dict[str, Any], where: str, parse: Callable[[dict[str, Any]], _T], remedy: str) -> _T:
    try:
        return parse(config)
    except UserError as error:
        raise UserError(f"{where}: {error.message.removeprefix(_CONFIG)}", error.remedy or remedy) from error
