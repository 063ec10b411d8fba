"""Noticing that KubeRay was installed later, whatever the API server says meanwhile."""

import asyncio
import logging
from typing import Any

import pytest

from lprl_operator import kinds
from lprl_operator.kube.api import ApiError, Unavailable

SERVED = {"resources": [{"name": name} for name in kinds.KINDS]}
REFUSALS = [ApiError(401, "Unauthorized", "expired"), ApiError(403, "Forbidden", "no"), Unavailable(429, "TooManyRequests", "later")]


class Api:
    """Refuses its first requests, then serves every kind."""

    def __init__(self, *refusals: ApiError) -> None:
        self.refusals = list(refusals)

    def get(self, path: str) -> Any:
        if self.refusals:
            raise self.refusals.pop(0)
        return SERVED


@pytest.mark.parametrize("refusal", REFUSALS, ids=["401", "403", "429"])
def test_a_refusal_does_not_end_the_watching_for_kinds(monkeypatch: pytest.MonkeyPatch, refusal: ApiError) -> None:
    monkeypatch.setattr(kinds, "LOOK_S", 0.01)
    flag = asyncio.Event()
    api: Any = Api(refusal, refusal)
    asyncio.run(asyncio.wait_for(kinds.changed(api, frozenset(), flag), 5))
    assert flag.is_set()


def test_a_lasting_refusal_is_told_once(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(kinds, "LOOK_S", 0.01)
    with caplog.at_level(logging.WARNING):
        api: Any = Api(*[ApiError(403, "Forbidden", "no") for _ in range(5)])
        asyncio.run(asyncio.wait_for(kinds.changed(api, frozenset(), asyncio.Event()), 5))
    assert [r.message for r in caplog.records if "403" in r.message] == [
        "cannot see which kinds the API server serves (403 Forbidden: no); trying again every 0.01 s"
    ]
