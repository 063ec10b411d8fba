"""A tool in a sandbox: every episode has one of its own from its first call to its end. Asked as an address is (tool_http.py)."""

import asyncio
import time
import uuid
from collections.abc import Mapping
from typing import Any

from lprl_api.errors import UserError
from lprl_api.spec import episode as spec
from lprl_workload.agent.sandbox_desk import Desk, Told
from lprl_workload.agent.sandbox_desk import desk as of_this_process
from lprl_workload.agent.tool import Answer, schema_of
from lprl_workload.agent.tool_http import HttpTool


class SandboxTool:
    """What the model is told of the tool; an episode calls what `opened` returns."""

    def __init__(self, tool: spec.Tool, place: int, desk: Desk = of_this_process) -> None:
        """`place`: its number in episode.tools. Raises UserError naming the field."""
        where = f"episode.tools[{place}]"
        if tool.sandbox is None or tool.parameters is None or not tool.description:
            raise UserError(f"{where}: a sandbox says nothing of itself", f"set {where}.description and {where}.parameters (JSON schema)")
        self.name, self._tool, self._place, self._desk = tool.name, tool, place, desk
        self.schema: Mapping[str, Any] = schema_of(tool.name, tool.description, tool.parameters)

    def opened(self, episode: str = "") -> "EpisodeSandbox":
        """Return the tool of one episode, told apart by `episode`: the tools of one share its name."""
        return EpisodeSandbox(self._tool, self._place, self._desk, episode or uuid.uuid4().hex)

    async def call(self, arguments: Mapping[str, Any]) -> Answer:
        """Make one call in a sandbox that lives no longer."""
        tool = self.opened()
        try:
            return await tool.call(arguments)
        finally:
            await tool.close()

    async def close(self) -> None:
        """Nothing is held between episodes."""


class EpisodeSandbox:
    """The tool of one episode. Calls side by side share its sandbox."""

    def __init__(self, tool: spec.Tool, place: int, desk: Desk, episode: str) -> None:
        assert tool.sandbox is not None
        self.name, self.schema = tool.name, schema_of(tool.name, str(tool.description), dict(tool.parameters or {}))
        self._tool, self._place, self._desk, self._episode = tool, place, desk, episode
        self._path = tool.sandbox.path
        self._one = asyncio.Lock()
        self._asked = False
        self._told: Told | None = None
        self._http: HttpTool | None = None
        self.waited_s = 0.0
        """For the sandbox, which is no part of a call's time."""

    async def call(self, arguments: Mapping[str, Any]) -> Answer:
        """See Tool. The wait for the sandbox has the episode's limit only."""
        async with self._one:
            if self._told is None:
                await self._lease()
        if self._http is None:
            assert self._told is not None
            return Answer(f"error: {self.name}: {self._told.error}", "failed")
        return await self._http.call(arguments)

    async def _lease(self) -> None:
        began, self._asked = time.monotonic(), True
        try:
            self._told = await self._desk.lease(self._episode, self._place)
        finally:
            self.waited_s += time.monotonic() - began
        if self._told.address:
            asked = self._tool.model_copy(update={"sandbox": None, "url": f"{self._told.address}{self._path}"})
            self._http = HttpTool(asked, f"episode.tools[{self._place}]", None, direct=True)

    async def close(self) -> None:
        """Let the sandbox go; whoever claimed it ends it. Never waits for that."""
        if self._asked:
            self._asked = False
            self._desk.end(self._episode)
        if self._http is not None:
            await self._http.close()
