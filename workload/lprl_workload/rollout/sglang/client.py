"""The data plane of an SGLang server: streams of tokens, with the data key. All of it in one event loop.

    POST /generate  ->  data: {"output_ids": [7, 3], "meta_info": {"completion_tokens": 2, "output_token_logprobs": [[-0.5, 7, null], ...],
                               "weight_versions": [{"version": "4", "start": 0, "end": 2}], "finish_reason": null, ...}}

SGLang's log-probabilities are those at the sampling temperature, before top-k and top-p (of greedy requests at temperature 1): what the
contract asks for. Messages hold all tokens so far or the new ones only, as the server was started: both are read.
"""

import json
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Literal

import httpx2 as httpx

from lprl_workload.data import SamplingParams

Ended = Literal["stop", "length", "abort"]
CONNECT_S, ASK_S = 10.0, 10.0
KEPT_S = 2.0
"""An idle connection is used again for so long. Servers close theirs later, whatever is on its way to them by then: a broken
connection would be a lost server. The ones that are not told otherwise do it after five seconds, httpx would go on until then."""
EVENT = "data: "


class ServerSaidError(RuntimeError):
    """The server refused a request, with its own words."""


@dataclass(frozen=True, slots=True)
class Drawn:
    """Tokens that the same weights drew."""

    ids: list[int]
    logprobs: list[float]
    version: str | None
    """What the server calls these weights; None where it does not say of which tokens it speaks."""


@dataclass(frozen=True, slots=True)
class Message:
    """The news of a stream."""

    parts: tuple[Drawn, ...]
    ended: Ended | None


@dataclass(slots=True)
class Reader:
    """Puts the messages of one request together."""

    given: int = 0
    """Tokens told so far."""

    def read(self, found: Mapping[str, Any]) -> Message:
        """Return what a message says that those before did not. Raises ServerSaidError for an error in its place."""
        if "error" in found:
            error = found["error"]
            raise ServerSaidError(str(error.get("message", error) if isinstance(error, dict) else error))
        meta = found["meta_info"]
        reason = meta.get("finish_reason")
        if reason is not None and reason["type"] == "abort" and int(reason.get("status_code") or 0) >= 400:
            raise ServerSaidError(str(reason.get("message") or reason))
        first, end = self.given, max(self.given, int(meta["completion_tokens"]))
        new = end - first
        ids = [int(i) for i in found["output_ids"][-new:]] if new else []
        scores = [float(entry[0]) for entry in (meta.get("output_token_logprobs") or [])[-new:]] if new else []
        if len(ids) != new or len(scores) != new:
            raise ServerSaidError(f"{len(ids)} tokens and {len(scores)} log-probabilities came where {new} were drawn")
        self.given = end
        return Message(tuple(_parts(ids, scores, first, meta.get("weight_versions"))), None if reason is None else reason["type"])


def _parts(ids: list[int], scores: list[float], first: int, spans: Sequence[Mapping[str, Any]] | None) -> list[Drawn]:
    """Cut new tokens, of which the first is number `first` of the response, where the weights changed."""
    if not spans or not ids:
        return [Drawn(ids, scores, None)] if ids else []
    found = []
    for span in spans:
        start, end = max(int(span["start"]) - first, 0), int(span["end"]) - first
        if end > start:
            found.append(Drawn(ids[start:end], scores[start:end], str(span["version"])))
    covered = max(0, int(spans[-1]["end"]) - first)
    if covered < len(ids):  # told before the span was brought up to date
        found.append(Drawn(ids[covered:], scores[covered:], str(spans[-1]["version"])))
    return found


