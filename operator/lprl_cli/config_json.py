"""A model's config.json -> what an inspection would find in it, without the weights."""

import json
from pathlib import Path
from typing import Any

from lprl_api.errors import UserError
from lprl_api.model.config_file import format_of, planned_shape_of, source_quantization, whole_model_of
from lprl_api.model.config_reader import check_counts
from lprl_api.model.hf_quantization import READABLE
from lprl_api.model.model_shape import Inspection, ModelShape
from lprl_api.model.weights import parameters, whole_parameters
from lprl_cli.headers import Held, held_beside

UNKNOWN_FINGERPRINT = "0" * 64
MODELOPT = "hf_quant_config.json"
_REMEDY = "give the model's config.json"


def inspection_of(config: str) -> Inspection:
    """Return shape, quantisation and class of a config.json; of the weights how many there are, where they lie beside it.

    Raises UserError naming the file, and the key where one is wrong: what inspect or convert would refuse.
    """
    found = _read(config)
    shape = planned_shape_of(found, config)
    fmt = format_of(found, config, shape)
    _refuse_modelopt(Path(config))
    held = held_beside(Path(config), shape.layers)
    shape, notes = (shape, ()) if held is None else _held_against(shape, held, config)
    return Inspection(
        shape=shape,
        notes=notes,
        fingerprint=UNKNOWN_FINGERPRINT,
        total_bytes=0,
        tensors=0,
        shards=1,
        quantization=source_quantization(fmt),
        model_class=whole_model_of(found, config),
    )


def differences(said: ModelShape, seen: ModelShape, config: str) -> tuple[str, ...]:
    """Return a note where a config.json says another model than the job's inspection saw; empty where they agree."""
    ignored = {"architecture", "dtype", "max_positions", "layout", "tower_parameters"}
    row, real = said.model_dump(exclude=ignored), seen.model_dump(exclude=ignored)
    found = [f"{key} {row[key]} in the file, {real[key]} in the source" for key in row if row[key] != real[key]]
    return (f"{config} is of another model than the job's inspection saw, which is planned with: {'; '.join(found)}",) if found else ()


def _held_against(shape: ModelShape, held: Held, config: str) -> tuple[ModelShape, tuple[str, ...]]:
    """Return the shape with what the folder's headers tell, and where they differ from config.json."""
    language, counted = parameters(shape), whole_parameters(shape)
    known, agree = shape.tower_parameters is not None, held.model == counted
    if held.model >= language:
        shape = shape.model_copy(update={"tower_parameters": held.model - language})
    if agree or (not known and held.model >= language):
        return shape, ()
    what = f"{Path(config).parent}: the files hold {held.model} weights, config.json means {counted}"
    return shape, (f"{what}; lprl inspect names the tensors that make the difference",)


def _refuse_modelopt(config: Path) -> None:
    """Refuse what ModelOpt has quantised and says only beside config.json: its weights look like a model in high precision from here."""
    beside = config.parent / MODELOPT
    if beside.is_file():
        found = _read(str(beside)).get("quantization")
        algorithm = found.get("quant_algo") if isinstance(found, dict) else None
        raise UserError(f"{beside}: weights quantised by ModelOpt ({algorithm or 'no algorithm named'}) cannot be read", READABLE)


def _read(config: str) -> dict[str, Any]:
    try:
        found = json.loads(Path(config).read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"{config}: {error.strerror}", _REMEDY) from None
    except json.JSONDecodeError as error:
        raise UserError(f"{config}:{error.lineno}: no JSON: {error.msg}", _REMEDY) from None
    except UnicodeDecodeError:
        raise UserError(f"{config}: not UTF-8", _REMEDY) from None
    except RecursionError:
        raise UserError(f"{config}: nested too deep", _REMEDY) from None
    except ValueError as error:  # a number of thousands of digits
        raise UserError(f"{config}: {error}", _REMEDY) from None
    if not isinstance(found, dict):
        raise UserError(f"{config}: no JSON object", _REMEDY)
    check_counts(found, config)
    return found
