"""A layer that was made sensitive is named, what is advised was measured, and wrong input is one line."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from lprl_api.errors import UserError
from lprl_api.model.formats import Fp8Channel, Int4Group
from lprl_api.spec.precision import Scope
from lprl_api.wire.answers import Advice, Distance, PartSensitivity, Sensitivity
from lprl_workload.compare.advice import MOST_PARTS, QAT_KL, exclude, outstanding, without_training
from lprl_workload.compare.cli import check_limit, verify_command
from lprl_workload.compare.compare import Wanted, compare_folders
from lprl_workload.compare.texts import Reading
from lprl_workload.convert.export import convert_folder

HUGE = 64.0
"""A power of two: no value is rounded."""


def louder(name: str, tensor: Tensor) -> Tensor:
    """Make embeddings large beside what a layer adds to them, so that no layer of a random model stands out by itself."""
    return tensor * 8 if name == "model.embed_tokens.weight" else tensor


def with_outliers(name: str, tensor: Tensor) -> Tensor:
    """Give layer 2's o_proj huge values for one channel in each group, and v_proj small ones: the model computes what it did before."""
    changed = louder(name, tensor).clone()
    if name == "model.layers.2.self_attn.o_proj.weight":
        changed[:, ::32] *= HUGE
    if name == "model.layers.2.self_attn.v_proj.weight":
        changed[::32] /= HUGE
    return changed


@pytest.fixture
def sensitive(tmp_path: Path, models: Any, rewritten: Callable[..., Path]) -> Path:
    """A model of four layers of which INT4 destroys one attention output."""
    return rewritten(models("qwen3", 4), tmp_path / "sensitive", with_outliers)


def test_the_layer_with_outliers_is_named_and_advice_is_what_leaving_it_out_leaves(sensitive: Path, texts: Path, tmp_path: Path) -> None:
    fmt = Int4Group(group_size=32, scope=Scope.ALL_LINEAR)
    convert_folder(sensitive, tmp_path / "int4", fmt, 1)
    found = compare_folders(tmp_path / "int4", sensitive, texts, Wanted(sensitivity_texts=2))
    assert found.sensitivity is not None and found.sensitivity.texts == 2
    most = max((p for p in found.sensitivity.parts if p.part != "layer"), key=lambda p: p.recovered)
    assert (most.layer, most.part) == (2, "attention") and most.recovered > 0.4
    (advised,) = [a for a in found.advice if a.kind == "exclude"]
    assert advised.exclude_modules == ("model.layers.2.self_attn.*",)
    assert "--exclude 'model.layers.2.self_attn.*'" in advised.text
    again = fmt.model_copy(update={"exclude_modules": advised.exclude_modules})
    convert_folder(sensitive, tmp_path / "without", again, 1)
    left = compare_folders(tmp_path / "without", sensitive, texts, Wanted(sensitivity_texts=0)).distance
    assert advised.kl_mean == pytest.approx(left.kl_mean, rel=1e-6)
    assert left.kl_mean < found.distance.kl_mean / 2


def test_a_smaller_group_is_advised_with_the_figure_its_conversion_has(models: Any, texts: Path, tmp_path: Path) -> None:
    source = models("qwen3")
    big, small = (Int4Group(group_size=size, scope=Scope.ALL_LINEAR, exclude_modules=("*.down_proj",)) for size in (64, 32))
    for fmt in (big, small):
        convert_folder(source, tmp_path / str(fmt.group_size), fmt, 1)
    found = compare_folders(tmp_path / "64", source, texts, Wanted(sensitivity_texts=0))
    (advice,) = [a for a in found.advice if a.kind == "group-size"]
    wanted = compare_folders(tmp_path / "32", source, texts, Wanted(sensitivity_texts=0)).distance.kl_mean
    assert advice.group_size == 32 and advice.kl_mean == pytest.approx(wanted, rel=1e-6)


