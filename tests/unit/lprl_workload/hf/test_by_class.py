"""Models without a table, built by their class: what is proven equal is trained, and nothing else; all of them: tests/zoo."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from tests.zoo.families import ALL, CHEAP, Case
from tests.zoo.prove import why_not
from tests.zoo.tiny import save, tiny_model
from tests.zoo.trained import CANDIDATES, LONG

from lprl_api.errors import UserError
from lprl_api.model.config_file import check_trainable, shape_of
from lprl_api.model.formats import Bf16, Fp8Block, Int4Group
from lprl_api.model.proven import PROVEN
from lprl_api.spec.precision import Scope
from lprl_workload.convert.export import convert_folder
from lprl_workload.convert.inspect import inspect_folder, inspection_message, look_at
from lprl_workload.hf.attend import Attention
from lprl_workload.hf.served import ServedModel
from lprl_workload.hf.served_attention import served_attention


@pytest.mark.parametrize(
    "case", [case for case in CANDIDATES if case in CHEAP or case.model_type == "glm_moe_dsa"], ids=lambda case: case.model_type
)
def test_a_family_is_trained_as_its_class_computes_it_or_refused(case: Case) -> None:
    why = why_not(case)
    assert (why == "") == (case.model_type in PROVEN), why or "python -m tests.zoo.prove > api/lprl_api/model/proven.py"


def test_only_what_the_zoo_tries_is_proven() -> None:
    assert set(PROVEN) <= {case.model_type for case in CANDIDATES}


@pytest.fixture(scope="module")
def mixtral(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save(tiny_model("mixtral", {}), tmp_path_factory.mktemp("by-class") / "mixtral")


def shape(folder: Path) -> Any:
    return shape_of(json.loads((folder / "config.json").read_text()), "config.json")


def test_a_jobs_inspection_has_the_shape_and_fits_its_message(mixtral: Path) -> None:
    found = inspect_folder(mixtral, "")
    assert found.shape.family == "other" and found.shape.moe is not None and found.shape.moe.experts == 4
    assert len(inspection_message(found)) < 4096
    assert look_at(mixtral).document()["inspection"] == found.document()


FORMATS = (Fp8Block(), Int4Group(group_size=32, scope=Scope.ALL_LINEAR), Int4Group(group_size=32, scope=Scope.ROUTED_EXPERTS))


@pytest.mark.parametrize("fmt", FORMATS, ids=["fp8", "int4", "int4-experts"])
def test_an_engine_takes_what_the_converter_wrote_and_rounds_as_it_does(mixtral: Path, tmp_path: Path, fmt: Any) -> None:
    convert_folder(mixtral, tmp_path / "served", fmt, 1)
    convert_folder(tmp_path / "served", tmp_path / "back", Bf16(), 1)
    served, plain = (ServedModel(tmp_path / name, form, shape(mixtral), "cpu") for name, form in (("served", fmt), ("back", Bf16())))
    for model, name in ((served, "served"), (plain, "back")):
        model.load_folder(tmp_path / name)
    values = {item.name: item.tensor for item in plain.held()}
    for item in served.held():
        assert torch.equal(item.tensor.bfloat16(), values[item.name].bfloat16()), item.name
    assert set(values) == set(load_file(mixtral / "model.safetensors"))
    exact = torch.tensor(served.score(LONG)) - torch.tensor(plain.score(LONG))
    assert (exact.abs().max() > 1e-4) == (fmt.activation_group is not None), "FP8 rounds activations, INT4 does not"


def test_experts_kept_as_in_memory_are_the_same_model(mixtral: Path, tmp_path: Path) -> None:
    folder = tmp_path / "memory"
    model = tiny_model("mixtral", {})
    model.save_pretrained(folder, save_original_format=False)
    assert "model.layers.0.mlp.experts.gate_up_proj" in load_file(folder / "model.safetensors")
    scores = []
    for source in (mixtral, folder):
        served = ServedModel(source, Bf16(), shape(mixtral), "cpu")
        served.load_folder(source)
        scores.append(served.score(LONG))
    assert scores[0] == scores[1]


NOT_PROVEN = {
    "longest-of-a-batch": (
        {"rope_parameters": {"rope_type": "longrope", "rope_theta": 1e4}},
        r"rope_parameters\.rope_type: got 'longrope'",
    ),
    "of-one-kind-of-layer": (
        {"rope_parameters": {"full_attention": {"rope_type": "su"}}},
        r"rope_parameters\.full_attention\.rope_type: got 'su'",
    ),
    "both-ways": ({"use_bidirectional_attention": True}, "use_bidirectional_attention: got true"),
    "all-both-ways": ({"use_bidirectional_attention": "all"}, 'use_bidirectional_attention: got "all"'),
    "another-family": ({"model_type": "jamba"}, "model_type jamba cannot be trained here; model_types that can: llama"),
}


@pytest.mark.parametrize(("changes", "message"), NOT_PROVEN.values(), ids=NOT_PROVEN)
def test_what_was_not_proven_is_refused_by_key_for_training_alone(mixtral: Path, changes: dict[str, Any], message: str) -> None:
    config = json.loads((mixtral / "config.json").read_text())
    check_trainable(config, "config.json")
    with pytest.raises(UserError, match=message) as refused:
        check_trainable(config | changes, "config.json")
    assert refused.value.remedy and "lprl convert" in refused.value.remedy


def test_what_only_tokens_of_images_do_stands_against_no_training(mixtral: Path) -> None:
    config = json.loads((mixtral / "config.json").read_text())
    check_trainable(config | {"use_bidirectional_attention": "vision"}, "config.json")


def test_a_window_counts_from_each_rows_own_last_column() -> None:
    torch.manual_seed(0)
    q, k, v = torch.randn(2, 4, 1, 8), torch.randn(2, 2, 12, 8), torch.randn(2, 2, 12, 8)
    mask = torch.full((2, 1, 1, 12), float("-inf"))
    for row, seen in enumerate((11, 5)):
        mask[row, ..., :seen] = 0
    found, _ = served_attention(torch.nn.Module(), q, k, v, mask, sliding_window=4)
    for row, seen in enumerate((11, 5)):
        own = Attention().product(
            q[row : row + 1], k[row : row + 1, :, seen - 4 : seen], v[row : row + 1, :, seen - 4 : seen], torch.zeros(1, 4)
        )
        torch.testing.assert_close(found[row], own.transpose(1, 2)[0])


def test_sinks_and_caps_are_what_their_definition_says() -> None:
    torch.manual_seed(0)
    q, k, v, sinks = torch.randn(1, 2, 3, 8), torch.randn(1, 2, 5, 8), torch.randn(1, 2, 5, 8), torch.randn(2)
    found = Attention(softcap=2.0, sinks=sinks).product(q, k, v)
    for head in range(2):
        for query in range(3):
            seen = query + 3
            scores = 2.0 * torch.tanh(k[0, head, :seen] @ q[0, head, query] / 8**0.5 / 2.0)
            weights = torch.cat([scores, sinks[head, None]]).softmax(0)[:-1]
            torch.testing.assert_close(found[0, head, query], weights @ v[0, head, :seen])


def test_every_case_has_a_name_of_its_own() -> None:
    assert len({case.model_type for case in ALL}) == len(ALL)
