"""What `lprl inspect` says of a model without a table of its family: what the converter found, and by which way."""

from typing import Literal

from pydantic import Field

from lprl_api.base import Documented, NonNegativeInt, PositiveInt
from lprl_api.model.model_shape import Inspection, SourceQuantization


class Look(Documented):
    """A folder of a family without a table: it can be converted, and trained where its class was proven."""

    model_type: str
    """Of its language model, as config.json says."""
    model_class: str
    """transformers' class of the model, or what config.json calls it."""
    way: Literal["class", "index"]
    """Where names, layout and linear layers are from: the class, or the safetensors index with names and shapes alone."""
    layers: NonNegativeInt
    """Decoder layers."""
    experts: NonNegativeInt
    """Routed experts of a layer; 0 without."""
    linear: NonNegativeInt
    """Weights that a format for all linear layers quantises."""
    routed: NonNegativeInt
    """Those of them that are routed experts'."""
    refused: tuple[str, ...] = ()
    """Weights that cannot be quantised, with the reason; the first few."""
    fingerprint: str = Field(pattern=r"^[0-9a-f]{64}$")
    """See Inspection."""
    total_bytes: NonNegativeInt
    """Bytes of the weights on disk."""
    tensors: NonNegativeInt
    """Tensors."""
    shards: PositiveInt
    """Weight files."""
    quantization: SourceQuantization = SourceQuantization()
    """Quantisation of the source."""
    notes: tuple[str, ...] = ()
    """What lies in the folder and is not the model, and how it was read; the first few."""
    inspection: Inspection | None = None
    """What a job's inspection says of it; none for what no job can train."""
