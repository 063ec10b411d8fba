"""Rewards from an HTTP service: POST {prompt, response, label, metadata}, answer a number or {"reward": number}."""

import ipaddress
import json
import math
import os
import random
import ssl
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import urlsplit

import httpx2 as httpx

from lprl_api.errors import UserError
from lprl_api.names import ENV_REWARD_AUTHORIZATION as AUTHORIZATION
from lprl_api.spec.algorithm import Reward
from lprl_workload.process.movement import here
from lprl_workload.rollout.reward_item import RewardItem, as_number
from lprl_workload.rollout.texts import jsonable, quoted

ANSWER = 'the answer to a POST is one number, or {"reward": number}'
MAX_ANSWER_BYTES = 64 * 1024
CONCURRENCY = 32
FIRST_WAIT_S = 0.5
LONGEST_WAIT_S = 30.0
RETRIED_STATUS = frozenset({408, 425, 429})
"""Client errors that time may mend; every 5xx is retried too."""


class RewardServiceError(RuntimeError):
    """The reward service failed on every try."""


class _Retry(Exception):
    """One try failed; another may not."""


class RemoteScorer:
    """Scores items concurrently at `reward.url`."""

    def __init__(self, reward: Reward, sleep: Callable[[float], None] = time.sleep) -> None:
        """Check the address; raises UserError when it is missing or no http(s) address."""
        url = reward.url or ""
        if not _is_address(url):
            raise UserError(f"data.reward.url: found {reward.url!r}, needs an http or https address")
        self._url, self._limit_s, self._tries, self._sleep = url, reward.timeout_seconds, reward.retries + 1, sleep
        self._authorization = (os.environ.get(AUTHORIZATION) or "").strip()  # files of Secrets like to end with a line feed
        if not self._authorization.isprintable() or not self._authorization.isascii():
            raise UserError(f"data.reward.headersSecret: {AUTHORIZATION} holds what no HTTP header can", "check the Secret and its key")
        if self._authorization and urlsplit(url).scheme != "https" and not is_loopback(url):
            raise UserError(f"data.reward.url: {url} is not encrypted, and {AUTHORIZATION} would be sent there", "use an https address")
        if reward.headers_secret is not None and not self._authorization:
            raise UserError(f"data.reward.headersSecret: {AUTHORIZATION} is not set", "check the Secret and its key")
        self._client = self._connected()

    def _connected(self) -> httpx.Client:
        """Return a client that keeps its connections, trusts what the image trusts, and follows no redirect: the header would go along."""
        headers = {"Accept": "application/json"} | ({"Authorization": self._authorization} if self._authorization else {})
        limits = httpx.Limits(max_connections=CONCURRENCY, max_keepalive_connections=CONCURRENCY)
        trusted = ssl.create_default_context()
        return httpx.Client(headers=headers, limits=limits, timeout=self._limit_s, verify=trusted, follow_redirects=False)

    def score(self, items: Sequence[RewardItem]) -> list[float]:
        """Return one reward per item.

        Raises:
            UserError: the service refuses the request, or answers no finite number.
            RewardServiceError: it failed on every try.

        """
        if not items:
            return []
        pool = ThreadPoolExecutor(min(CONCURRENCY, len(items)))
        try:
            found = []
            for reward in pool.map(self._one, items):
                here.finished()
                found.append(reward)
            return found
        finally:
            pool.shutdown(cancel_futures=True)  # after an error, the rest need not be asked

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def _one(self, item: RewardItem) -> float:
        metadata = jsonable(item.metadata, f"data.metadataKey{item.row}")
        body = json.dumps({"prompt": item.prompt, "response": item.response, "label": item.label, "metadata": metadata}).encode()
        cause = ""
        for attempt in range(self._tries):
            if attempt:
                # Full jitter, so that the concurrent calls of a batch do not come back in step.
                self._sleep(random.uniform(0, min(LONGEST_WAIT_S, FIRST_WAIT_S * 2**attempt)))
            try:
                return self._answer(self._post(body, item), item)
            except _Retry as error:
                cause = str(error)
        raise RewardServiceError(f"{self._url}: {self._tries} tries failed{item.row}, the last with: {cause}")

    def _post(self, body: bytes, item: RewardItem) -> bytes:
        try:
            with self._client.stream("POST", self._url, content=body, headers={"Content-Type": "application/json"}) as answer:
                if answer.status_code >= 500 or answer.status_code in RETRIED_STATUS:
                    raise _Retry(f"HTTP {answer.status_code}")
                if answer.status_code >= 300:
                    found = f"data.reward.url: {self._url} answered HTTP {answer.status_code}{item.row}"
                    raise UserError(found, "check the address and the credentials")
                return _bounded(answer)
        except httpx.HTTPError as error:
            if (wrong := _untrusted(error)) is not None:
                raise UserError(f"data.reward.url: {self._url}: {wrong}", "have the image trust its issuer") from error
            raise _Retry(f"{type(error).__name__}: {error}") from error

    def _answer(self, body: bytes, item: RewardItem) -> float:
        where = f"data.reward.url: {self._url} answered"
        if len(body) > MAX_ANSWER_BYTES:
            raise UserError(f"{where} more than {MAX_ANSWER_BYTES} bytes{item.row}", ANSWER)
        try:
            value = json.loads(body)
        except (ValueError, RecursionError) as error:
            raise UserError(f"{where} no JSON ({body[:80]!r}){item.row}", ANSWER) from error
        found = value
        if isinstance(value, dict):
            key = next((key for key in ("reward", "score") if key in value), None)
            if key is None:
                raise UserError(f"{where} {quoted(value)}{item.row}, needs the key reward or score", ANSWER)
            found = value[key]
        number = as_number(found)
        if number is None or not math.isfinite(number):
            raise UserError(f"{where} {quoted(value)}{item.row}, needs a finite number", ANSWER)
        return number


def _bounded(answer: httpx.Response) -> bytes:
    """Return the body, or as much of one that is too long as shows it."""
    body = b""
    for part in answer.iter_bytes():
        body += part
        if len(body) > MAX_ANSWER_BYTES:
            break
    return body


def _untrusted(error: BaseException | None) -> str | None:
    """Return what is wrong with the server's certificate, where that is the cause."""
    while error is not None:
        if isinstance(error, ssl.SSLCertVerificationError):
            return error.verify_message
        error = error.__cause__ or error.__context__
    return None


def is_loopback(url: str) -> bool:
    """Return whether an address stays on this machine."""
    host = urlsplit(url).hostname or ""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _is_address(url: str) -> bool:
    try:
        parts = urlsplit(url)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:  # a port that is no number, brackets that do not close
        return False
