"""Episodes of real engines on their way into a real trainer: gradients, log-probabilities, and weights that change on the way."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.contract.rollout_bench import Bench, bench, served_tensors
from tests.contract.test_train_actor import paths_of, run_config
from tests.unit.lprl_workload.agent.rollouts import STOPS

from lprl_fixtures.tokenizer import build_tokenizer
from lprl_workload.agent.runner import Rollout, single_turns
from lprl_workload.agent.tool_calls import ToolCall
from lprl_workload.config import RankInfo
from lprl_workload.data import GenerationRequest, Prompt, SamplingParams
from lprl_workload.episode import Episode, token_ids
from lprl_workload.hf.served import ServedModel
from lprl_workload.train.actor_torch import TorchTrainActor
from lprl_workload.train.advantage import Rule
from lprl_workload.train.rank import rank_logprobs, train_sample

HERE = __name__
SHORT = SamplingParams(1.0, 1.0, None, 16, stop_token_ids=STOPS)
"""Turns end after a token or two."""
AGREE = 1e-5
"""Largest difference of a log-probability between engine and trainer that is rounding, float32 on a CPU."""


async def asks_a_tool(prompt: Any, policy: Any, tools: Any) -> None:
    """Draw, have a tool answer twice at once, draw, hear the user, draw."""
    await policy.draw()
    await tools.answer(policy, [ToolCall("multiply", {"a": 6, "b": 7}), ToolCall("multiply", {"a": 2, "b": 3})])
    await policy.draw()
    policy.put([{"role": "user", "content": "sure 9?"}])
    await policy.draw()


class Hooks:
    """What happens between turns of `three_turns`, and while the second is drawn."""

    between: Callable[[], Awaitable[None]]
    within: Callable[["asyncio.Future[str]"], Awaitable[None]]


async def three_turns(prompt: Any, policy: Any, tools: Any) -> None:
    """Draw three turns, of which the second is long."""
    await policy.draw(max_tokens=4)
    policy.finish = None  # however the first one ended
    policy.put([{"role": "user", "content": "go on 1"}])
    await Hooks.between()
    drawing = asyncio.ensure_future(policy.draw())
    await Hooks.within(drawing)
    await drawing
    policy.finish = None
    policy.put([{"role": "user", "content": "go on 2"}])
    await policy.draw(max_tokens=4)


@pytest.fixture
def made(tmp_path: Path) -> Bench:
    torch.set_num_threads(1)
    found = bench(tmp_path, "torch", context_length=256)
    found.tensors = served_tensors(tmp_path, found.fmt, found.shape, 1.0)
    found.push(0)
    return found


def rollout(made: Bench, function: str) -> Rollout:
    tools = [{"name": "multiply", "function": "tests.unit.lprl_workload.agent.rollouts:multiply"}]
    episode = {"type": "python", "function": f"{HERE}:{function}", "tools": tools}
    sampling = {"max_response_tokens": 16, "stop_token_ids": STOPS}
    run = run_config(made.folder, made.fmt, episode=episode, sampling=sampling, rollout={"context_length": 256})
    return Rollout(run, build_tokenizer(), paths_of(made.folder))


def request(sample: int) -> GenerationRequest:
    ids = token_ids([5, 9, 7, 12])
    return GenerationRequest(ids, 100 + sample, 3, 0, sample, Prompt(3, "x", ids, "1"))


def drawn(made: Bench, function: str, count: int, params: SamplingParams = SHORT) -> list[Episode]:
    return asyncio.run(rollout(made, function).draw(made.engine, [request(n) for n in range(count)], params))


def actor_of(made: Bench) -> TorchTrainActor:
    return TorchTrainActor(run_config(made.folder, made.fmt), paths_of(made.folder), RankInfo(0, 1, "cpu"))


def test_what_tools_and_users_say_has_no_gradient_on_the_whole_way_to_the_trainer(made: Bench) -> None:
    (episode,) = [e for e in drawn(made, "asks_a_tool", 6) if e.finish == "stop"][:1]
    sample = train_sample(episode, 1.0, Rule("level"), None, None)
    actor, seen = actor_of(made), list[torch.Tensor]()

    def note(_: object, __: object, output: Any) -> None:
        output.last_hidden_state.retain_grad()
        seen.append(output.last_hidden_state)

    actor._trained.policy.model.model.register_forward_hook(note)
    actor.train([[sample]], 1, sample.drawn_tokens)
    assert seen[0].grad is not None
    moved = seen[0].grad[0].abs().amax(-1).numpy()  # [L]: whether what predicts the next token is pulled at all
    predicts = np.append(sample.mask[1:], False)[: len(moved)]
    assert predicts.sum() == sample.drawn_tokens > 2 and (~predicts).sum() > 20
    assert (moved[~predicts] == 0.0).all(), "exactly nothing"
    assert (moved[predicts] > 0.0).all()


def test_every_drawn_token_has_the_trainers_log_probability_as_in_a_single_turn(made: Bench) -> None:
    several = drawn(made, "asks_a_tool", 6)
    single = asyncio.run(single_turns(made.engine, [request(n) for n in range(6)], SHORT))
    actor = actor_of(made)

    def apart(episodes: list[Episode]) -> float:
        _, rows = rank_logprobs(actor, "policy", [len(episodes)], 1.0, episodes)
        return max(float(np.abs(row - episode.logprobs).max()) for row, episode in zip(rows, episodes, strict=True))

    assert sum(len(episode.turns) for episode in several) > 2 * 6 + 6, "more than one turn each"
    assert apart(single) < AGREE
    assert apart(several) < AGREE


def reference(made: Bench, tensors: list[Any], episode: Episode) -> np.ndarray:
    """Return log-probabilities of ids[1:] by whole forward passes of a model of our own, float32 [L - 1]."""
    served = ServedModel(made.folder, made.fmt, made.shape, "cpu")
    served.load((item.name, item.tensor) for item in tensors)
    ids = torch.from_numpy(episode.ids).long()[None]
    logits = served.model(input_ids=ids, use_cache=False).logits[0, :-1]
    found: np.ndarray = logits.log_softmax(-1).gather(-1, ids[0, 1:, None])[:, 0].detach().numpy()
    return found


def test_an_episode_whose_weights_change_on_the_way_goes_on_and_keeps_every_tokens_version(made: Bench) -> None:
    weights = [made.tensors, served_tensors(made.folder, made.fmt, made.shape, 3.0)]
    version = 0

    async def renew() -> None:
        nonlocal version
        await made.engine.pause("in-place")
        version += 1
        await asyncio.to_thread(made.push, version, weights[version % 2])
        await made.engine.resume()

    async def renew_within(drawing: "asyncio.Future[str]") -> None:
        while not drawing.done() and not (await made.engine.state()).running:
            await asyncio.sleep(0.001)
        await renew()

    Hooks.between, Hooks.within = staticmethod(renew), staticmethod(renew_within)
    long = SamplingParams(1.0, 1.0, None, 160)
    made_of = rollout(made, "three_turns")
    for sample in range(40):  # a turn may be over before the engine stands still: the next one is tried
        (episode,) = asyncio.run(made_of.draw(made.engine, [request(sample)], long))
        turns = [turn for turn in episode.turns if turn.drawn]
        if len(turns) == 3 and len(turns[1].versions) == 2:
            break
    first, second, third = turns
    assert [span.version for turn in turns for span in turn.versions] == [version - 2, version - 1, version, version]
    exact, place = np.full(len(episode.ids) - 1, np.nan), 0
    for turn in episode.turns:
        for span in turn.versions[:1]:  # tokens behind a change within a turn were drawn with the cache of the weights before
            found = reference(made, weights[span.version % 2], episode)
            exact[place + span.first - 1 : place + span.last - 1] = found[place + span.first - 1 : place + span.last - 1]
        place += len(turn.ids)
    told = np.full(len(episode.ids), np.nan)
    told[episode.mask] = episode.logprobs
    known = ~np.isnan(exact)
    assert known.sum() == len(first.ids) + second.versions[0].last + len(third.ids)
    assert np.abs(exact - told[1:])[known].max() < AGREE
    assert len(train_sample(episode, 1.0, Rule("level"), None, None).rollout_logprobs) == sum(len(turn.ids) for turn in turns)
