"""Labels and the keys they stand under: what a reward compares with is what the row says, or the row is refused."""

import datetime
import json
import re
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lprl_api.errors import UserError
from lprl_api.spec.algorithm import Data, Reward
from lprl_fixtures.tokenizer import build_tokenizer
from lprl_workload.rollout.dataset import PromptDataset
from lprl_workload.rollout.labels import label_of
from lprl_workload.rollout.reward import RewardItem, make_scorer

TOKENIZER = build_tokenizer()


def load(path: Path, rows: list[Any], **more: Any) -> PromptDataset:
    if path.suffix == ".parquet":
        pq.write_table(rows if isinstance(rows, pa.Table) else pa.Table.from_pylist(rows), path)
    else:
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    data = {"prompts": {"volume": "v", "path": "p"}, "reward": {"type": "exact"}, "shuffle": False, **more}
    return PromptDataset(path, Data.model_validate(data), TOKENIZER, 0)


@pytest.mark.parametrize(
    ("value", "reward", "label"),
    [
        pytest.param("7", "exact", "7", id="text"),
        pytest.param(["7"], "exact", "7", id="list-of-one"),
        pytest.param(["7", "seven", "7"], "math", ("7", "seven"), id="list-is-any-of"),
        pytest.param([1, 2.5], "dapo", ("1", "2.5"), id="list-of-numbers"),
        pytest.param(7, "exact", "7", id="int"),
        pytest.param(10**400 + 7, "math", str(10**400 + 7), id="int-beyond-floats"),
        pytest.param(7.0, "exact", "7", id="whole-float-as-pandas-makes-of-ints"),
        pytest.param(-0.5, "exact", "-0.5", id="float"),
        pytest.param(1e-7, "exact", "0.0000001", id="no-exponent"),
        pytest.param(1e22, "exact", "10000000000000000000000", id="large-float"),
        pytest.param(10**30, "exact", str(10**30), id="huge-int"),
        pytest.param(Decimal("7.00"), "exact", "7", id="decimal-whole"),
        pytest.param(Decimal("1.50"), "math", "1.5", id="decimal"),
        pytest.param('["7", "8"]', "math", ("7", "8"), id="json-text-of-a-list-for-math"),
        pytest.param('["7", "8"]', "exact", '["7", "8"]', id="json-text-is-text-for-exact"),
        pytest.param("24 + 48 = <<24+48=72>>72 clips.\n#### 72", "dapo", "72", id="gsm8k-solution"),
        pytest.param("#### 1,000", "math", "1,000", id="gsm8k-last-line"),
        pytest.param("#### 72", "exact", "#### 72", id="exact-is-as-written"),
        pytest.param("[1, 2]", "math", "[1, 2]", id="an-interval-is-an-answer"),
        pytest.param("{1, 2}", "math", "{1, 2}", id="a-set-is-an-answer"),
        pytest.param({"a": [1]}, "python", '{"a": [1]}', id="mapping-for-a-function-is-json"),
        pytest.param([1, "x"], "remote", '[1, "x"]', id="list-for-a-service-is-json"),
        pytest.param(True, "python", "true", id="bool-for-a-function"),
        pytest.param(None, "python", None, id="none-for-a-function"),
        pytest.param(float("nan"), "python", None, id="nan-is-nothing"),
        pytest.param(datetime.date(2024, 1, 2), "python", "2024-01-02", id="date-for-a-function"),
    ],
)
def test_a_label_is_what_the_row_says(value: Any, reward: str, label: Any) -> None:
    assert label_of(value, "row", "label", reward) == label


def test_a_label_too_deep_to_read_is_told_with_row_and_key() -> None:
    deep: list[Any] = [1]
    for _ in range(2000):
        deep = [deep]
    with pytest.raises(UserError, match=r"^p.jsonl row 3 key 'label': nested too deep$"):
        label_of(deep, "p.jsonl row 3 key 'label'", "label", "python")


@pytest.mark.parametrize(
    ("value", "words"),
    [
        pytest.param({"ground_truth": "7", "style": "rule"}, "a mapping.*labelKey label.ground_truth or label.style", id="mapping"),
        pytest.param({"a": {"answer": 1}}, "labelKey label.a.answer", id="mapping-in-a-mapping"),
        pytest.param('{"style": "r", "ground_truth": "7"}', "a mapping.*labelKey label.ground_truth or", id="json-text-of-a-mapping"),
        pytest.param([], "an empty list", id="empty-list"),
        pytest.param([["7"]], "entry 0 of its list: found a list", id="nested-list"),
        pytest.param(["7", None], "entry 1 of its list: found nothing", id="null-in-a-list"),
        pytest.param([{"a": 1}], "entry 0 of its list: found a mapping", id="mapping-in-a-list"),
        pytest.param(True, "found true, needs text", id="bool"),
        pytest.param([False], "entry 0 of its list: found false", id="bool-in-a-list"),
        pytest.param(float("nan"), "found nan, needs a finite number", id="nan"),
        pytest.param(float("inf"), "found inf, needs a finite number", id="infinite"),
        pytest.param(Decimal("NaN"), "found NaN, needs a finite number", id="decimal-nan"),
        pytest.param(b"7", "found a bytes", id="bytes"),
        pytest.param(datetime.date(2024, 1, 2), "found a date", id="date"),
        pytest.param(" \n", "empty, reward 'math' could only be 0", id="blank"),
        pytest.param("7\ud83d", r"lone surrogate \\ud83d at character 1", id="surrogate"),
    ],
)
def test_a_label_that_no_response_can_equal_is_refused_with_what_fits(value: Any, words: str) -> None:
    with pytest.raises(UserError) as caught:
        label_of(value, "p.jsonl row 3 key 'label'", "label", "math")
    text = f"{caught.value.message}; {caught.value.remedy}"
    assert re.search(words, text) and text.startswith("p.jsonl row 3 key 'label'"), text


