"""Engines that are servers of their own, kept from test to test: started once for each model and format, a few at a time."""

import asyncio
import atexit
import json
import tempfile
from collections.abc import Callable, Hashable
from pathlib import Path
from typing import Any

from lprl_fixtures.architectures import model_config
from lprl_fixtures.tensors import tensor_specs
from lprl_fixtures.tokenizer import build_tokenizer, write_tokenizer
from lprl_fixtures.weights import write_weights
from lprl_workload.rollout.responses import Responses
from lprl_workload.rollout.sglang.weights import Weights

MOST = 2
"""Servers at a time: each takes two gigabytes."""
LONGEST = 512
"""Tokens of a context that servers have room for; the engine sees to it that no response goes beyond what it is asked for."""
WIDTHS = {"num_key_value_heads": 4, "intermediate_size": 256, "moe_intermediate_size": 128, "q_lora_rank": 128, "kv_lora_rank": 128}
"""Multiples of 128, as SGLang's kernels want them."""
BOTH: Any = frozenset({"weights", "kv"})


class SharedServers:
    """One kind of engine."""

    def __init__(self) -> None:
        self._engines: list[tuple[Hashable, Any]] = []
        self._root: Path | None = None
        atexit.register(self.close)

    def folder(self, architecture: str) -> Path:
        """Return a model whose widths fit."""
        if self._root is None:
            self._root = Path(tempfile.mkdtemp(prefix="lprl-shared-"))
        folder = self._root / architecture
        if not folder.is_dir():
            folder.mkdir()
            tokenizer = write_tokenizer(folder, build_tokenizer)
            pad, end = tokenizer.pad_token_id, tokenizer.eos_token_id
            config = model_config(architecture, "demo", len(tokenizer), pad, end)  # type: ignore[arg-type]
            config |= {name: width for name, width in WIDTHS.items() if config.get(name) is not None}
            write_weights(folder, list(tensor_specs(config, False)), "bfloat16", 1, 3, config["initializer_range"])
            (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": end, "pad_token_id": pad}))
            (folder / "config.json").write_text(json.dumps(config))
        return folder

    def engine(self, kind: Hashable, folder: Path, context: int, number: int, start: Callable[[int], Any]) -> Any:
        """Return an engine of a kind as one that was just started, with room for `context` tokens.

        `number` tells those of one test apart; `start`: with room for so many.
        """
        alive = [each for each in self._engines if asyncio.run(each[1].state()).alive]
        for dead in [each for each in self._engines if each not in alive]:
            dead[1].close()
        others, same = [each for each in alive if each[0] != kind], [each for each in alive if each[0] == kind]
        if number < len(same):
            engine = same[number][1]
            self._as_new(engine)
        else:
            while others and len(others) + len(same) >= MOST:
                others.pop(0)[1].close()
            engine = start(LONGEST)
            same.append((kind, engine))
        engine._responses = Responses(folder, context)
        self._engines = others + same
        return engine

    def _as_new(self, engine: Any) -> None:
        async def forget() -> None:
            await engine.abort()
            await engine.resume()
            await engine.wake(BOTH)
            engine.abort_update("another test begins")
            await engine.resume()
            await engine.sleep(BOTH)
            await engine.wake(BOTH)

        asyncio.run(forget())
        engine._weights.close()
        engine._weights = Weights(engine._control, engine._release)
        assert engine.weight_version == -1

    def close(self) -> None:
        """End all servers."""
        while self._engines:
            self._engines.pop()[1].close()
