"""The built-in rollout with tools: the model calls tools until it answers without a call, or a limit is reached."""

from lprl_workload.agent.conversation import Conversation
from lprl_workload.agent.toolbox import Toolbox


async def run_tools(episode: Conversation, tools: Toolbox) -> None:
    """Run `episode` to its end."""
    while True:
        text = await episode.draw()
        if episode.finish is not None:
            return
        calls = tools.calls(text)
        if not calls:
            episode.finish = "stop"
            return
        if episode.drawn_turns >= episode.limits.turns:
            episode.finish = "turn-limit"
            return
        await tools.answer(episode, calls)
        if episode.finish is not None:
            return
