"""The finalise process: publishes, measures once, and says figures or what is wrong with the texts."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from lprl_api.model.content_key import content_key
from lprl_api.model.formats import Fp8Channel
from lprl_api.spec.operations import ConversionVerify
from lprl_api.spec.sources import DataFile, ModelSource, VolumePath
from lprl_api.wire.answers import ConversionAnswers, settings_digest
from lprl_api.wire.progress import Termination
from lprl_api.wire.runconfig import ConvertConfig
from lprl_workload.compare.compare import Wanted, compare_folders
from lprl_workload.compare.phase import finalise_command
from lprl_workload.compare.texts import Reading
from lprl_workload.convert.fingerprint import fingerprint
from lprl_workload.convert.job import run_worker

WISH = ConversionVerify(prompts=DataFile(volume="data", path="texts.jsonl", first_row=1), sensitivity_texts=2, max_tokens=60)


@pytest.fixture
def volumes(tmp_path: Path, models: Any, texts: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Volumes with a source and texts, and where the process writes its last words."""
    root = tmp_path / "volumes"
    (root / "models").mkdir(parents=True)
    (root / "data").mkdir()
    (root / "models" / "source").symlink_to(models("qwen3"))
    (root / "data" / "texts.jsonl").write_bytes(texts.read_bytes())
    monkeypatch.setenv("LPRL_VOLUMES_ROOT", str(root))
    monkeypatch.setenv("LPRL_TERMINATION_LOG", str(tmp_path / "words"))
    return root


@pytest.fixture
def finalise(volumes: Path, tmp_path: Path) -> Callable[[ConversionVerify | None], ConversionAnswers | None]:
    """Return a function that runs the finalise process of a conversion whose shards are made."""
    source = volumes / "models" / "source"
    found, fmt = fingerprint(source, ""), Fp8Channel()
    config = ConvertConfig(
        source=ModelSource(volume="models", path="source"),
        target=VolumePath(volume="models", path="converted/fp8"),
        format=fmt,
        fingerprint=found,
        content_key=content_key(found, fmt),
        workers=1,
        threads=1,
        max_relative_rms_error=None,
    )
    run_worker(config, 0, lambda _: None, lambda _: None)

    def run(wish: ConversionVerify | None) -> ConversionAnswers | None:
        file = tmp_path / "config.json"
        file.write_text(config.model_copy(update={"verify": wish}).model_dump_json(by_alias=True))
        assert finalise_command(["--config", str(file)]) == 0
        return Termination.model_validate_json((tmp_path / "words").read_bytes()).answers

    return run


def test_figures_are_those_of_verify_and_lie_beside_the_folder(finalise: Any, volumes: Path) -> None:
    found = finalise(WISH)
    folder, source = volumes / "models" / "converted" / "fp8", volumes / "models" / "source"
    wanted = compare_folders(folder, source, volumes / "data" / "texts.jsonl", Wanted(Reading(rows=(1, None)), sensitivity_texts=2))
    assert found.distance == wanted.distance and found.problem == ""
    assert found.advice == wanted.advice != ()
    volume, _, path = found.file.partition(":")
    stored = json.loads((volumes / volume / path).read_text())
    assert stored["answers"]["sensitivity"]["texts"] == 2 and stored["answers"]["texts"] == 3
    assert torch.get_num_threads() == 1


def test_the_same_wish_is_measured_once_and_another_or_edited_texts_anew(finalise: Any, volumes: Path) -> None:
    first = finalise(WISH)
    volume, _, path = first.file.partition(":")
    file = volumes / volume / path
    os.utime(file, (1, 1))
    assert finalise(WISH) == first and file.stat().st_mtime == 1, "measured again"
    other = WISH.model_copy(update={"sensitivity_texts": 0})
    assert finalise(other).settings == settings_digest(other) != first.settings
    with (volumes / "data" / "texts.jsonl").open("a") as texts:
        texts.write('{"prompt": "one more"}\n')
    assert finalise(WISH).distance.positions > first.distance.positions


def test_wrong_texts_publish_the_conversion_and_say_what_is_wrong(finalise: Any, volumes: Path) -> None:
    found = finalise(WISH.model_copy(update={"prompt_key": "text"}))
    assert found.distance is None and "no key 'text'" in found.problem and "; name one of them" in found.problem
    assert (volumes / "models" / "converted" / "fp8" / "manifest.json").is_file()
    gone = finalise(WISH.model_copy(update={"prompts": DataFile(volume="data", path="gone.jsonl")}))
    assert gone.problem == "prompts data:gone.jsonl: no such file; check the volume and the path"
    assert finalise(None) is None


def test_the_tensor_that_is_furthest_off_is_said_also_of_what_was_published_before(finalise: Any, volumes: Path, tmp_path: Path) -> None:
    report = volumes / "models" / "converted" / "fp8" / "conversion_report.json"
    for _ in range(2):
        finalise(None)
        said = Termination.model_validate_json((tmp_path / "words").read_bytes()).largest_error
        totals = json.loads(report.read_text())["totals"]
        assert said is not None and (said.tensor, said.relative_rms_error) == (totals["worstTensor"], totals["worstRelativeRmsError"])
