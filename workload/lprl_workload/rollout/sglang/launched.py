"""Starting a server and waiting until it serves: arguments, keys, folder, process, readiness."""

import logging
import os
import secrets
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from lprl_api.model.formats import WeightFormat
from lprl_api.model.model_shape import ModelShape
from lprl_workload.hf.model import compute_dtype
from lprl_workload.process.errors import ServerLostError
from lprl_workload.process.movement import here
from lprl_workload.rollout.kv_cache import bytes_per_token, free_cache_bytes
from lprl_workload.rollout.sglang.arguments import ServerOptions, Settings, arguments, environment
from lprl_workload.rollout.sglang.control import Control, ControlError
from lprl_workload.rollout.sglang.failures import Failure, explain, lost_error, start_error
from lprl_workload.rollout.sglang.installed import installed
from lprl_workload.rollout.sglang.process import Process, drop_folder, free_port, new_folder
from lprl_workload.rollout.sglang.ready import Startup
from lprl_workload.rollout.sglang.view import write_view

log = logging.getLogger(__name__)
HOST = "127.0.0.1"
CONTROL_S = 600.0
"""How long one call of the control plane may take: whoever calls the engine sees to it that something moves."""
ROWS_CPU, SPARE_TOKENS = 64, 64
"""Full contexts a CPU's cache holds where nobody says; and tokens beyond one, which the server keeps for itself."""
POLL_S = 0.25
DIES_S = 3.0
"""How long a broken connection waits for the server's end, which explains it."""


@dataclass(slots=True)
class Launched:
    """A server that was started, with the keys of its routes, which no log of it shows."""

    process: Process
    folder: Path
    address: str
    data_key: str = field(repr=False)
    admin_key: str = field(repr=False)

    @property
    def where(self) -> str:
        """Names it in errors."""
        return f"SGLang at {self.address}"

    def lost(self, error: Exception) -> Exception:
        """Return what a broken connection means: usually the server is just dying, and its log says of what."""
        code = self.process.wait(DIES_S)
        if code is None:
            if (told := explain(self.process.tail(), None)).kind != "unknown":  # it writes down for a minute how it crashed
                return lost_error(told, self.where, str(self.process.log))
            return ServerLostError(f"{self.where} broke off: {type(error).__name__}: {error} (log: {self.process.log})")
        return self.ended(code)

    def ended(self, code: int | None) -> ServerLostError:
        """Return the error of a server that ended."""
        return lost_error(explain(self.process.tail(), code), self.where, str(self.process.log))

    def close(self) -> None:
        """Kill it and remove its folder."""
        self.process.stop()
        drop_folder(self.folder)


class Watched(Control):
    """The control plane of a server that may die: then what is asked of it ends as the engine's loss."""

    def __init__(self, server: Launched) -> None:
        super().__init__(server.address, server.admin_key, CONTROL_S, server.data_key)
        self._server = server

    def _ask(self, method: str, route: str, body: Mapping[str, Any] | None = None, admin: bool = True) -> Any:
        try:
            return super()._ask(method, route, body, admin)
        except ControlError as error:
            if error.status is None:
                raise self._server.lost(error) from error
            raise


def settings_of(
    fmt: WeightFormat,
    shape: ModelShape,
    device: torch.device,
    context: int,
    rows: int | None,
    memory_fraction: float,
    server: ServerOptions,
    model: Path,
) -> Settings:
    """Return what a server of the folder `model` is started from; on a CPU its cache holds all rows, or what fits 2 GiB."""
    fits = free_cache_bytes(torch.device("cpu"), 1.0) // bytes_per_token(shape, compute_dtype(device).itemsize)
    tokens = max(min((rows or ROWS_CPU) * context, fits), context + SPARE_TOKENS)
    place = (model, fmt, str(device), HOST, free_port(HOST), context)
    return Settings(*place, rows, memory_fraction, tokens, torch.get_num_threads(), server)


def launch(source: Path, shape: ModelShape, settings: Callable[[Path], Settings], given: Mapping[str, str] | None = None) -> Launched:
    """Start a server of `source`; returns at once. `settings`: of the folder it starts from. Raises UserError."""
    sglang = installed()
    folder = new_folder()
    try:
        told = settings(folder / "model")
        write_view(source, told.fmt, shape, told.model)
        words = arguments(told, sglang.flags())
        keys = {"api-key": "d-" + secrets.token_urlsafe(32), "admin-api-key": "a-" + secrets.token_urlsafe(32)}
        log.info("sglang.launch_server %s (log: %s)", " ".join(words), folder / "server.log")
        process = Process(sglang.python, words, environment(told, os.environ if given is None else given), keys, folder)
    except BaseException:
        drop_folder(folder)
        raise
    return Launched(process, folder, f"http://{told.host}:{told.port}", keys["api-key"], keys["admin-api-key"])


def wait_ready(launched: Launched, serves: Callable[[], bool]) -> None:
    """Wait until a server serves, which `serves` asks it. Raises what `start_error` makes of its end, or of a start that hangs."""
    process, start = launched.process, Startup(time.monotonic())
    while True:
        lines, now = process.new_lines(), time.monotonic()
        if start.hear(lines, now):
            log.info("%s: %s after %.0f s: %s", launched.where, start.phase, now - start.began, start.detail)
        if start.worked(process.processor_seconds(), now) or lines:
            here.tick()
        if (code := process.code) is not None:
            raise start_error(explain(process.tail(), code), launched.where, str(process.log))
        if (start.up or start.phase == "warming up") and serves():
            process.hide_keys()
            log.info("%s serves after %.0f s", launched.where, time.monotonic() - start.began)
            return
        if why := start.late(now):
            process.stop()
            raise start_error(Failure("unknown", why, start.detail), launched.where, str(process.log))
        time.sleep(POLL_S)
