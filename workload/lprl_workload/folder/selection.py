"""The selection of a folder's weights, whether its family has a table or not."""

from collections.abc import Iterable

from lprl_api.model.formats import WeightFormat
from lprl_api.model.model_shape import ModelShape
from lprl_workload.folder.contents import FolderContents
from lprl_workload.quant.ruled import RuledSelection
from lprl_workload.quant.select import Chosen, Selection


def selection_of(fmt: WeightFormat, shape: ModelShape | None, contents: FolderContents, names: Iterable[str] | None = None) -> Chosen:
    """Return what `fmt` quantises of a folder; `names`: those of its tensors, or of what it is converted into.

    Raises UserError for a scope the model has no module of.
    """
    if contents.ruled is not None:
        return RuledSelection(fmt, contents.ruled)
    assert shape is not None, "a family has a table, or the rule's answers"
    return Selection.of(fmt, shape, contents.tensors if names is None else names)
