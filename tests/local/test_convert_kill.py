"""kill -9 of converter and finaliser at random moments: what comes out is what an uninterrupted run makes, and nothing is redone.

The processes are real, forked from one that has imported everything, so that every moment lies in the work and not in `import torch`.
"""

import json
import os
import random
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from tests.local.forker import Forker

from lprl_api.errors import UserError
from lprl_api.model.content_key import content_key
from lprl_api.model.formats import Fp8Block, Int4Group, WeightFormat
from lprl_api.spec.sources import ModelSource, VolumePath
from lprl_api.wire.runconfig import ConvertConfig
from lprl_fixtures.architectures import model_config
from lprl_fixtures.tensors import tensor_specs
from lprl_fixtures.weights import initial_tensor, split
from lprl_workload.convert.cache import find_conversion, partial_of, share
from lprl_workload.convert.fingerprint import fingerprint
from lprl_workload.convert.manifest import damaged_files, read_manifest

KILLS = 20
SHARDS = 48
WORKERS = 2


@pytest.fixture
def forker(tmp_path: Path) -> Forker:
    return Forker({"LPRL_VOLUMES_ROOT": str(tmp_path)})


def write_source(folder: Path, seed: int = 0) -> None:
    """A Qwen3-MoE of many small shards, so that there are many moments between them."""
    config = model_config("qwen3-moe", "demo", 4096, 0, 1) | {"num_hidden_layers": 12}
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "tokenizer.json").write_text("{}")
    weight_map = {}
    for number, part in enumerate(split(tensor_specs(config), SHARDS), start=1):
        name = f"model-{number:05d}-of-{SHARDS:05d}.safetensors"
        save_file({spec.name: initial_tensor(spec, torch.bfloat16, seed, 0.02) for spec in part}, folder / name)
        weight_map |= {spec.name: name for spec in part}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))


def write_config(root: Path, target: str, fmt: WeightFormat) -> Path:
    found = fingerprint(root / "models" / "source", "")
    config = ConvertConfig(
        source=ModelSource(volume="models", path="source"),
        target=VolumePath(volume="models", path=target),
        format=fmt,
        fingerprint=found,
        content_key=content_key(found, fmt),
        workers=WORKERS,
        threads=1,
        max_relative_rms_error=None,
    )
    path = root / f"{target}.json"
    path.write_text(json.dumps(config.document()))
    return path


def steps(config: Path) -> list[str]:
    return [*(f"convert --config {config} --index {i}" for i in range(WORKERS)), f"finalise --config {config}"]