def test_int4_is_refused_only_where_nothing_that_was_measured_brings_it_near() -> None:
    far = Distance(positions=1, kl_mean=0.5, kl_p50=0.5, kl_p99=1, top1_agreement=0.5, nll_source=1, nll_converted=2, nll_change=1)
    near, still_far = (Advice(kind="exclude", text="", kl_mean=kl) for kl in (QAT_KL / 2, QAT_KL * 2))
    assert without_training(Int4Group(), far, [near, still_far]) == ()
    assert without_training(Fp8Channel(), far, []) == ()
    (advice,) = without_training(Int4Group(), far, [still_far])
    assert advice.kind == "qat" and "int4-qat" in advice.text


def parts(*recovered: float) -> Sensitivity:
    """Return a result in which the MLPs of successive layers bring back these shares."""
    rows = [
        PartSensitivity(layer=n, part="mlp", modules=f"model.layers.{n}.mlp.*", kl_mean=1 - share, recovered=share)
        for n, share in enumerate(recovered)
    ]
    return Sensitivity(texts=1, kl_mean=1, parts=tuple(rows))


def test_a_part_stands_out_by_much_more_than_its_even_share() -> None:
    assert outstanding(parts(*[1 / 30] * 30)) == frozenset()
    assert outstanding(parts(*[0.02] * 12, 0.4, *[0.02] * 12, 0.3)) == {(12, "mlp"), (25, "mlp")}
    assert outstanding(parts(0.5, 0.5)) == frozenset(), "all there is cannot be left out"
    assert len(outstanding(parts(*[0.12] * 8, *[0.0] * 60))) == MOST_PARTS


def test_where_leaving_out_brings_little_back_that_is_said() -> None:
    far = Distance(positions=1, kl_mean=0.5, kl_p50=0.5, kl_p99=1, top1_agreement=0.5, nll_source=1, nll_converted=2, nll_change=1)
    mix = frozenset([(3, "mlp")])
    assert exclude(frozenset(), far, None).kind == exclude(mix, far, 0.45).kind == "none-stands-out"
    assert exclude(mix, far, 0.2).kl_mean == 0.2


def test_what_is_close_may_be_served(models: Any, converted: Any, texts: Path) -> None:
    source = models("qwen3")
    (advice,) = compare_folders(converted(source, Fp8Channel()), source, texts, Wanted(sensitivity_texts=0)).advice
    assert advice.kind == "serve"


def test_a_limit_that_is_passed_names_the_figures_and_what_would_fit(models: Any, converted: Any, texts: Path) -> None:
    source = models("qwen3")
    found = compare_folders(converted(source, Fp8Channel()), source, texts, Wanted(sensitivity_texts=0))
    check_limit("folder", found, found.distance.kl_mean)
    with pytest.raises(UserError, match=r"^folder: mean KL 0\.\d+ is above the limit 1e-06 .*top-1 agreement"):
        check_limit("folder", found, 1e-6)
    fits = found.model_copy(update={"advice": (Advice(kind="exclude", text="leave out X", kl_mean=1e-7),)})
    with pytest.raises(UserError) as error:
        check_limit("folder", fits, 1e-6)
    assert error.value.remedy == "leave out X"


@pytest.mark.parametrize(
    ("rows", "reading", "match"),
    [
        pytest.param("", Reading(), r"t\.jsonl: no prompt in it", id="empty"),
        pytest.param(
            '{"prompt": "q"}', Reading(prompt_key="text"), r"row 0: no key 'text' \(--prompt-key.*\); keys found: prompt", id="key"
        ),
        pytest.param('{"prompt": "q", "a": 7}', Reading(response_key="a"), "key 'a': found an int, needs the answer as text", id="no-text"),
        pytest.param('{"prompt": "q"}', Reading(response_key="a"), r"no key 'a' \(--response-key", id="no-answer"),
        pytest.param(json.dumps({"prompt": "1" * 9000}), Reading(), r"row 0.*: \d+ tokens, the model has positions for \d+", id="long"),
        pytest.param('{"prompt": "q"}', Reading(max_tokens=1), "all 1 texts are longer than --max-tokens 1", id="all-left-out"),
        pytest.param("[1]", Reading(), "row 0: found a list, needs a JSON object", id="no-object"),
    ],
)
def test_a_wrong_file_of_texts_is_one_line(models: Any, converted: Any, tmp_path: Path, rows: str, reading: Reading, match: str) -> None:
    source = models("qwen3")
    (tmp_path / "t.jsonl").write_text(rows)
    with pytest.raises(UserError, match=match) as error:
        compare_folders(converted(source, Fp8Channel()), source, tmp_path / "t.jsonl", Wanted(reading, 0))
    assert error.value.remedy and "\n" not in error.value.message


