"""What printer columns of many objects says, followed by a watch of table rows: the cheapest way to see a thousand objects change."""

import asyncio
import json
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import aiohttp
from tests.control_plane.harness.api import credentials

TABLE = "application/json;as=Table;v=v1;g=meta.k8s.io"


class Rows:
    """A thread that keeps, for each object, the values of some columns and when each value was first seen."""

    def __init__(self, kubeconfig: Path, path: str, columns: tuple[str, ...]) -> None:
        self._kubeconfig, self._path, self._columns = kubeconfig, path, columns
        self.now: dict[str, str] = {}
        self.first: dict[tuple[str, str], float] = {}
        """(name, value) -> time.monotonic() when it was first seen."""
        self._changed = threading.Condition()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def close(self) -> None:
        """End the thread."""
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)

    def count(self) -> Counter[str]:
        """Objects by value."""
        with self._changed:
            return Counter(self.now.values())

    def wait(self, what: str, check: Callable[[Counter[str]], bool], seconds: float) -> None:
        """Wait until the counts are as wanted."""
        deadline = time.monotonic() + seconds
        with self._changed:
            while not check(found := Counter(self.now.values())):
                left = deadline - time.monotonic()
                if left <= 0:
                    raise TimeoutError(f"{what}: after {seconds:g} s {dict(found)}")
                self._changed.wait(min(left, 5.0))

    def span(self, first_value: str, last_value: str) -> float:
        """Seconds from the first object whose value began with `first_value` to the last one that got `last_value`."""
        begin = min(t for (_, v), t in self.first.items() if v.startswith(first_value))
        return max(t for (_, v), t in self.first.items() if v == last_value) - begin

    def took(self, first_value: str, last_value: str) -> list[float]:
        """Seconds each object took from one value to another, sorted."""
        ends = {n: t for (n, v), t in self.first.items() if v == last_value}
        begins: dict[str, float] = {}
        for (name, value), at in self.first.items():
            if value.startswith(first_value):
                begins[name] = min(at, begins.get(name, at))
        return sorted(ends[n] - t for n, t in begins.items() if n in ends)

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        task = self._loop.create_task(self._follow_for_ever())
        self._loop.run_forever()
        task.cancel()
        self._loop.run_until_complete(asyncio.gather(task, return_exceptions=True))
        self._loop.close()

    async def _follow_for_ever(self) -> None:
        host, tls = credentials(self._kubeconfig)
        while True:
            try:
                timeout = aiohttp.ClientTimeout(total=None, sock_read=330)
                async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=tls), timeout=timeout) as session:
                    await self._follow(session, host + self._path)
            except (aiohttp.ClientError, TimeoutError, ValueError):
                await asyncio.sleep(1)

    async def _follow(self, session: aiohttp.ClientSession, url: str) -> None:
        headers = {"Accept": TABLE}
        listed = f"{url}?includeObject=Metadata"
        async with session.get(listed, headers=headers) as answer:
            table = await answer.json()
        indexes = self._indexes(table)
        self._saw("ADDED", table, indexes)
        version = table["metadata"]["resourceVersion"]
        async with session.get(f"{listed}&watch=1&resourceVersion={version}", headers=headers) as answer:
            rest = b""
            async for chunk in answer.content.iter_any():
                *lines, rest = (rest + chunk).split(b"\n")
                for line in filter(None, lines):
                    event = json.loads(line)
                    if event["type"] == "ERROR":
                        return
                    self._saw(event["type"], event["object"], indexes)

    def _indexes(self, table: dict[str, Any]) -> list[int]:
        found = [c["name"].lower() for c in table["columnDefinitions"]]
        return [found.index(c) for c in self._columns]

    def _saw(self, change: str, table: dict[str, Any], indexes: list[int]) -> None:
        at = time.monotonic()
        with self._changed:
            for row in table.get("rows") or ():
                name = row["object"]["metadata"]["name"]
                if change == "DELETED":
                    self.now.pop(name, None)
                    continue
                value = " ".join(str(row["cells"][i] or "") for i in indexes).strip()
                self.now[name] = value
                self.first.setdefault((name, value), at)
            self._changed.notify_all()
