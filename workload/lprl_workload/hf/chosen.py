"""What a format quantises of a model that is trained and served, whether its family has a table or a class."""

from pathlib import Path

from lprl_api.model.formats import WeightFormat
from lprl_api.model.model_shape import ModelShape
from lprl_workload.folder.class_folder import ruled_of_folder
from lprl_workload.quant.ruled import RuledSelection
from lprl_workload.quant.select import Chosen, Selection


def chosen_of(folder: Path, fmt: WeightFormat, shape: ModelShape) -> Chosen:
    """Return what `fmt` quantises of the model of `shape` in `folder`: by the table of its family, or by its class.

    Raises UserError for a scope the model has no module of.
    """
    if shape.family != "other":
        return Selection(fmt, shape)
    return RuledSelection(fmt, ruled_of_folder(folder))
