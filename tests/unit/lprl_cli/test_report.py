"""The report: self-contained, complete, honest about what is missing."""

import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from lprl_cli import exits
from lprl_cli.main import main
from lprl_cli.report.page import render
from lprl_cli.runfolder import find, jsonl

SPEC: dict[str, Any] = {
    "model": {"source": {"volume": "models", "path": "toy"}},
    "precision": {"training": "int4-qat", "rollout": "int4", "int4": {"scope": "all-linear"}},
    "conversion": {"volume": "models"},
    "data": {"prompts": {"volume": "models", "path": "train.jsonl"}},
    "algorithm": {"steps": 3},
    "checkpoint": {"volume": "models"},
    "volumes": {"models": {"persistentVolumeClaim": "claim"}},
}
SHAPE = {
    "architecture": "Qwen3ForCausalLM",
    "family": "qwen3",
    "layers": 2,
    "hidden": 128,
    "heads": 2,
    "kvHeads": 1,
    "headDim": 64,
    "ffn": 256,
    "vocab": 256,
    "tiedEmbeddings": False,
}


def write_run(root: Path, name: str, k3: float = 1e-4) -> Path:
    state, volumes = root / "runs" / name, root / "volumes"
    run = volumes / "claim" / "checkpoints" / name
    run.mkdir(parents=True)
    rows = [{"attempt": 1, "step": i, "reward": i / 3, "k3": k3, "step_seconds": 1.0, "loss": None} for i in (1, 2, 3)]
    (run / "metrics.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows) + '{"step": 4, "rew')
    (run / "evaluations.jsonl").write_text(json.dumps({"step": 3, "reward": 0.875, "pass_at": {}}) + "\n")
    (run / "step-000003").mkdir()
    (run / "step-000003" / "manifest.json").write_text("{}")
    (run / "step-000004.partial").mkdir()
    inspection = {"shape": SHAPE, "fingerprint": "a" * 64, "totalBytes": 1000, "tensors": 20, "shards": 1}
    condition = {"type": "Complete", "status": "True", "reason": "Succeeded", "message": "<b>done</b>"}
    status = {"phase": "Succeeded", "precision": "int4-qat/int4", "attempt": 1, "inspection": inspection, "conditions": [condition]}
    config = json.dumps({"target": {"volume": "models", "path": "converted/k"}})
    template = {"metadata": {"annotations": {"lprl.dev/convert.json": config}}}
    (state / "objects" / "Job").mkdir(parents=True)
    (state / "objects" / "Job" / "lprl-convert-x.json").write_text(json.dumps({"spec": {"template": template}}))
    document = {"apiVersion": "lprl.dev/v1alpha1", "kind": "LowPrecisionRLJob", "metadata": {"name": name}, "spec": SPEC, "status": status}
    (state / "job.json").write_text(json.dumps(document))
    (state / "local.json").write_text(json.dumps({"volumes": str(volumes)}))
    phases = [("00.000", "Pending"), ("02.500", "Running"), ("09.000", "Succeeded")]
    lines = [{"time": f"2026-01-01T00:00:{at}Z", "attempt": 0, "phase": phase, "message": ""} for at, phase in phases]
    (state / "events.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (state / "mounts").mkdir()
    (state / "mounts" / "models").symlink_to(volumes / "claim")
    converted = volumes / "claim" / "converted" / "k"
    converted.mkdir(parents=True, exist_ok=True)
    tensors = [
        {"name": "small.error", "format": "int4-group", "shape": [8, 128], "relativeRmsError": 0.05},
        {"name": "large.error", "format": "int4-group", "shape": [8, 128], "relativeRmsError": 0.11},
        {"name": "copied", "format": "copied", "shape": [8], "relativeRmsError": None},
    ]
    (converted / "conversion_report.json").write_text(json.dumps({"tensors": tensors}))
    return state


class Links(HTMLParser):
    """Collects what a page would load."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found += [v or "" for k, v in attrs if k in ("src", "href", "data", "srcset")]


def test_page_loads_nothing_and_shows_everything(tmp_path: Path) -> None:
    text = render(find(str(write_run(tmp_path, "toy"))))
    links = Links()
    links.feed(text)
    assert links.found == [] and "url(" not in text and "@import" not in text
    for word in ("Curves", "Plan", "Timeline", "Quantisation error", "Checkpoints", "Configuration", "0.875", "step-000003", "2.5 s"):
        assert word in text, word
    assert "step-000004" not in text  # unfinished
    assert "&lt;b&gt;done&lt;/b&gt;" in text and "<b>done</b>" not in text
    assert text.index("large.error") < text.index("small.error")
    assert "copied" not in text
    assert "Gradient norm: not measured in this run" in text
    assert re.search(r"<td>workers</td>", text)


def test_report_command_writes_page_and_picture(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    state = write_run(tmp_path, "toy")
    assert main(["report", str(state)]) == exits.OK
    run = find(str(state)).run
    assert str(run / "report.html") in capsys.readouterr().out
    svg = (run / "reward.svg").read_text()
    assert svg.startswith("<svg xmlns=") and "var(--" not in svg


def test_comparison_lays_runs_over_each_other(tmp_path: Path) -> None:
    states = [str(write_run(tmp_path, name, k3)) for name, k3 in (("a", 1e-4), ("b", 1e-2))]
    out = tmp_path / "out" / "modes.html"
    assert main(["report", *states, "--compare", str(out), "--title", "Modes"]) == exits.OK
    text = out.read_text()
    assert "Training/rollout mismatch, K3 (log scale)" in text
    assert "a from 1e-4 to 1e-4; b from 0.01 to 0.01" in text
    assert (out.parent / "modes.svg").exists()


def test_a_run_that_never_started_still_has_a_page(tmp_path: Path) -> None:
    state = write_run(tmp_path, "toy")
    found = find(str(state))
    for file in ("metrics.jsonl", "evaluations.jsonl"):
        (found.run / file).unlink()
    job = json.loads((state / "job.json").read_text())
    job["status"] = {"phase": "Failed", "message": "inspection failed"}
    (state / "job.json").write_text(json.dumps(job))
    assert "inspection failed" in render(find(str(state)))


def test_a_plain_folder_of_metrics_is_a_run(tmp_path: Path) -> None:
    write_run(tmp_path, "toy")
    found = find(str(tmp_path / "volumes" / "claim" / "checkpoints" / "toy"))
    assert found.state is None and len(found.rows("metrics.jsonl")) == 3
    assert "No manifest beside this run" in render(found)


def test_a_line_still_being_written_is_left_out(tmp_path: Path) -> None:
    path = tmp_path / "m.jsonl"
    path.write_text('{"step": 1}\n{"st')
    assert jsonl(path) == [{"step": 1}]


def test_what_the_conversion_does_to_the_answers_is_shown_with_its_layers(tmp_path: Path) -> None:
    state = write_run(tmp_path, "toy")
    assert "Answers after the conversion" not in render(find(str(state)))
    job = json.loads((state / "job.json").read_text())
    figures = {"klMean": "0.212", "klP99": "1.5", "top1Agreement": "0.75", "nllChange": "0.25", "positions": 9}
    job["status"]["conversion"] = {"answers": figures | {"advice": ["leave out <X>"], "file": "models:converted/f.json"}}
    (state / "job.json").write_text(json.dumps(job))
    text = render(find(str(state)))
    assert "Answers after the conversion" in text and "0.212" in text and "leave out &lt;X&gt;" in text
    assert "brought back" not in text, "the file is not on this machine"
    parts = [{"layer": n, "part": part, "recovered": n / 10} for n in range(3) for part in ("layer", "attention", "mlp")]
    (tmp_path / "volumes" / "claim" / "converted" / "f.json").write_text(json.dumps({"answers": {"sensitivity": {"parts": parts}}}))
    text = render(find(str(state)))
    assert "brought back" in text and "MLP or experts" in text
