"""The control plane of an SGLang server: pause, memory, weights. Blocking calls, made by whoever owns the server, with its admin key."""

import json
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import httpx2 as httpx

from lprl_workload.rollout.sglang.client import KEPT_S

Pause = Literal["abort", "retract", "in_place"]
Tag = Literal["weights", "kv_cache", "cuda_graph"]
SHOWN = 400
"""Characters of an answer that stand in an error."""
NOT_FOUND = 404


class ControlError(RuntimeError):
    """The server refused a call, or did not answer it; the message says what it said."""

    def __init__(self, message: str, status: int | None = None) -> None:
        super().__init__(message, status)
        self.status = status
        """HTTP status; None where no answer came: the server is gone, hangs, or was too slow."""

    def __str__(self) -> str:
        return str(self.args[0])


class Control:
    """One server. Every method raises ControlError when the server does not do what is asked."""

    def __init__(self, address: str, admin_key: str, timeout_s: float, data_key: str = "") -> None:
        """Nothing is asked yet.

        Args:
            address: http://host:port.
            admin_key: of the control plane.
            timeout_s: how long any one call may take; a push of weights must fit into it bucket by bucket.
            data_key: of the data plane, which also guards `server_info` and `api`; default the admin key.

        """
        self.address, self.timeout_s = address.rstrip("/"), timeout_s
        self._keys = {True: admin_key, False: data_key or admin_key}
        kept = httpx.Limits(keepalive_expiry=KEPT_S)
        self._client = httpx.Client(base_url=self.address, timeout=timeout_s, follow_redirects=False, trust_env=False, limits=kept)

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def server_info(self) -> dict[str, Any]:
        """Return the server's settings and version."""
        return self._mapping("GET", "/server_info", admin=False)

    def api(self) -> dict[str, Any]:
        """Return the server's description of its own routes (OpenAPI); {} where it is switched off."""
        try:
            return self._mapping("GET", "/openapi.json", admin=False)
        except ControlError as error:
            if error.status == NOT_FOUND:
                return {}
            raise

    def model_info(self) -> dict[str, Any]:
        """Return what is served: model path, weight version."""
        return self._mapping("GET", "/model_info", admin=False)

    def pause(self, mode: Pause) -> None:
        """Stop computing; see PauseMode for what becomes of open requests."""
        self._done("/pause_generation", {"mode": mode})

    def resume(self) -> None:
        """Go on after `pause`."""
        self._done("/continue_generation", {"torch_empty_cache": False})

    def flush(self, wait_s: float = 0.0) -> None:
        """Forget the KV cache; refused while requests run or wait, for `wait_s` seconds of which it waits for them."""
        self._done(f"/flush_cache?timeout={wait_s}" if wait_s else "/flush_cache", {})

    def release(self, tags: Sequence[Tag]) -> None:
        """Free memory; only without requests at work, and after `flush`: right after an answer the server may not think itself idle."""
        self._done("/release_memory_occupation", {"tags": list(tags)})

    def occupy(self, tags: Sequence[Tag]) -> None:
        """Take memory back that `release` freed."""
        self._done("/resume_memory_occupation", {"tags": list(tags)})

    def begin_session(self, selector: Literal["all", "target", "draft"] = "all") -> None:
        """Open an update session: packed weights become loadable again."""
        self._done("/begin_weight_update", {"selector": selector})

    def end_session(self) -> None:
        """Close it: weights are packed as the kernels want them."""
        self._done("/end_weight_update", {})

    def update_tensors(self, serialized: Sequence[str], load_format: str | None, **more: Any) -> None:
        """Hand over tensors, one base64 pickle for each rank. An error while the server reads or loads them ends the server."""
        body = {"serialized_named_tensors": list(serialized), "load_format": load_format, "flush_cache": False}
        self._done("/update_weights_from_tensor", body | more)

    def update_distributed(self, names: Sequence[str], dtypes: Sequence[str], shapes: Sequence[Sequence[int]], **more: Any) -> None:
        """Have the ranks receive tensors that rank 0 of an update group broadcasts in this order; `more`: group_name, load_format."""
        body = {"names": list(names), "dtypes": list(dtypes), "shapes": [list(shape) for shape in shapes], "flush_cache": False}
        self._done("/update_weights_from_distributed", body | more)

    def init_group(self, address: str, port: int, rank_offset: int, world: int, name: str, backend: str) -> None:
        """Have the ranks join a process group whose rank 0 meets them at address:port; returns when all did."""
        told = {"master_address": address, "master_port": port, "rank_offset": rank_offset, "world_size": world}
        self._done("/init_weights_update_group", told | {"group_name": name, "backend": backend})

    def destroy_group(self, name: str) -> None:
        """Have the ranks leave a process group."""
        self._done("/destroy_weights_update_group", {"group_name": name})

    def update_disk(self, folder: str, load_format: str | None = None, flush: bool = False) -> None:
        """Load a Hugging Face folder the server can read. After a failure it serves what it served before."""
        self._done("/update_weights_from_disk", {"model_path": folder, "load_format": load_format, "flush_cache": flush})

    def set_version(self, version: str) -> None:
        """Name the weights served; open requests go on."""
        self._done("/update_weight_version", {"new_version": version, "abort_all_requests": False})

    def checksums(self) -> tuple[dict[str, str], ...]:
        """Return, for each rank, the server's own hash of every parameter by name.

        Of dequantised weights where codes and scales are parameters beside each other: equal for equal weights, in one release on
        one kind of device. It says nothing about bytes, and cannot be compared with anything but another engine's.
        """
        found = self._mapping("POST", "/weights_checker", {"action": "checksum"})
        ranks = found.get("ranks") or [found.get("payload") or {}]
        return tuple(dict(rank["checksums"]) for rank in ranks)

    def has(self, route: str) -> bool:
        """Return whether the server knows a route; asked with a body that changes nothing it has open."""
        try:
            self._ask("POST", route, {})
        except ControlError as error:
            if error.status is None:
                raise
            return error.status != NOT_FOUND
        return True

    def _done(self, route: str, body: Mapping[str, Any]) -> None:
        answer = self._ask("POST", route, body)
        if isinstance(answer, dict) and answer.get("success") is False:
            raise ControlError(f"SGLang at {self.address} refused {_path(route)}: {_shown(answer)}", 200)

    def _mapping(self, method: str, route: str, body: Mapping[str, Any] | None = None, admin: bool = True) -> dict[str, Any]:
        answer = self._ask(method, route, body, admin)
        if not isinstance(answer, dict) or answer.get("success") is False:
            raise ControlError(f"SGLang at {self.address} answered {_path(route)} with {_shown(answer)}", 200)
        return answer

    def _ask(self, method: str, route: str, body: Mapping[str, Any] | None = None, admin: bool = True) -> Any:
        key = self._keys[admin]
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        try:
            answer = self._client.request(method, route, json=body, headers=headers)
        except httpx.TimeoutException as error:
            raise ControlError(f"SGLang at {self.address} did not answer {_path(route)} in {self.timeout_s:.0f} s") from error
        except httpx.HTTPError as error:
            raise ControlError(f"SGLang at {self.address} is not there for {_path(route)}: {error or type(error).__name__}") from error
        found = _read(answer.text)
        if answer.status_code >= 400:
            said = f"SGLang at {self.address} refused {_path(route)} with {answer.status_code}: {_shown(found)}"
            raise ControlError(said, answer.status_code)
        return found


def _path(route: str) -> str:
    return route.partition("?")[0]


def _read(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


def _shown(found: Any) -> str:
    """Return what the server said, on one line."""
    if isinstance(found, dict):
        inner = found.get("error") or found
        found = inner.get("message", inner) if isinstance(inner, dict) else inner
    return " ".join(str(found).split())[:SHOWN] or "nothing"
