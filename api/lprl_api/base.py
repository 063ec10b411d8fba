"""Base of every type in the contract: frozen, camelCase on the wire, unknown fields refused."""

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel


class Contract(BaseModel):
    """A frozen value whose JSON keys are camelCase (Kubernetes API conventions).

    Python code uses snake_case attributes; documents use the aliases. Both are accepted on input, unknown keys never.
    """

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        alias_generator=to_camel,
        populate_by_name=True,
        protected_namespaces=(),
        allow_inf_nan=False,
        use_attribute_docstrings=False,
    )

    def document(self) -> dict[str, Any]:
        """Return the JSON-ready mapping with camelCase keys; every field present, None included."""
        return self.model_dump(mode="json", by_alias=True)


class Documented(Contract):
    """A contract whose attributes' docstrings are the descriptions of its fields in the CRD (`kubectl explain`)."""

    model_config = ConfigDict(use_attribute_docstrings=True)


MAX_STRING = 2048
"""Characters of a text in a Kubernetes object of ours, where nothing else is said."""
INT64_MAX = 2**63 - 1
"""Largest integer of a Kubernetes object."""
PositiveInt = Annotated[int, Field(ge=1, le=INT64_MAX)]
NonNegativeInt = Annotated[int, Field(ge=0, le=INT64_MAX)]
MOST_NODES, MOST_DEVICES, MOST_RANKS = 16_384, 1_024, 65_536
"""Nodes of a job, devices of a node, ranks of a group: far above what anybody has, and few enough to count."""
Nodes = Annotated[int, Field(ge=1, le=MOST_NODES)]
Devices = Annotated[int, Field(ge=1, le=MOST_DEVICES)]
ParallelSize = Annotated[int, Field(ge=1, le=MOST_RANKS)]
PositiveFloat = Annotated[float, Field(gt=0)]
NonNegativeFloat = Annotated[float, Field(ge=0)]
Fraction = Annotated[float, Field(gt=0, le=1)]
Name = Annotated[str, Field(min_length=1, max_length=63, pattern=r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$")]
"""A DNS-1123 label."""
_BANNED = r"/\x00-\x1f\x7f-\x9f"
_SEGMENT = rf"([^.{_BANNED}][^{_BANNED}]*|\.|\.[^.{_BANNED}][^{_BANNED}]*|\.\.[^{_BANNED}]+)"
PATH_PATTERN = rf"^{_SEGMENT}(/{_SEGMENT})*$"
RelativePath = Annotated[str, Field(min_length=1, max_length=1024, pattern=PATH_PATTERN)]
"""A path inside a volume: relative, without `..` components or control characters (terminal escapes among them)."""
