"""A head beside a tied embedding: equal values are one tensor stored twice, others are two models in one folder."""

from lprl_api.errors import UserError
from lprl_api.model.checkpoint_tensors import EMBEDDING, HEAD
from lprl_workload.folder.contents import FolderContents

ROWS = 4096
"""Rows compared at a time: never two whole embeddings in memory."""
_REMEDY = (
    "if the head is a tensor of its own, say tie_word_embeddings: false in config.json; if it is the embedding, "
    "save the model without lm_head.weight"
)


def without_tied_head(contents: FolderContents) -> FolderContents:
    """Return the contents of a model with tied embeddings without the copy of the embedding that is stored as its head.

    Raises UserError when the stored head is another tensor than the embedding.
    """
    return without_equal(contents, HEAD, EMBEDDING) if HEAD in contents.tensors else contents


def without_equal(contents: FolderContents, name: str, source: str) -> FolderContents:
    """Return the contents without tensor `name`, which config.json ties to `source`. Raises UserError when it is another tensor."""
    head, embedding = contents.tensors[name], contents.tensors[source]
    two = "config.json says tie_word_embeddings: true (the head is the embedding), the stored head"
    if head.shape != embedding.shape:
        raise UserError(
            f"{contents.path(name)}: tensor {name}: {two} is {list(head.shape)}, the embedding {list(embedding.shape)}", _REMEDY
        )
    row = _first_difference(contents, name, source)
    if row is not None:
        raise UserError(
            f"{contents.path(name)}: tensor {name}: {two} differs from it in row {row}; transformers keeps both, engines drop the head",
            _REMEDY,
        )
    return contents.without((name,), "config.json ties the head to the embedding, and it is equal to it")


def _first_difference(contents: FolderContents, name: str, source: str) -> int | None:
    """Return the first row in which head and embedding differ, None when they are equal."""
    # Most folders hold no such copy: who only reads what a folder is does without torch.
    import torch
    from safetensors import safe_open

    with safe_open(contents.path(name), framework="pt") as one, safe_open(contents.path(source), framework="pt") as other:
        a, b = one.get_slice(name), other.get_slice(source)
        for start in range(0, a.get_shape()[0], ROWS):
            left, right = a[start : start + ROWS].float(), b[start : start + ROWS].float()
            if not torch.equal(left, right):
                return start + int((left != right).any(dim=1).nonzero()[0])
    return None
