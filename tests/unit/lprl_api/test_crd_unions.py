"""What a structural schema has no word for is refused while the CRD is made, not written wrongly."""

from typing import Literal

import pytest

from lprl_api.base import Contract, PositiveInt
from lprl_api.crd.schema import structural
from lprl_api.wire.status import LowPrecisionRLJobStatus


class Left(Contract):
    left: int


class Right(Contract):
    right: int


class OfObjects(Contract):
    side: Left | Right


class OfTexts(Contract):
    side: Left | Literal["none"]


class OfNodes(Contract):
    nodes: PositiveInt | Literal["auto"]


class LooksLikeACondition(Contract):
    type: str
    status: str
    reason: str = ""
    last_transition_time: str = ""


@pytest.mark.parametrize("model", [OfObjects, OfTexts])
def test_a_union_that_no_schema_is_known_for_is_an_error(model: type[Contract]) -> None:
    with pytest.raises(TypeError, match="no structural schema is known for the union"):
        structural(model, {}, defaults=True)


def test_a_number_or_auto_is_written_as_before() -> None:
    assert structural(OfNodes, {}, defaults=True)["properties"]["nodes"]["x-kubernetes-int-or-string"] is True


def test_four_property_names_make_no_condition_and_a_condition_stays_one() -> None:
    assert "required" not in structural(LooksLikeACondition, {}, defaults=False)
    conditions = structural(LowPrecisionRLJobStatus, {}, defaults=False)["properties"]["conditions"]
    assert conditions["items"]["required"] == ["type", "status", "reason", "lastTransitionTime"]
