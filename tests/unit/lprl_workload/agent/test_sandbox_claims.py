"""Tools in claimed sandboxes, over real HTTP: each episode has a fresh one, as many at a time as may be, and none is left."""

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.unit.lprl_workload.agent.sandboxes import FakeApi, claims, fake_api, talk, tool, tool_server, tools_of

from lprl_workload.agent import sandbox_clerk
from lprl_workload.agent.sandbox_clerk import SandboxError
from lprl_workload.agent.toolbox import Toolbox
from lprl_workload.episode import WAITED

LIMIT_S = 180


@pytest.fixture
def api() -> Iterator[tuple[FakeApi, str]]:
    with fake_api() as found:
        yield found


@pytest.fixture
def port() -> Iterator[int]:
    with tool_server() as found:
        yield found


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sandbox_clerk, "FIRST_WAIT_S", 0.01)


async def episode(tools: Toolbox, name: str = "count", calls: int = 3, **arguments: object) -> list[Any]:
    """Make calls in one episode; returns what they said, and the answer itself of those that were none."""
    spoken = talk()
    async with tools.opened(spoken) as mine:
        answers = [await mine.call(name, **arguments) for _ in range(calls)]
    assert spoken.counts[WAITED] >= 0
    return [json.loads(answer.text) if answer.how == "ok" else answer for answer in answers]


def run(work: Any) -> Any:
    return asyncio.run(asyncio.wait_for(work, LIMIT_S))


async def gone(api: FakeApi) -> None:
    """Wait until no claim is there."""
    while api.claims:
        await asyncio.sleep(0.01)


def test_64_episodes_over_four_sandboxes_have_a_fresh_one_each_and_leave_none(api: Any, port: int, tmp_path: Path) -> None:
    async def all_at_once(tools: Toolbox) -> list[Any]:
        found = await asyncio.gather(*(episode(tools) for _ in range(64)))
        await gone(api[0])
        return found

    with tools_of(claims(api[1], tmp_path), tool(port, max_concurrent=4, path="/x")) as tools:
        found = run(all_at_once(tools))
    assert [[said["calls"] for said in each] for each in found] == [[1, 2, 3]] * 64, "its state is the episode's, from first to last call"
    assert len({each[0]["sandbox"] for each in found}) == 64 and all(len({said["sandbox"] for said in each}) == 1 for each in found)
    assert {said["path"] for each in found for said in each} == {"/x"}
    assert (len(api[0].made), api[0].most) == (64, 4)


def test_a_claim_says_whose_it_is_and_goes_with_the_drivers_pod(api: Any, port: int, tmp_path: Path) -> None:
    with tools_of(claims(api[1], tmp_path), tool(port)) as tools:
        run(episode(tools, calls=1))
    made = api[0].made[0]
    labels = {"lprl.dev/job": "sums", "lprl.dev/attempt": "2", "app.kubernetes.io/managed-by": "lprl"}
    assert made["metadata"]["labels"] == labels and made["metadata"]["name"].startswith("sums-")
    assert made["metadata"]["ownerReferences"] == [{"apiVersion": "v1", "kind": "Pod", "name": "sums-head", "uid": "1-2-3"}]
    assert made["spec"] == {"warmPoolRef": {"name": "counters"}} and not api[0].claims


def test_an_episode_without_calls_claims_nothing(api: Any, port: int, tmp_path: Path) -> None:
    async def no_calls(tools: Toolbox) -> dict[str, int]:
        spoken = talk()
        async with tools.opened(spoken):
            pass
        return dict(spoken.counts)

    with tools_of(claims(api[1], tmp_path), tool(port)) as tools:
        assert run(no_calls(tools)) == {} and not api[0].made


def test_calls_side_by_side_share_the_sandbox_of_their_episode(api: Any, port: int, tmp_path: Path) -> None:
    async def together(tools: Toolbox) -> list[str]:
        async with tools.opened(talk()) as mine:
            return [answer.text for answer in await asyncio.gather(*(mine.call("count") for _ in range(8)))]

    with tools_of(claims(api[1], tmp_path), tool(port)) as tools:
        found = [json.loads(text) for text in run(together(tools))]
    assert sorted(said["calls"] for said in found) == list(range(1, 9)) and len(api[0].made) == 1


@pytest.mark.parametrize("how", ["fails", "is cancelled", "is over its time"])
def test_a_sandbox_goes_however_its_episode_ends(api: Any, port: int, tmp_path: Path, how: str) -> None:
    async def ends(tools: Toolbox) -> None:
        async with tools.opened(talk()) as mine:
            assert (await mine.call("count")).how == "ok"
            assert len(api[0].claims) == 1
            if how == "fails":
                raise LookupError("no board left")
            async with asyncio.timeout(0.01 if how == "is over its time" else None):
                await asyncio.sleep(LIMIT_S)

    async def until_gone(tools: Toolbox) -> None:
        task = asyncio.create_task(ends(tools))
        while how == "is cancelled" and not api[0].claims:
            await asyncio.sleep(0.01)
        if how == "is cancelled":
            task.cancel()
        with pytest.raises((LookupError, TimeoutError, asyncio.CancelledError)):
            await task
        await gone(api[0])

    with tools_of(claims(api[1], tmp_path), tool(port)) as tools:
        run(until_gone(tools))


