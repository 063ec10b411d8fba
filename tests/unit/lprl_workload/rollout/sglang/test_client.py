"""The server's messages put together: tokens, log-probabilities and which weights drew them."""

from typing import Any

import pytest

from lprl_workload.data import SamplingParams
from lprl_workload.rollout.sglang.client import Drawn, Message, Reader, ServerSaidError, request_body


def message(ids: list[int], done: int, spans: Any = None, reason: Any = None, scores: int | None = None) -> dict[str, Any]:
    logprobs = [[-0.1 * i, i, None] for i in ids[: len(ids) if scores is None else scores]]
    meta = {"completion_tokens": done, "output_token_logprobs": logprobs, "finish_reason": reason}
    return {"output_ids": ids, "meta_info": meta | ({} if spans is None else {"weight_versions": spans})}


def span(version: str, start: int, end: int) -> dict[str, Any]:
    return {"version": version, "start": start, "end": end}


@pytest.mark.parametrize("all_so_far", [True, False])
def test_messages_of_new_tokens_and_of_all_tokens_so_far_say_the_same(all_so_far: bool) -> None:
    reader, found = Reader(), []
    for first, end in ((0, 2), (2, 3), (3, 5)):
        ids = list(range(10 + (0 if all_so_far else first), 10 + end))
        reason = {"type": "length", "length": 5} if end == 5 else None
        found.append(reader.read(message(ids, end, reason=reason)))
    assert [[i for part in m.parts for i in part.ids] for m in found] == [[10, 11], [12], [13, 14]]
    assert found[0].parts[0].logprobs == [-1.0, -1.1] and [m.ended for m in found] == [None, None, "length"]


def test_tokens_are_cut_where_the_weights_changed() -> None:
    reader = Reader()
    reader.read(message([5, 6], 2, [span("4", 0, 2)]))
    found = reader.read(message([7, 8, 9], 5, [span("4", 0, 3), span("5", 3, 5)]))
    assert [(part.ids, part.version) for part in found.parts] == [([7], "4"), ([8, 9], "5")]


def test_a_server_that_does_not_say_leaves_the_version_open() -> None:
    assert Reader().read(message([5], 1)) == Message((Drawn([5], [-0.5], None),), None)


def test_an_aborted_request_keeps_what_it_drew_and_a_refused_one_says_why() -> None:
    reader = Reader()
    reader.read(message([5], 1))
    assert reader.read(message([6], 2, reason={"type": "abort", "message": "Abort in AbortReq"})).ended == "abort"
    refused = {"type": "abort", "message": "The request is too long", "status_code": 400}
    with pytest.raises(ServerSaidError, match="too long"):
        Reader().read(message([], 0, reason=refused))
    with pytest.raises(ServerSaidError, match="no such thing"):
        Reader().read({"error": {"message": "no such thing"}})


def test_tokens_without_their_log_probabilities_are_no_answer() -> None:
    with pytest.raises(ServerSaidError, match="3 tokens and 1 log-probabilities"):
        Reader().read(message([5, 6, 7], 3, scores=1))


def test_a_request_says_every_setting_that_a_models_own_file_could_set() -> None:
    body = request_body("r", [3, 4], SamplingParams(0.8, 0.9, None, 12, (), (7,)), 5, frozenset({1}), "v3")
    said = body["sampling_params"]
    assert said["top_k"] == -1 and said["stop_token_ids"] == [1, 7] and said["max_new_tokens"] == 5
    assert (said["repetition_penalty"], said["min_p"], said["presence_penalty"]) == (1.0, 0.0, 0.0)
    assert body["return_logprob"] and body["extra_key"] == "v3"
