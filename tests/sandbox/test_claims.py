"""Claims of a driver on a pool of the real agent-sandbox: each episode a fresh sandbox, as many at a time as may be, and nothing stays."""

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.control_plane.harness.world import World
from tests.sandbox.given import driver, head, pool, ready, template
from tests.unit.lprl_workload.agent.sandboxes import tool, tool_server, tools_of
from tests.unit.lprl_workload.agent.test_sandbox_claims import episode

from lprl_workload.agent.toolbox import Toolbox

EPISODES, AT_ONCE = 64, 4
LIMIT_S = 900


@contextmanager
def counted(world: World) -> Iterator[list[int]]:
    """Note how many claims there are, again and again."""
    found, over = list[int](), threading.Event()

    def count() -> None:
        while not over.is_set():
            found.append(len(world.api.list("SandboxClaim", world.namespace)))
            over.wait(0.02)

    thread = threading.Thread(target=count)
    thread.start()
    try:
        yield found
    finally:
        over.set()
        thread.join()


def nothing_left(world: World) -> bool:
    """Whether no claim is there and every sandbox and pod of one is gone: what there is belongs to the pool."""
    sandboxes = world.api.list("Sandbox", world.namespace)
    owners = {owner["kind"] for found in sandboxes for owner in found["metadata"].get("ownerReferences", ())}
    return not world.api.list("SandboxClaim", world.namespace) and owners <= {"SandboxWarmPool"}


def test_64_episodes_over_a_pool_of_four_have_a_fresh_sandbox_each_and_leave_none(world: World, tmp_path: Path) -> None:
    async def all_at_once(tools: Toolbox) -> list[Any]:
        return await asyncio.wait_for(asyncio.gather(*(episode(tools) for _ in range(EPISODES))), LIMIT_S)

    template(world)
    pool(world, AT_ONCE)
    world.wait("a warm pool", lambda: ready(world) == AT_ONCE)
    with tool_server() as port, counted(world) as counts:
        source = driver(world, tmp_path, head(world))
        with tools_of(source, tool(port, warm_pool="python", max_concurrent=AT_ONCE, claim_seconds=300)) as tools:
            found = asyncio.run(all_at_once(tools))
    assert [[said["calls"] for said in each] for each in found] == [[1, 2, 3]] * EPISODES
    assert len({each[0]["sandbox"] for each in found}) == EPISODES == len(set(source.sandboxes))
    assert 0 < max(counts) <= AT_ONCE
    world.wait("nothing left of them", lambda: nothing_left(world))
    labels = [pod["metadata"]["labels"] for pod in world.api.list("Pod", world.namespace) if pod["metadata"]["name"] != "sums-head"]
    assert labels and not any("lprl.dev/job" in found for found in labels), "a job's own pods reach each other: no sandbox may be one"


def test_what_a_killed_driver_held_goes_with_its_pod_or_when_the_next_one_starts(world: World, tmp_path: Path) -> None:
    async def hold(tools: Toolbox) -> str:
        left_open.append(tools.opened(Silent()))  # type: ignore[arg-type]
        mine = await left_open[-1].__aenter__()
        return (await mine.call("count")).text

    left_open = list[Any]()

    template(world)
    pool(world, 2)
    world.wait("a warm pool", lambda: ready(world) == 2)
    folders = [tmp_path / name for name in ("killed", "next", "lost")]
    for folder in folders:
        folder.mkdir()
    with tool_server() as port:
        wanted = tool(port, warm_pool="python", claim_seconds=120, retries=1)
        killed = driver(world, folders[0], head(world))
        killed.close = forgets  # type: ignore[method-assign]
        with tools_of(killed, wanted) as tools:
            assert '"calls"' in asyncio.run(asyncio.wait_for(hold(tools), LIMIT_S))
        assert len(world.api.list("SandboxClaim", world.namespace)) == 1
        with tools_of(driver(world, folders[1], head(world, "next"), attempt=2), wanted):
            assert not world.api.list("SandboxClaim", world.namespace)
        lost = driver(world, folders[2], head(world, "lost"), attempt=3)
        lost.close = forgets  # type: ignore[method-assign]
        with tools_of(lost, wanted) as tools:
            assert '"calls"' in asyncio.run(asyncio.wait_for(hold(tools), LIMIT_S))
        assert len(world.api.list("SandboxClaim", world.namespace)) == 1
    world.api.delete("Pod", world.namespace, "lost")
    world.wait("the claim goes with its driver's pod", lambda: nothing_left(world))


class Silent:
    """An episode's counts."""

    def __init__(self) -> None:
        self.counts: dict[str, int] = {}


async def forgets(name: str) -> None:
    """What a driver that was killed does about its claims."""


def test_a_pool_without_a_template_fails_the_call_in_agent_sandboxs_words(world: World, tmp_path: Path) -> None:
    pool(world, 1)
    source = driver(world, tmp_path, head(world))
    with tools_of(source, tool(8080, warm_pool="python", claim_seconds=5, retries=0)) as tools:
        answer = asyncio.run(asyncio.wait_for(episode(tools, calls=1), LIMIT_S))[0]
    assert answer.how == "failed" and "on pool python was not ready within 5 s (TemplateNotFound" in answer.text
    world.wait("nothing left of it", lambda: nothing_left(world))
