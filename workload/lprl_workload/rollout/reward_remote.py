"""Rewards from an HTTP service: POST {prompt, response, label, metadata}, answer a number or {"reward": number}."""

import ipaddress
import json
import math
import os
import random
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPException
from typing import IO, Any
from urllib.parse import urlsplit

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


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """Refuses redirects: urllib would send the Authorization header to wherever they lead."""

    def redirect_request(self, req: Any, fp: IO[bytes], code: int, msg: str, headers: Any, newurl: str) -> None:
        return None


class RemoteScorer:
    """Scores items concurrently at `reward.url`."""

    def __init__(self, reward: Reward, sleep: Callable[[float], None] = time.sleep) -> None:
        """Check the address; raises UserError when it is missing or no http(s) address."""
        url = reward.url or ""
        if not _is_address(url):
            raise UserError(f"data.reward.url: found {reward.url!r}, needs an http or https address")
        self._url, self._limit_s, self._tries, self._sleep = url, reward.timeout_seconds, reward.retries + 1, sleep
        self._opener = urllib.request.build_opener(_NoRedirect)
        self._authorization = (os.environ.get(AUTHORIZATION) or "").strip()  # files of Secrets like to end with a line feed
        if not self._authorization.isprintable() or not self._authorization.isascii():
            raise UserError(f"data.reward.headersSecret: {AUTHORIZATION} holds what no HTTP header can", "check the Secret and its key")
        if self._authorization and urlsplit(url).scheme != "https" and not is_loopback(url):
            raise UserError(f"data.reward.url: {url} is not encrypted, and {AUTHORIZATION} would be sent there", "use an https address")
        if reward.headers_secret is not None and not self._authorization:
            raise UserError(f"data.reward.headersSecret: {AUTHORIZATION} is not set", "check the Secret and its key")

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
        """Nothing is kept open."""

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
        headers = {"Content-Type": "application/json", "Accept": "application/json"}
        if self._authorization:
            headers["Authorization"] = self._authorization
        request = urllib.request.Request(self._url, data=body, headers=headers, method="POST")
        try:
            with self._opener.open(request, timeout=self._limit_s) as answer:
                return bytes(answer.read(MAX_ANSWER_BYTES + 1))
        except urllib.error.HTTPError as error:
            error.close()
            if error.code >= 500 or error.code in RETRIED_STATUS:
                raise _Retry(f"HTTP {error.code}") from error
            found = f"data.reward.url: {self._url} answered HTTP {error.code}{item.row}"
            raise UserError(found, "check the address and the credentials") from error
        except urllib.error.URLError as error:
            if isinstance(error.reason, ssl.SSLCertVerificationError):
                raise UserError(
                    f"data.reward.url: {self._url}: {error.reason.verify_message}", "have the image trust its issuer"
                ) from error
            raise _Retry(f"{type(error).__name__}: {error}") from error
        except (OSError, HTTPException) as error:
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
