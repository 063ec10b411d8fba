"""One wrong field: where, what it holds, what fits."""

from collections.abc import Iterable
from dataclasses import dataclass

from lprl_api.errors import UserError


@dataclass(frozen=True, order=True)
class FieldError:
    """A field that cannot stay as it is."""

    path: str
    """Field path from the root of the manifest, such as spec.topology.trainer.tensor."""
    got: str
    """What the field holds, as a user would write it; `nothing` when it is absent."""
    need: str
    """What fits and, where known, the change that makes it fit."""

    def __str__(self) -> str:
        return f"{self.path}: got {self.got}; need {self.need}"


def as_text(value: object, limit: int = 80) -> str:
    """Return a value as a manifest shows it, at most `limit` characters."""
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return str(value).lower()
    text = str(value) if isinstance(value, str | int | float) else repr(value)
    return text if len(text) <= limit else text[: limit - 3] + "..."


def wrong(path: str, got: object, need: str) -> FieldError:
    """Return the error of one field below `spec` (path without the leading `spec.`)."""
    return FieldError(f"spec.{path}", as_text(got), need)


class InvalidJob(UserError):
    """The manifest breaks the schema or a rule; carries every error at once."""

    def __init__(self, errors: Iterable[FieldError]) -> None:
        self.errors = list(errors)
        super().__init__("; ".join(map(str, self.errors)), "change the fields named")
