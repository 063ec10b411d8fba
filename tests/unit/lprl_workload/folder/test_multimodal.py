"""Models that keep their language model in text_config: read, converted and named by their own class; not trained."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.unit.lprl_workload.folder.odd_folders import HEAD, Tensors, of, whole, without

from lprl_api.errors import UserError
from lprl_api.model.formats import Fp8Block
from lprl_api.names import ENV_TERMINATION_LOG, ENV_VOLUMES_ROOT, ExitCode
from lprl_api.spec.sources import ModelSource
from lprl_api.wire.runconfig import InspectConfig
from lprl_cli.commands.workload import _table
from lprl_workload.__main__ import main
from lprl_workload.convert.export import convert_folder
from lprl_workload.convert.inspect import inspect_folder
from lprl_workload.convert.verify import verify_folder
from lprl_workload.folder.config import check_trainable

TOWER: Tensors = {
    "vision_tower.encoder.layers.0.self_attn.q_proj.weight": torch.ones(8, 8),
    "vision_tower.embeddings.weight": torch.ones(4, 8),
    "multi_modal_projector.linear_1.weight": torch.ones(64, 8),
}
PREFIXES = ("language_model.model.", "model.language_model.", "model.text_model.", "thinker.model.")
TEXT_ONLY = "keeps its language model in text_config, which the torch trainer cannot train"


def nest(folder: Path, prefix: str = "language_model.model.", *, head: bool = True) -> Path:
    """Make a plain folder the language model of a multimodal one."""
    text = json.loads((folder / "config.json").read_text())
    document = {"architectures": ["LlavaForConditionalGeneration"], "model_type": "llava", "text_config": text, "vision_config": {}}
    tensors = {f"{prefix}{n.removeprefix('model.')}" if n.startswith("model.") else n: t for n, t in of(folder).items()}
    whole(folder, (tensors if head else without(tensors, HEAD)) | TOWER)
    (folder / "config.json").write_text(json.dumps(document))
    return folder


@pytest.mark.parametrize("prefix", PREFIXES)
@pytest.mark.parametrize("architecture", ["llama", "deepseek-v3"])
def test_a_model_inside_text_config_is_inspected_and_converted(
    architecture: str, prefix: str, make: Callable[[str], Path], tmp_path: Path
) -> None:
    folder = nest(make(architecture), prefix)
    found = inspect_folder(folder, "")
    assert found.model_class == "LlavaForConditionalGeneration" and found.notes == ()
    convert_folder(folder, tmp_path / "fp8", Fp8Block(), 1)
    assert verify_folder(tmp_path / "fp8", folder, None).problems == ()
    assert inspect_folder(tmp_path / "fp8", "").quantization.format == "fp8-block"
    assert "LlavaForConditionalGeneration (language model: " in _table(str(folder), found.document())


def test_a_multimodal_model_without_a_head_of_its_own_is_read(make: Callable[[str], Path]) -> None:
    assert inspect_folder(nest(make("qwen2"), head=False), "").shape.family == "qwen2"


def test_a_missing_tensor_of_the_inner_model_is_named(make: Callable[[str], Path]) -> None:
    folder = nest(make("llama"))
    whole(folder, {n: t for n, t in of(folder).items() if not n.endswith("layers.1.mlp.up_proj.weight")})
    with pytest.raises(UserError, match=r"1 tensor missing: language_model\.model\.layers\.1\.mlp\.up_proj\.weight"):
        inspect_folder(folder, "")


def test_inspect_for_a_job_refuses_in_one_line_what_the_trainer_cannot_train(
    make: Callable[[str], Path], tmp_path: Path, monkeypatch: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = nest(make("llama"))
    monkeypatch.setenv(ENV_VOLUMES_ROOT, str(tmp_path))
    monkeypatch.setenv(ENV_TERMINATION_LOG, str(tmp_path / "log"))
    (tmp_path / "models").mkdir()
    folder.rename(tmp_path / "models" / "llava")
    config = tmp_path / "inspect.json"
    config.write_text(json.dumps(InspectConfig(source=ModelSource(volume="models", path="llava")).document()))
    assert main(["inspect", "--config", str(config)]) == ExitCode.USER_ERROR
    said = capsys.readouterr().err
    assert "LlavaForConditionalGeneration keeps its language model in text_config" in said and "Traceback" not in said
    assert main(["inspect", "--folder", str(tmp_path / "models" / "llava")]) == 0
    with pytest.raises(UserError, match=TEXT_ONLY) as refused:
        check_trainable(tmp_path / "models" / "llava")
    assert refused.value.remedy and "\n" not in refused.value.message


def test_a_plain_language_model_may_be_trained(make: Callable[[str], Path]) -> None:
    check_trainable(make("llama"))
