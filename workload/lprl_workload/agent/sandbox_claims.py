"""Sandboxes of a cluster: SandboxClaims on agent-sandbox's warm pools, made with the driver's own service account.

A claim is the driver's pod's own: the cluster takes it away with the pod, whatever became of the driver. What the claims waited for are
is read with one list for all of them.
"""

import asyncio
import os
import ssl
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2 as httpx

from lprl_api import names
from lprl_api.spec.episode import Tool
from lprl_api.text import one_line, shortened
from lprl_workload.agent.sandbox_clerk import SandboxError

PLURAL = "sandboxclaims"
REQUEST_TIMEOUT_S = 10.0
FIRST_POLL_S, LONGEST_POLL_S = 0.05, 1.0
LONGEST_ERROR = 300
PASSING = frozenset({408, 409, 429, 500, 502, 503, 504})


@dataclass(frozen=True, slots=True)
class Owner:
    """Whose the claims are."""

    job: str
    attempt: int
    pod: str
    """Name of the driver's."""
    pod_uid: str


@dataclass(frozen=True, slots=True)
class Api:
    """Where the API server is."""

    url: str
    """http(s)://HOST:PORT."""
    account: Path
    """Folder of the service account: token, and ca.crt where the server is spoken to by https."""

    @classmethod
    def of_pod(cls, account: Path) -> "Api":
        """Return the one the pod knows."""
        host, port = os.environ["KUBERNETES_SERVICE_HOST"], os.environ.get("KUBERNETES_SERVICE_PORT", "443")
        return cls(f"https://[{host}]:{port}" if ":" in host else f"https://{host}:{port}", account)


