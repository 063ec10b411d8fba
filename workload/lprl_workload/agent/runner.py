"""Requests of the driver + an engine -> episodes, as spec.episode says. One Rollout an engine process, for all its batches."""

import asyncio
import itertools
import threading
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from inspect import getmodule
from typing import Any

from lprl_api.derived.effective import episode_tokens
from lprl_api.errors import UserError
from lprl_api.wire.runconfig import RunConfig
from lprl_workload.agent.between import TurnTokens
from lprl_workload.agent.conversation import Conversation, EpisodeOver, Limits
from lprl_workload.agent.named import check_episode, load_function, load_tools, style_for
from lprl_workload.agent.tool_loop import run_tools
from lprl_workload.agent.toolbox import Toolbox
from lprl_workload.agent.waiting import Unwaited, cancelling, uncancel
from lprl_workload.config import ResolvedPaths
from lprl_workload.data import GenerationRequest, SamplingParams
from lprl_workload.episode import Episode, Finish, Int32, world
from lprl_workload.process.movement import here
from lprl_workload.rollout.completions import complete, first_of
from lprl_workload.rollout.decode import response_decoder
from lprl_workload.rollout.end_tokens import end_token_ids
from lprl_workload.rollout.engine import RolloutEngine, Sampler
from lprl_workload.rollout.imported import raised_at, said
from lprl_workload.rollout.prompt_tokens import context_of

BESIDE_S = 1.0
"""How often it is noted that episodes wait for something else than the engine."""
Draw = Callable[[RolloutEngine, Sequence[GenerationRequest], SamplingParams], Coroutine[Any, Any, list[Episode]]]
"""Requests -> one episode each, in order."""


@dataclass(frozen=True, slots=True)
class Row:
    """What a rollout of the user's own is told of its prompt."""

    text: str
    """As the model sees it."""
    label: str | tuple[str, ...] | None
    metadata: Mapping[str, Any]
    number: int
    """Of the row in the prompt file."""
    seed: int
    """Of this sample: equal in a step that is done again."""


async def single_turns(
    engine: RolloutEngine, requests: Sequence[GenerationRequest], params: SamplingParams, still: bool = True
) -> list[Episode]:
    """Return one response each; `still`: see `complete`."""
    done = await complete(engine, requests, params, still)
    return [completion.episode(request) for completion, request in zip(done, requests, strict=True)]


def make_draw(run: RunConfig, paths: ResolvedPaths) -> Draw:
    """Return how a run's episodes are drawn; raises UserError for what spec.episode names and cannot be used."""
    if run.episode.type == "single-turn":
        return partial(single_turns, still=run.algorithm.max_staleness == 0)
    # A trainer rank imports this module with its host, and needs no tokenizer: a second of transformers.
    from lprl_workload.rollout.tokens import load_tokenizer

    return Rollout(run, load_tokenizer(paths.rollout), paths)


def abort_episodes(draw: Draw) -> None:
    """End, from any thread, what episodes under way wait for beside drawing; what their engine draws is for its `abort` to end.

    An episode that begins meanwhile may be missed.
    """
    if isinstance(draw, Rollout):
        draw.abort()