def test_an_episode_that_gives_up_while_it_waits_leaves_its_place_to_others(api: Any, port: int, tmp_path: Path) -> None:
    async def turns(tools: Toolbox) -> list[Any]:
        async with tools.opened(talk()) as mine:
            await mine.call("count")
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(episode(tools), 0.2)  # there is one place, and it is taken
            assert len(api[0].made) == 1
        return await episode(tools, calls=1)

    with tools_of(claims(api[1], tmp_path), tool(port, max_concurrent=1)) as tools:
        assert run(turns(tools))[0]["calls"] == 1
    assert not api[0].claims and len(api[0].made) == 2


def test_a_pool_that_gives_no_sandbox_fails_the_call_with_pool_time_and_its_own_words(api: Any, port: int, tmp_path: Path) -> None:
    api[0].ready = False
    with tools_of(claims(api[1], tmp_path), tool(port, claim_seconds=0.5, retries=1)) as tools:
        answer = run(episode(tools, calls=1))[0]
    assert answer.how == "failed" and "on pool counters was not ready within 0.5 s (TemplateNotFound: no template t)" in answer.text
    assert len(api[0].made) == 2 and not api[0].claims, "tried again once, and nothing stays"


@pytest.mark.parametrize("statuses", [[503, 429], [503, 503, 503]])
def test_a_busy_api_server_is_asked_again_as_often_as_retries_says(api: Any, port: int, tmp_path: Path, statuses: list[int]) -> None:
    api[0].refuse = {"POST": list(statuses)}
    with tools_of(claims(api[1], tmp_path), tool(port, retries=2)) as tools:
        found = run(episode(tools, calls=1))[0]
    if len(statuses) == 2:
        assert found["calls"] == 1
    else:
        assert found.how == "failed" and "POST sandboxclaims: HTTP 503 refused for a test" in found.text
    assert not api[0].claims


def test_what_may_not_be_claimed_is_told_at_once(api: Any, port: int, tmp_path: Path) -> None:
    api[0].refuse = {"POST": [403, 403]}
    with tools_of(claims(api[1], tmp_path), tool(port, retries=5)) as tools:
        answer = run(episode(tools, calls=1))[0]
    assert answer.how == "failed" and "HTTP 403" in answer.text and api[0].asked["POST"] == 1


def test_a_place_is_free_only_when_the_claim_is_gone(api: Any, port: int, tmp_path: Path) -> None:
    async def one_after_the_other(tools: Toolbox) -> None:
        await episode(tools)
        await episode(tools)

    with tools_of(claims(api[1], tmp_path), tool(port, max_concurrent=1)) as tools:
        api[0].refuse = {"DELETE": [500, 503, 500]}
        run(one_after_the_other(tools))
    assert api[0].most == 1 and not api[0].claims and api[0].asked["DELETE"] >= 5


def test_claims_of_an_earlier_attempt_are_ended_at_the_start_and_those_of_other_jobs_are_not(api: Any, port: int, tmp_path: Path) -> None:
    left, other = claims(api[1], tmp_path, attempt=1), dict(app="other")
    api[0].add(left._claim("sums-of-before", "counters"))
    api[0].add({"metadata": {"name": "else", "labels": {"lprl.dev/job": "sum", "app.kubernetes.io/managed-by": "lprl", **other}}})
    with tools_of(claims(api[1], tmp_path), tool(port)):
        assert list(api[0].claims) == ["else"]


def test_a_start_that_cannot_look_for_leftovers_fails(api: Any, port: int, tmp_path: Path) -> None:
    api[0].refuse = {"GET": [404]}
    with pytest.raises(SandboxError, match="GET sandboxclaims: HTTP 404"), tools_of(claims(api[1], tmp_path), tool(port)):
        pass


def test_two_tools_with_one_sandbox_each_never_wait_for_each_other(api: Any, port: int, tmp_path: Path) -> None:
    async def both(tools: Toolbox, first: str, second: str) -> None:
        async with tools.opened(talk()) as mine:
            assert [(await mine.call(name)).how for name in (first, second)] == ["ok", "ok"]

    async def crosswise(tools: Toolbox) -> None:
        await asyncio.gather(*(both(tools, *(("count", "tally") if n % 2 else ("tally", "count"))) for n in range(12)))
        await gone(api[0])

    one, other = tool(port, max_concurrent=1), tool(port, "tally", max_concurrent=1)
    with tools_of(claims(api[1], tmp_path), one, other) as tools:
        run(crosswise(tools))
    assert (len(api[0].made), api[0].most) == (24, 2)


def test_a_call_that_outlives_its_episode_is_told_so_and_holds_nothing(api: Any, port: int, tmp_path: Path) -> None:
    async def outlives(tools: Toolbox) -> Any:
        async with tools.opened(talk()) as mine:
            call = asyncio.create_task(mine.call("count"))
            while not api[0].claims:
                await asyncio.sleep(0.01)
        answer = await call
        await gone(api[0])
        return answer

    api[0].ready = False
    with tools_of(claims(api[1], tmp_path), tool(port, claim_seconds=LIMIT_S)) as tools:
        answer = run(outlives(tools))
    assert (answer.how, answer.text) == ("failed", "error: count: its episode is over")


def test_the_end_of_a_run_ends_what_its_episodes_hold(api: Any, port: int, tmp_path: Path) -> None:
    async def hold(tools: Toolbox) -> Any:
        opened = tools.opened(talk())
        mine = await opened.__aenter__()  # and never left
        assert (await mine.call("count")).how == "ok" and len(api[0].claims) == 1
        return opened

    with tools_of(claims(api[1], tmp_path), tool(port)) as tools:
        left = run(hold(tools))
    assert left is not None and not api[0].claims