@pytest.mark.parametrize(
    ("reward", "responses", "rewards"),
    [
        ("exact", ["7", "seven", "8"], [1, 1, 0]),
        ("math", [r"\boxed{7}", r"\boxed{9}", r"\boxed{8}"], [1, 1, 0]),
        ("deepscaler", [r"</think>\boxed{7}", r"\boxed{7}", r"</think>\boxed{9}"], [1, 0, 1]),
        ("dapo", ["Answer: 7", "Answer: 9", "Answer: 8"], [1, 1, -1]),
    ],
)
def test_of_several_labels_any_is_right(reward: str, responses: list[str], rewards: list[float]) -> None:
    labels = ("7", "seven") if reward == "exact" else ("7", "9")
    scorer = make_scorer(Reward(type=reward))
    items = [RewardItem("p", response, labels) for response in responses]
    assert scorer.score([*items, RewardItem("p", "none", "5")])[:3] == rewards
    scorer.close()


VERL = {"prompt": "a", "reward_model": {"ground_truth": "7", "style": "rule"}, "extra_info": {"index": 3, "split": "x"}}


@pytest.mark.parametrize("suffix", ["jsonl", "parquet"])
def test_nested_keys_can_be_named_wherever_a_key_is(tmp_path: Path, suffix: str) -> None:
    row = {**VERL, "data": {"q": {"text": "b"}}, "x": {"tools": [{"name": "t"}]}}
    keys = {"prompt_key": "data.q.text", "label_key": "reward_model.ground_truth", "metadata_key": "x"}
    found = load(tmp_path / f"p.{suffix}", [row], **keys).all()[0]
    assert "b" in found.text and found.label == "7" and found.metadata == {"tools": [{"name": "t"}]}
    assert found.origin == f"{tmp_path / f'p.{suffix}'} row 0"


@pytest.mark.parametrize(
    ("row", "label"),
    [
        pytest.param({"prompt": "a", "m.k": "1", "m": {"k": "2"}}, "1", id="the-literal-column-wins"),
        pytest.param({"prompt": "a", "m": {"x": 1, "k": "2"}}, "2", id="nested"),
        pytest.param({"prompt": "a", "m": json.dumps({"k": "3"})}, "3", id="json-text-of-a-mapping"),
    ],
)
@pytest.mark.parametrize("suffix", ["jsonl", "parquet"])
def test_a_dotted_key_is_a_column_or_a_key_inside_one(tmp_path: Path, row: dict[str, Any], label: str, suffix: str) -> None:
    assert load(tmp_path / f"p.{suffix}", [row], label_key="m.k").all()[0].label == label


@pytest.mark.parametrize("suffix", ["jsonl", "parquet"])
@pytest.mark.parametrize(
    ("settings", "words"),
    [
        pytest.param(
            {"prompt_key": "question"}, "no key 'question'.*extra_info.index, extra_info.split, prompt, reward_model", id="prompt"
        ),
        pytest.param({"label_key": "answer"}, "no value under 'answer'.*keys found: .*reward_model.ground_truth", id="label"),
        pytest.param({"label_key": "reward_model.answer"}, "'reward_model.answer'.*keys found: .*reward_model.ground_truth", id="nested"),
        pytest.param({"label_key": None}, "labelKey is null", id="null"),
        pytest.param(
            {"label_key": "reward_model.ground_truth", "metadata_key": "info"}, "no row has the key 'info' .data.metadataKey", id="metadata"
        ),
        pytest.param(
            {"label_key": "reward_model.ground_truth", "tools_key": "tols"}, "the key 'tols'.*found: extra_info.index", id="tools"
        ),
        pytest.param(
            {"label_key": "gt", "reward": {"type": "python", "function": "m:f"}},
            "no row has the key 'gt' .data.labelKey",
            id="unneeded-label",
        ),
    ],
)
def test_a_missing_column_lists_the_columns_there_are(tmp_path: Path, suffix: str, settings: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError, match=words):
        load(tmp_path / f"p.{suffix}", [VERL], **settings)


@pytest.mark.parametrize("suffix", ["jsonl", "parquet"])
def test_a_key_that_only_unused_rows_have_is_one_of_the_file(tmp_path: Path, suffix: str) -> None:
    rows = [{"prompt": "a", "label": "1", "info": {"k": 1}}, {"prompt": "b", "label": "2"}]
    part = {"prompts": {"volume": "v", "path": "p", "firstRow": 1}, "metadata_key": "info"}
    assert load(tmp_path / f"p.{suffix}", rows, **part).all()[0].metadata == {}
    with pytest.raises(UserError, match="no row has the key 'infos'"):
        load(tmp_path / f"p.{suffix}", rows, **part | {"metadata_key": "infos"})


def test_numbers_of_parquet_are_what_was_written(tmp_path: Path) -> None:
    columns = {
        "single": pa.array([0.1], pa.float32()),
        "half": pa.array([0.5], pa.float16()),
        "price": pa.array([Decimal("3.10")], pa.decimal128(9, 2)),
        "named": pa.array(["7"]).dictionary_encode(),
        "several": pa.array([[0.1, 2.0]], pa.list_(pa.float32())),
        "mapped": pa.array([[("k", "9")]], pa.map_(pa.string(), pa.string())),
    }
    table = pa.table({"prompt": ["a"], **columns})
    wanted = {"single": "0.1", "half": "0.5", "price": "3.1", "named": "7", "several": ("0.1", "2"), "mapped.k": "9"}
    found = {key: load(tmp_path / "p.parquet", table, label_key=key).all()[0].label for key in wanted}
    assert found == wanted