def test_folders_that_do_not_belong_together_are_one_line(models: Any, converted: Any, texts: Path, tmp_path: Path) -> None:
    source = models("qwen3")
    with pytest.raises(UserError, match="is bf16, as its source is: nothing was converted"):
        compare_folders(source, source, texts, Wanted())
    folder = converted(source, Fp8Channel())
    with pytest.raises(UserError, match=r"layers 2, .* has 4"):
        compare_folders(folder, models("qwen3", 4), texts, Wanted())
    with pytest.raises(UserError, match="gone"):
        compare_folders(folder, tmp_path / "gone", texts, Wanted())
    with pytest.raises(UserError, match="no such file"):
        compare_folders(folder, source, tmp_path / "gone.jsonl", Wanted())


def test_a_model_that_computes_no_numbers_is_one_line(models: Any, rewritten: Any, converted: Any, texts: Path, tmp_path: Path) -> None:
    source = rewritten(models("qwen3"), tmp_path / "huge", lambda name, tensor: tensor * (1e38 if name == "lm_head.weight" else 1))
    with pytest.raises(UserError, match=r"answers: the source's log-probabilities are NaN or infinite at \d+ of \d+ positions"):
        compare_folders(converted(source, Fp8Channel()), source, texts, Wanted(sensitivity_texts=0))


def test_lines_of_a_text_file_are_taken_as_they_are(models: Any, converted: Any, tmp_path: Path) -> None:
    source = models("qwen3")
    (tmp_path / "t.txt").write_text("first line 12\n\nsecond one\n")
    found = compare_folders(converted(source, Fp8Channel()), source, tmp_path / "t.txt", Wanted(sensitivity_texts=0))
    assert found.texts == 2 and found.with_response == 0


def test_the_command_prints_the_table_and_writes_the_figures(
    models: Any, converted: Any, texts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = models("qwen3")
    folder = converted(source, Fp8Channel())
    threads = torch.get_num_threads()
    line = [str(folder), "--source", str(source), "--prompts", str(texts), "--json", str(tmp_path / "f.json"), "--threads", "1"]
    assert verify_command(line) == 0
    out = capsys.readouterr().out
    torch.set_num_threads(threads)
    figures = json.loads((tmp_path / "f.json").read_text())["answers"]
    assert f"KL from source   mean {figures['distance']['klMean']:.3g}" in out
    assert "model.layers.1.mlp.*" in out and "advice: " in out and "2 responses, and of 2 texts" in out
    with pytest.raises(UserError, match=r"mean KL .* is above the limit 1e-06"):
        verify_command([*line, "--max-kl", "1e-6", "--sensitivity", "none"])


@pytest.mark.parametrize(
    ("more", "match"),
    [
        (["--prompts", "x.jsonl"], "--prompts: there is nothing to compare the answers with"),
        (["--source", "s", "--rows", "3"], "--rows: there are no texts to run"),
        (["--source", "s", "--max-kl", "3"], "--max-kl: there are no texts to run"),
        (["--source", "s", "--prompts", "x", "--device", "cuda"], "--device cuda: torch finds no GPU here"),
        (["--source", "s", "--prompts", "x", "--sensitivity", "some"], "sensitivity: got 'some'"),
    ],
)
def test_options_without_what_they_need_are_refused(more: list[str], match: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(UserError, match=match):
        verify_command(["folder", *more])
