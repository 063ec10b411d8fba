"""Requests and watches for a thousand tasks in one process."""

import asyncio
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import aiohttp
from tests.control_plane.harness.api import credentials

Document = Mapping[str, Any]


class Client:
    """Requests and watches; an API server that is away is waited for."""

    def __init__(self, kubeconfig: Path) -> None:
        self._host, self._tls = credentials(kubeconfig)
        self._session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=64, ssl=self._tls))
        self.requests = 0

    async def close(self) -> None:
        await self._session.close()

    async def send(self, method: str, path: str, body: Any = None, how: str = "application/json") -> tuple[int, Any]:
        """Send until there is an answer below 500 that is not 429."""
        data = json.dumps(body) if body is not None else None
        while True:
            try:
                limit = aiohttp.ClientTimeout(total=20)
                headers = {"Content-Type": how}
                async with self._session.request(method, self._host + path, data=data, headers=headers, timeout=limit) as answer:
                    self.requests += 1
                    if answer.status < 500 and answer.status != 429:
                        return answer.status, await answer.json()
            except (aiohttp.ClientError, TimeoutError):
                pass
            await asyncio.sleep(1)

    async def watch(self, path: str, selector: str, saw: Callable[[str, Document], None]) -> None:
        """List and watch for ever; `saw` gets ADDED, MODIFIED, DELETED (also of what went away between two watches)."""
        known: dict[str, Document] = {}

        def tell(change: str, item: Document) -> None:
            if change == "DELETED":
                known.pop(item["metadata"]["uid"], None)
            else:
                known[item["metadata"]["uid"]] = item
            saw(change, item)

        while True:
            status, found = await self.send("GET", f"{path}?labelSelector={selector}")
            if status != 200:  # KubeRay may come later
                await asyncio.sleep(2)
                continue
            there = {i["metadata"]["uid"] for i in found["items"]}
            for item in [i for uid, i in known.items() if uid not in there]:
                tell("DELETED", item)
            for item in found["items"]:
                tell("ADDED", item)
            try:
                await self._follow(f"{path}?labelSelector={selector}&watch=1&resourceVersion={found['metadata']['resourceVersion']}", tell)
            except (aiohttp.ClientError, TimeoutError, ValueError):
                await asyncio.sleep(1)

    async def _follow(self, path: str, saw: Callable[[str, Document], None]) -> None:
        limit = aiohttp.ClientTimeout(total=600, sock_read=330)
        async with self._session.get(self._host + path, timeout=limit) as answer:
            rest = b""
            async for chunk in answer.content.iter_any():
                *lines, rest = (rest + chunk).split(b"\n")
                for line in filter(None, lines):
                    event = json.loads(line)
                    if event["type"] == "ERROR":
                        return
                    saw(event["type"], event["object"])
