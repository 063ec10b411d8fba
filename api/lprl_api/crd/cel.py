"""A CEL validation rule of the CRD."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Cel:
    """An expression over `self` (and `oldSelf` for transitions) that must hold, and what to say when it does not."""

    rule: str
    message: str = ""
    path: str | None = None
    """Field the message points at, such as `.sampling.temperature`."""
    expression: str | None = None
    """An expression of the message, where it depends on the value."""

    def document(self) -> dict[str, str]:
        """Return the x-kubernetes-validations entry."""
        found = {"rule": self.rule, "message": self.message, "fieldPath": self.path, "messageExpression": self.expression}
        return {key: value for key, value in found.items() if value}