def tree(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def finished_shards(target: Path) -> dict[str, tuple[int, int, int, int]]:
    """Inode and mtime of every finished shard and of its report: a shard that is redone has others."""
    partial = partial_of(target)
    found = {}
    for report in (partial / "reports").glob("*.safetensors.json"):
        output = partial / report.name.removesuffix(".json")
        a, b = report.stat(), output.stat()
        found[output.name] = (a.st_ino, a.st_mtime_ns, b.st_ino, b.st_mtime_ns)
    return found


def check_never_half_used(target: Path, key: str) -> None:
    """Whatever is at the final name is complete; what is not complete is not at the final name."""
    if not target.exists():
        assert find_conversion(target, key) is None
        return
    manifest = read_manifest(target)
    assert manifest is not None and not damaged_files(target, manifest)
    assert find_conversion(target, key) == manifest


Finished = dict[str, tuple[int, int, int, int]]


@dataclass
class Killer:
    """Runs steps of a conversion and kills them, at moments of its choice."""

    forker: Forker
    seconds: list[float]
    """Of each step, uninterrupted."""
    key: str
    names: list[str]
    kills: int = 0
    in_shards: int = 0
    in_finalise: int = 0
    chance: random.Random = field(default_factory=lambda: random.Random(20260101))

    def through(self, target: Path, number: int, step: str, done: Finished) -> Finished:
        """Kill a step up to six times, then let it end; returns the shards that are finished."""
        for again in range(6):
            before = finished_shards(target)
            code = self._run(target, number, step, again, before)
            if code == 0:
                break
            assert code == -signal.SIGKILL, step
            self.kills += 1
            check_never_half_used(target, self.key)
            if number < WORKERS:
                done = kept(target, done)
                self.in_shards += len(before) < len(done) < SHARDS or any(partial_of(target).glob(".*.writing"))
            else:
                self.in_finalise += 1
        else:
            assert self.forker.run(step) == 0
        return kept(target, done) if number < WORKERS else done

    def _run(self, target: Path, number: int, step: str, again: int, before: Finished) -> int:
        """Return the exit code. In turn just after a shard of our choice has come, and anywhere by the clock, start and end included."""
        if number >= WORKERS or again % 2:
            return self.forker.run(step, self.chance.uniform(0, self.seconds[number]))
        todo = [name for name in share(self.names, number, WORKERS) if name not in before]
        shard = partial_of(target) / "reports" / f"{self.chance.choice(todo)}.json" if todo else partial_of(target)
        return self.forker.run(step, self.chance.uniform(0, 0.01), once=str(shard))


def kept(target: Path, done: Finished) -> Finished:
    """Return the shards that are finished now; those that were are the very same files."""
    now = finished_shards(target)
    assert {name: now[name] for name in done} == done, "a finished shard was redone"
    return now


@pytest.mark.parametrize("fmt", [Int4Group(group_size=64), Fp8Block()], ids=["int4", "fp8"])
def test_killed_conversion_ends_as_an_uninterrupted_one(tmp_path: Path, forker: Forker, fmt: WeightFormat) -> None:
    models = tmp_path / "models"
    write_source(models / "source")
    seconds = []
    for step in steps(write_config(tmp_path, "whole", fmt)):
        before = time.monotonic()
        assert forker.run(step) == 0
        seconds.append(time.monotonic() - before)
    wanted = tree(models / "whole")
    key = read_manifest(models / "whole").content_key  # type: ignore[union-attr]

    killer = Killer(forker, seconds, key, sorted(p.name for p in (models / "source").glob("*.safetensors")))
    rounds = 0
    # A machine of another speed, or a busy one, bunches moments drawn from a clock: then more of them are drawn.
    while killer.kills < KILLS or killer.in_shards < KILLS // 4 or killer.in_finalise < 2:
        rounds += 1
        assert rounds <= 60, f"{killer.kills} kills: {killer.in_shards} between or inside shards, {killer.in_finalise} in the finaliser"
        target = models / f"killed-{rounds}"
        config = write_config(tmp_path, target.name, fmt)
        done: Finished = {}
        for number, step in enumerate(steps(config)):
            done = killer.through(target, number, step, done)
        assert forker.run(steps(config)[-1]) == 0, "a finaliser that comes again finds its work done"
        assert tree(target) == wanted
        assert not partial_of(target).exists()
    print(f"{killer.kills} kills in {rounds} rounds: {killer.in_shards} between or inside shards, {killer.in_finalise} in the finaliser")


def test_killed_command_line_goes_on(tmp_path: Path) -> None:
    """The one-shot command, all its processes killed at once."""
    write_source(tmp_path / "source")
    command = [sys.executable, "-m", "lprl_workload", "convert-all", str(tmp_path / "source")]
    options = ["--to", "fp8", "--workers", "2", "--threads", "1"]
    subprocess.run([*command, str(tmp_path / "whole"), *options], check=True, capture_output=True)
    process = subprocess.Popen([*command, str(tmp_path / "killed"), *options], start_new_session=True, stderr=subprocess.DEVNULL)
    _wait_for_shards(tmp_path / "killed", process)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert not (tmp_path / "killed").exists()
    kept = finished_shards(tmp_path / "killed")
    assert 0 < len(kept) < SHARDS
    subprocess.run([*command, str(tmp_path / "killed"), *options], check=True, capture_output=True)
    assert not list(tmp_path.glob(".*")), "nothing of the killed run is left"
    assert tree(tmp_path / "killed") == tree(tmp_path / "whole")


def _wait_for_shards(target: Path, process: "subprocess.Popen[bytes]", limit_s: float = 120.0) -> None:
    end = time.monotonic() + limit_s
    while len(finished_shards(target)) < 3 and process.poll() is None:
        assert time.monotonic() < end, "nothing was converted"
        time.sleep(0.005)


def test_equal_headers_and_other_weights_never_share(tmp_path: Path, forker: Forker) -> None:
    """Same sizes, headers and times; one source differs where the fingerprint's samples look, one where they do not."""
    models = tmp_path / "models"
    fmt = Fp8Block()
    write_source(models / "source")
    config = write_config(tmp_path, "target", fmt)
    for step in steps(config):
        assert forker.run(step) == 0
    shard = next(p for p in sorted((models / "source").glob("*.safetensors")) if p.stat().st_size > 1 << 20)
    original, times = shard.read_bytes(), shard.stat()

    def overwrite(position: int) -> None:
        changed = bytearray(original)
        changed[position] ^= 1
        shard.write_bytes(changed)
        os.utime(shard, ns=(times.st_atime_ns, times.st_mtime_ns))

    before = fingerprint(models / "source", "")
    header = 8 + int.from_bytes(original[:8], "little")
    overwrite(header + 1)
    assert fingerprint(models / "source", "") != before, "a sampled difference is another source"
    overwrite(header + (1 << 18) + 1)
    assert fingerprint(models / "source", "") == before, "this test is about what the samples do not see"
    codes = [forker.run(step) for step in steps(config)[:WORKERS]]
    assert 3 in codes, "the full digests refuse the reuse"
    with pytest.raises(UserError, match="holds conversion"):
        find_conversion(models / "target", "0" * 64)