class Claims:
    """Source of claims in one namespace."""

    def __init__(self, api: Api, namespace: str, owner: Owner) -> None:
        self._account, self._owner = api.account, owner
        self._at = f"{api.url}/apis/{names.SANDBOX_API_VERSION}/namespaces/{namespace}/{PLURAL}"
        trust = ssl.create_default_context(cafile=str(api.account / "ca.crt")) if api.url.startswith("https:") else False
        self._client = httpx.AsyncClient(timeout=REQUEST_TIMEOUT_S, verify=trust, trust_env=False)
        self._found: dict[str, Mapping[str, Any]] = {}
        self._awaited: set[str] = set()
        self._news = asyncio.Condition()
        self._looking: asyncio.Task[None] | None = None
        self._one_more = asyncio.Event()
        self._making: dict[str, asyncio.Task[dict[str, Any]]] = {}

    async def open(self, name: str, tool: Tool) -> str:
        """See Source."""
        assert tool.sandbox is not None
        pool, port, limit_s = tool.sandbox.warm_pool, tool.sandbox.port, tool.sandbox.claim_seconds
        claim = self.claim_name(name)
        self._making[claim] = asyncio.create_task(self._request("POST", "", self._claim(claim, pool)))
        try:
            async with asyncio.timeout(limit_s):
                await asyncio.shield(self._making[claim])
                host = await self._ready(claim)
        except TimeoutError:
            raise SandboxError(f"claim {claim} on pool {pool} was not ready within {limit_s:g} s{_why(self._found.get(claim))}") from None
        finally:
            self._awaited.discard(claim)
            self._found.pop(claim, None)
        return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"

    def claim_name(self, name: str) -> str:
        """Return what the claim of a sandbox is called."""
        return f"{self._owner.job}-{name}"

    def _claim(self, name: str, pool: str) -> dict[str, Any]:
        owner = {"apiVersion": "v1", "kind": "Pod", "name": self._owner.pod, "uid": self._owner.pod_uid}
        labels = {
            names.LABEL_JOB: self._owner.job,
            names.LABEL_ATTEMPT: str(self._owner.attempt),
            names.LABEL_MANAGED_BY: names.MANAGED_BY,
        }
        return {
            "apiVersion": names.SANDBOX_API_VERSION,
            "kind": "SandboxClaim",
            "metadata": {"name": name, "labels": labels, "ownerReferences": [owner]},
            "spec": {"warmPoolRef": {"name": pool}},
        }

    async def _ready(self, name: str) -> str:
        """Return the address of a claim's sandbox once it is ready."""
        self._awaited.add(name)
        self._one_more.set()
        if self._looking is None or self._looking.done():
            self._looking = asyncio.create_task(self._look())
        async with self._news:
            while (host := _address(self._found.get(name))) is None:
                await self._news.wait()
        return host

    async def _look(self) -> None:
        """List the claims as long as one is waited for; at first often, as warm ones are there in milliseconds."""
        wait_s = FIRST_POLL_S
        while self._awaited:
            if self._one_more.is_set():
                wait_s = FIRST_POLL_S
            self._one_more.clear()
            began = time.monotonic()
            with suppress(SandboxError):  # those who wait have a limit
                found = await self._list()
                async with self._news:
                    self._found = {item["metadata"]["name"]: item for item in found if item["metadata"]["name"] in self._awaited}
                    self._news.notify_all()
            await asyncio.sleep(max(FIRST_POLL_S, time.monotonic() - began))  # never more than half of the time is asked
            with suppress(TimeoutError):
                await asyncio.wait_for(self._one_more.wait(), wait_s)
            wait_s = min(LONGEST_POLL_S, wait_s * 1.3)

    async def close(self, name: str) -> None:
        """See Source. One that is being made is waited for: taken away before it is there, it would stay."""
        making = self._making.get(self.claim_name(name))
        if making is not None:
            await asyncio.wait([making])
            making.cancelled() or making.exception()  # whoever made it has told it, or is gone
        await self._request("DELETE", f"/{self.claim_name(name)}")
        self._making.pop(self.claim_name(name), None)

    async def clear(self) -> None:
        """See Source: claims of the job, whichever attempt made them; none is this one's yet."""
        for item in await self._list():
            await self._request("DELETE", f"/{item['metadata']['name']}")

    async def shut(self) -> None:
        """See Source."""
        if self._looking is not None:
            self._looking.cancel()
        await self._client.aclose()

    async def _list(self) -> list[dict[str, Any]]:
        selector = f"{names.LABEL_JOB}={self._owner.job},{names.LABEL_MANAGED_BY}={names.MANAGED_BY}"
        found: list[dict[str, Any]] = (await self._request("GET", f"?labelSelector={selector}")).get("items") or []
        return found

    async def _request(self, method: str, rest: str, body: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Return the answer; what is to be deleted and is gone, or may not be made because it is there, is fine."""
        try:
            token = await asyncio.to_thread((self._account / "token").read_text)  # anew: kubelet rotates it
            headers = {"Authorization": f"Bearer {token.strip()}", "Accept": "application/json"}
            answer = await self._client.request(method, self._at + rest, json=body, headers=headers)
            found = answer.json() if answer.content else {}
        except (httpx.HTTPError, OSError, ValueError) as error:
            raise SandboxError(f"the API server did not answer: {type(error).__name__} {error}".strip()) from error
        if answer.is_success or (method == "DELETE" and answer.status_code == httpx.codes.NOT_FOUND):
            return found if isinstance(found, dict) else {}
        told = shortened(one_line(str(found.get("message") or found)), LONGEST_ERROR) if isinstance(found, dict) else ""
        raise SandboxError(f"{method} {PLURAL}: HTTP {answer.status_code} {told}".rstrip(), answer.status_code in PASSING)


def _condition(claim: Mapping[str, Any] | None) -> Mapping[str, Any]:
    conditions = ((claim or {}).get("status") or {}).get("conditions") or ()
    return next((c for c in conditions if c.get("type") == "Ready"), {})


def _address(claim: Mapping[str, Any] | None) -> str | None:
    addresses = (((claim or {}).get("status") or {}).get("sandbox") or {}).get("podIPs") or ()
    return str(addresses[0]) if addresses and _condition(claim).get("status") == "True" else None


def _why(claim: Mapping[str, Any] | None) -> str:
    found = _condition(claim)
    told = ": ".join(filter(None, (str(found.get("reason") or ""), str(found.get("message") or ""))))
    return f" ({shortened(one_line(told), LONGEST_ERROR)})" if told else ""