def request_body(rid: str, ids: Sequence[int], params: SamplingParams, tokens: int, end_ids: frozenset[int], cache: str) -> dict[str, Any]:
    """Return the body of a request for at most `tokens` tokens behind `ids`; `cache`: only requests of this name share cached prefixes.

    Every setting is said: a server takes what is left out from the model's generation_config.json.
    """
    sampling = {
        "temperature": params.temperature,
        "top_p": params.top_p,
        "top_k": -1 if params.top_k is None else params.top_k,
        "min_p": 0.0,
        "repetition_penalty": 1.0,
        "frequency_penalty": 0.0,
        "presence_penalty": 0.0,
        "max_new_tokens": tokens,
        "stop_token_ids": sorted(end_ids | set(params.stop_token_ids)),
    }
    return {
        "rid": rid,
        "input_ids": list(ids),
        "sampling_params": sampling,
        "return_logprob": True,
        "stream": True,
        "extra_key": cache,
    }


class Client:
    """One server."""

    def __init__(self, address: str, data_key: str, admin_key: str) -> None:
        """Nothing is asked yet. `admin_key`: ending requests is of the control plane, but must not block."""
        self.address, self._admin = address, {"Authorization": f"Bearer {admin_key}"}
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=64, keepalive_expiry=KEPT_S)
        self._http = httpx.AsyncClient(
            base_url=address,
            headers={"Authorization": f"Bearer {data_key}"},
            limits=limits,
            timeout=httpx.Timeout(ASK_S, connect=CONNECT_S),
            trust_env=False,
        )

    async def close(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def events(self, body: Mapping[str, Any]) -> AsyncGenerator[Mapping[str, Any], None]:
        """Yield what a stream says, as it is. Raises ServerSaidError, and what httpx raises where the connection breaks."""
        no_limit = httpx.Timeout(None, connect=CONNECT_S)  # it waits its turn: whoever owns the server sees to it that something moves
        async with self._http.stream("POST", "/generate", json=dict(body), timeout=no_limit) as answer:
            if answer.status_code != httpx.codes.OK:
                raise ServerSaidError(f"HTTP {answer.status_code}: {(await answer.aread()).decode(errors='replace')[:400]}")
            async for line in answer.aiter_lines():
                if line.startswith(EVENT) and line != "data: [DONE]":
                    yield json.loads(line[len(EVENT) :])

    async def abort(self, rid: str | None) -> None:
        """Have the server end a request, or all; says nothing where it does not answer."""
        body = {"rid": "", "abort_all": True} if rid is None else {"rid": rid, "abort_all": False}
        with suppress(httpx.HTTPError):
            await self._http.post("/abort_request", json=body, headers=self._admin)

    async def score(self, ids: Sequence[int]) -> tuple[float, ...]:
        """Return the log-probabilities of ids[1:], temperature 1. Raises ServerSaidError and what httpx raises."""
        body = request_body("", ids, SamplingParams(1.0, 1.0, None, 1), 1, frozenset(), "probe") | {"stream": False, "logprob_start_len": 0}
        del body["rid"]
        answer = await self._http.post("/generate", json=body, timeout=httpx.Timeout(None, connect=CONNECT_S))
        if answer.status_code != httpx.codes.OK:
            raise ServerSaidError(f"HTTP {answer.status_code}: {answer.text[:400]}")
        found = [entry[0] for entry in answer.json()["meta_info"]["input_token_logprobs"]]
        if len(found) != len(ids):
            raise ServerSaidError(f"{len(found)} log-probabilities came of {len(ids)} tokens")
        return tuple(float("nan") if value is None else float(value) for value in found[1:])

    async def serves(self) -> bool:
        """Return whether it has started, and is the server these keys are of."""
        with suppress(httpx.HTTPError):
            up = (await self._http.get("/health")).status_code == httpx.codes.OK
            return up and (await self._http.get("/model_info")).status_code == httpx.codes.OK
        return False

    async def queued(self) -> int:
        """Return how many requests wait inside the server for a place; 0 where it does not say. It does not wait for generation."""
        with suppress(httpx.HTTPError, ValueError, KeyError, TypeError):
            answer = await self._http.get("/v1/loads", params={"include": "core"})
            if answer.status_code == httpx.codes.OK:
                return sum(int(load["num_waiting_reqs"]) for load in answer.json()["loads"])
        return 0