class Rollout:
    """Episodes of several turns."""

    def __init__(self, run: RunConfig, tokenizer: Any, paths: ResolvedPaths) -> None:
        """Load what the episode names; raises UserError."""
        self._episode, self._context = run.episode, context_of(run)
        variables = run.data.chat_template_kwargs | {"tools": check_episode(run.episode, run.data, tokenizer) or None}
        ends = end_token_ids(paths.rollout, tokenizer)
        self._between = TurnTokens(tokenizer, ends, variables) if run.data.apply_chat_template else None
        self._text, self._one = response_decoder(tokenizer, ends, run.sampling.stop_token_ids), threading.Lock()
        self._tools = Toolbox(load_tools(run.episode), style_for(run.episode, tokenizer, variables))
        self._function = load_function(run.episode.function) if run.episode.function is not None else None
        self._file = getattr(getmodule(self._function), "__file__", None) or ""
        self._numbers = itertools.count()
        self._open: dict[int, tuple[asyncio.AbstractEventLoop, list[Conversation]]] = {}
        """Batches under way: each has an event loop of its own."""

    async def __call__(self, engine: Sampler, requests: Sequence[GenerationRequest], params: SamplingParams) -> list[Episode]:
        """See `draw`."""
        return await self.draw(engine, requests, params)

    def abort(self) -> None:
        """See `abort_episodes`."""
        for loop, talks in list(self._open.values()):
            with suppress(RuntimeError):  # it ended meanwhile
                loop.call_soon_threadsafe(_abort, talks)

    async def draw(self, engine: Sampler, requests: Sequence[GenerationRequest], params: SamplingParams) -> list[Episode]:
        """Run one episode a request, all at once. Raises what the engine raises, and UserError when tools hang for good."""
        batch, talks = next(self._numbers), list[Conversation]()
        asyncio.get_running_loop().set_default_executor(Unwaited())
        noting = asyncio.create_task(_note_waiting(talks))
        try:
            with self._abortable(batch, talks):
                async with asyncio.TaskGroup() as group:
                    tasks = [group.create_task(self._run(engine, r, params, f"{batch}.{n}", talks)) for n, r in enumerate(requests)]
        except* Exception as failed:
            raise first_of(failed) from None
        finally:
            noting.cancel()
            await self._tools.close()
        return [task.result() for task in tasks]

    @contextmanager
    def _abortable(self, batch: int, talks: list[Conversation]) -> Iterator[None]:
        self._open[batch] = asyncio.get_running_loop(), talks
        try:
            yield
        finally:
            del self._open[batch]

    async def _run(
        self, engine: Sampler, request: GenerationRequest, params: SamplingParams, name: str, talks: list[Conversation]
    ) -> Episode:
        room = min(episode_tokens(self._episode, params.max_response_tokens), self._context - len(request.prompt_ids))
        limits = Limits(self._episode.max_turns, room, self._episode.max_tool_tokens)
        talk = Conversation(name, request.prompt_ids, request.seed, params, limits, engine, self._between, self._decode)
        talk.task = asyncio.current_task()
        talks.append(talk)
        await self._rolled(talk, request)
        talks.remove(talk)
        here.tick()
        return _episode(talk, request)

    async def _rolled(self, talk: Conversation, request: GenerationRequest) -> None:
        limit_s = self._episode.timeout_seconds
        try:
            async with self._tools.opened(talk) as tools, asyncio.timeout(limit_s) as talk.clock:
                if self._function is None:
                    await run_tools(talk, tools)
                else:
                    await self._function(_row(request), talk, tools)
        except EpisodeOver:
            pass
        except UserError:
            raise
        except (Exception, SystemExit, asyncio.CancelledError) as error:  # a user's function may raise anything
            if isinstance(error, asyncio.CancelledError) and cancelling() and not talk.aborted:
                raise
            if talk.aborted:
                uncancel()
            elif talk.clock is not None and talk.clock.expired() and isinstance(error, TimeoutError):
                talk.fail(f"the episode took more than {limit_s:g} s beside drawing")
            elif talk.error is None:
                talk.fail(f"{said(error)}{raised_at(error, self._file)}")
        if talk.error is not None:
            raise talk.error
        if talk.finish is None and not talk.turns:
            talk.fail("the function returned before the policy drew anything")

    def _decode(self, ids: Int32) -> str:
        with self._one:
            return self._text(ids.tolist())


def _abort(talks: Sequence[Conversation]) -> None:
    for talk in talks:
        talk.abort()


async def _note_waiting(talks: Sequence[Conversation]) -> None:
    """Count as movement that an episode waits for a tool or its own function: that has a limit, and is no stillness of the engine."""
    while True:
        await asyncio.sleep(BESIDE_S)
        if any(not talk.drawing for talk in talks):
            here.tick()


def _row(request: GenerationRequest) -> Row:
    if request.row is None:
        raise ValueError("a rollout of the user's own needs the row of its prompt")
    return Row(request.row.text, request.row.label, request.row.metadata, request.prompt, request.seed)


def _episode(talk: Conversation, request: GenerationRequest) -> Episode:
    finish: Finish = talk.finish or "stop"
    return Episode(
        prompt=request.prompt,
        group=request.group,
        sample=request.sample,
        turns=(world(request.prompt_ids), *talk.turns),
        finish=finish,
        failure="; ".join(talk.failures),
        calls=dict(talk.counts),
        said=tuple(talk.said),
    )
