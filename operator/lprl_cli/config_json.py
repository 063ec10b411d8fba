"""A model's config.json -> what an inspection would find in it, without the weights."""

import json
from pathlib import Path
from typing import Any

from lprl_api.errors import UserError
from lprl_api.model.config_file import format_of, planned_shape_of, source_quantization, whole_model_of
from lprl_api.model.hf_quantization import READABLE
from lprl_api.model.model_shape import Inspection

UNKNOWN_FINGERPRINT = "0" * 64
MODELOPT = "hf_quant_config.json"
_REMEDY = "give the model's config.json"


def inspection_of(config: str) -> Inspection:
    """Return shape, quantisation and class of a config.json, nothing of the weights.

    Raises UserError naming the file, and the key where one is wrong: what inspect or convert would refuse.
    """
    found = _read(config)
    shape = planned_shape_of(found, config)
    fmt = format_of(found, config, shape)
    _refuse_modelopt(Path(config))
    return Inspection(
        shape=shape,
        fingerprint=UNKNOWN_FINGERPRINT,
        total_bytes=0,
        tensors=0,
        shards=1,
        quantization=source_quantization(fmt),
        model_class=whole_model_of(found, config),
    )


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
    if not isinstance(found, dict):
        raise UserError(f"{config}: no JSON object", _REMEDY)
    return found
