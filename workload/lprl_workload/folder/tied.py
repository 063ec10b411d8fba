"""A head beside a tied embedding: equal values are one tensor stored twice, others are two models in one folder."""

from pathlib import Path

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
    if HEAD not in contents.tensors:
        return contents
    head, embedding = contents.tensors[HEAD], contents.tensors[EMBEDDING]
    two = "config.json says tie_word_embeddings: true (the head is the embedding), the stored head"
    if head.shape != embedding.shape:
        raise UserError(
            f"{contents.path(HEAD)}: tensor {HEAD}: {two} is {list(head.shape)}, the embedding {list(embedding.shape)}", _REMEDY
        )
    row = _first_difference(contents.path(HEAD), contents.path(EMBEDDING))
    if row is not None:
        raise UserError(
            f"{contents.path(HEAD)}: tensor {HEAD}: {two} differs from it in row {row}; transformers keeps both, engines drop the head",
            _REMEDY,
        )
    return contents.without((HEAD,), "config.json ties the head to the embedding, and it is equal to it")


def _first_difference(head: Path, embedding: Path) -> int | None:
    """Return the first row in which head and embedding differ, None when they are equal."""
    # Most folders hold no such copy: who only reads what a folder is does without torch.
    import torch
    from safetensors import safe_open

    with safe_open(head, framework="pt") as one, safe_open(embedding, framework="pt") as other:
        a, b = one.get_slice(HEAD), other.get_slice(EMBEDDING)
        for start in range(0, a.get_shape()[0], ROWS):
            left, right = a[start : start + ROWS].float(), b[start : start + ROWS].float()
            if not torch.equal(left, right):
                return start + int((left != right).any(dim=1).nonzero()[0])
    return None
