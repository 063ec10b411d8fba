"""A tool behind an address: POST {"name", "arguments"} -> {"result": ...} or {"error": ...}."""

import asyncio
import json
import logging
import random
from collections.abc import Mapping
from typing import Any

import httpx2 as httpx

from lprl_api.errors import UserError
from lprl_api.spec import episode as spec
from lprl_api.text import shortened
from lprl_workload.agent.tool import LONGEST_ERROR, Answer, schema_of
from lprl_workload.rollout.reward_remote import is_loopback

MAX_BYTES = 1 << 20
"""Of one answer."""
CONNECTIONS = 64
FIRST_WAIT_S = 0.2
BUSY = frozenset({429, 502, 503, 504})
"""Answers that another try may better."""


class HttpTool:
    """Calls an address, with connections kept and a bounded number of them."""

    def __init__(self, tool: spec.Tool, where: str, authorization: str | None, direct: bool = False) -> None:
        """Args: authorization: value of the header, None without; direct: by no proxy. Raises UserError naming the field."""
        self.name, self._url, self._limit_s, self._tries = tool.name, str(tool.url), tool.timeout_seconds, tool.retries + 1
        if tool.parameters is None or not tool.description:
            raise UserError(f"{where}: a url says nothing of itself", f"set {where}.description and {where}.parameters (JSON schema)")
        self.schema: Mapping[str, Any] = schema_of(tool.name, tool.description, tool.parameters)
        self._headers, self._direct = _headers(tool, where, authorization), direct
        logging.getLogger(httpx.__name__).setLevel(logging.WARNING)  # it writes a line for every call
        self._clients: dict[asyncio.AbstractEventLoop, httpx.AsyncClient] = {}
        """One a loop: an engine may draw several batches at once, each in a loop of its own."""

    async def call(self, arguments: Mapping[str, Any]) -> Answer:
        """See Tool."""
        told = ""
        try:
            async with asyncio.timeout(self._limit_s):
                for attempt in range(self._tries):
                    if attempt:
                        await asyncio.sleep(FIRST_WAIT_S * 2 ** (attempt - 1) * random.uniform(0.5, 1.5))
                    found = await self._once(arguments)
                    if isinstance(found, Answer):
                        return found
                    told = found
        except TimeoutError:
            told = told or f"no answer within {self._limit_s:g} s"
        return Answer(f"error: {self.name}: {told}", "failed")

    async def _once(self, arguments: Mapping[str, Any]) -> Answer | str:
        """Return the answer, or why there is none and another try may have one."""
        try:
            async with self._client().stream("POST", self._url, json={"name": self.name, "arguments": dict(arguments)}) as answer:
                if answer.status_code in BUSY:
                    return f"HTTP {answer.status_code}"
                body = b""
                async for part in answer.aiter_bytes():
                    body += part
                    if len(body) > MAX_BYTES:
                        return Answer(f"error: {self.name} answered more than {MAX_BYTES} bytes", "failed")
        except httpx.HTTPError as error:
            return shortened(f"{type(error).__name__} {error}".strip(), LONGEST_ERROR)
        return self._read(answer.status_code, body)

    def _read(self, status: int, body: bytes) -> Answer:
        try:
            found = json.loads(body)
        except (ValueError, RecursionError):
            found = None
        if isinstance(found, dict) and isinstance(found.get("error"), str):
            return Answer(f"error: {shortened(found['error'], LONGEST_ERROR)}", "error")
        if status != httpx.codes.OK or not isinstance(found, dict) or "result" not in found:
            return Answer(f'error: {self.name}: HTTP {status} without {{"result": ...}}', "failed")
        result = found["result"]
        return Answer(result if isinstance(result, str) else json.dumps(result, ensure_ascii=False))

    def _client(self) -> httpx.AsyncClient:
        loop = asyncio.get_running_loop()
        if loop not in self._clients:
            limits = httpx.Limits(max_connections=CONNECTIONS, max_keepalive_connections=CONNECTIONS)
            self._clients[loop] = httpx.AsyncClient(
                limits=limits,
                timeout=self._limit_s,
                follow_redirects=False,
                headers=self._headers,
                verify=self._url.startswith("https:"),  # certificates that nobody asks for take long to load
                trust_env=not self._direct,
            )
        return self._clients[loop]

    async def close(self) -> None:
        """Close this loop's connections."""
        client = self._clients.pop(asyncio.get_running_loop(), None)
        if client is not None:
            await client.aclose()


def _headers(tool: spec.Tool, where: str, authorization: str | None) -> dict[str, str]:
    try:
        url = httpx.URL(str(tool.url))
    except httpx.InvalidURL as error:
        raise UserError(f"{where}.url: {tool.url!r} is no address ({error})", "write http(s)://HOST[:PORT]/PATH") from error
    if url.scheme not in ("http", "https") or not url.host:
        raise UserError(f"{where}.url: {tool.url!r} is no address", "write http(s)://HOST[:PORT]/PATH")
    if tool.headers_secret is None:
        return {}
    if not authorization or not authorization.isprintable() or not authorization.isascii():
        raise UserError(f"{where}.headersSecret: its value is missing, or holds what no HTTP header can", "check the Secret and its key")
    if url.scheme != "https" and not is_loopback(str(tool.url)):
        raise UserError(f"{where}.url: a secret would go over plain http to {url.host}", "use https")
    return {"Authorization": authorization}
