"""Files of prompts that are not what they should be: refused at the start, with file, row and key."""

import datetime
import json
import logging
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lprl_api.errors import UserError
from lprl_api.spec.algorithm import Data
from lprl_fixtures.tokenizer import build_tokenizer
from lprl_workload.rollout.dataset import PromptDataset
from lprl_workload.rollout.rows import read_rows

TOKENIZER = build_tokenizer()
GOOD = b'{"prompt": "a", "label": "1"}\n'


def load(path: Path, context: int | None = None, response: int = 1, **more: Any) -> PromptDataset:
    data = {"prompts": {"volume": "v", "path": "p"}, "reward": {"type": "exact"}, "shuffle": False, **more}
    return PromptDataset(path, Data.model_validate(data), TOKENIZER, 0, context=context, response=response)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        pytest.param(b'{"prompt": "a\xff", "label": "1"}', "row 1: not UTF-8 .byte 0xff at byte 13", id="not-utf-8"),
        pytest.param(b'{"prompt": "a", "label": "1", "label": "2"}', "row 1: key 'label' is there twice", id="twice"),
        pytest.param(b'{"prompt": "a", "label": "1", "metadata": {"x": 1, "x": 2}}', "key 'x' is there twice", id="twice-inside"),
        pytest.param(b'{"prompt": "a", "label": ' + b"1" * 5000 + b"}", "row 1: not JSON .a number of 5000 digits: write", id="digits"),
        pytest.param(b'{"prompt": "a", "label": NaN}', "row 1 key 'label': found nan, needs a finite number", id="nan-label"),
        pytest.param(b'{"prompt": NaN, "label": "1"}', "row 1 key 'prompt': found a float", id="nan-prompt"),
        pytest.param(b'{"prompt": "a\\ud800", "label": "1"}', r"row 1 key 'prompt', content: lone surrogate \\ud800", id="surrogate"),
        pytest.param(b'{"prompt": "a", "label": "\\udfff"}', r"row 1 key 'label': lone surrogate", id="surrogate-in-the-label"),
        pytest.param(
            b'{"prompt": "a", "label": "1", "metadata": {"t": ["\\ud83d"]}}', "key 'metadata', t: lone surrogate", id="in-the-metadata"
        ),
        pytest.param(b'{"prompt": "a", "label": "1"', "row 1: not JSON", id="cut-off"),
        pytest.param(b"[" * 100_000, "row 1: not JSON", id="too-deep"),
        pytest.param(b"null", "row 1: found nothing, needs a JSON object", id="null"),
        pytest.param(b'{"prompt": "", "label": "1"}', "row 1 key 'prompt': empty prompt", id="empty-prompt"),
        pytest.param(b'{"prompt": " \\n\\t", "label": "1"}', "row 1 key 'prompt': empty prompt", id="blank-prompt"),
        pytest.param(b'{"prompt": null, "label": "1"}', "row 1 key 'prompt': found nothing", id="null-prompt"),
        pytest.param("\u00a0".encode(), "row 1: not JSON", id="no-break-space"),
    ],
)
def test_a_line_that_is_no_row_is_refused_with_its_place(tmp_path: Path, line: bytes, words: str) -> None:
    (tmp_path / "p.jsonl").write_bytes(GOOD + line + b"\n")
    with pytest.raises(UserError, match=words) as caught:
        load(tmp_path / "p.jsonl")
    assert str(tmp_path / "p.jsonl") in caught.value.message and "\n" not in caught.value.message


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(b"\xef\xbb\xbf" + GOOD, id="byte-order-mark"),
        pytest.param(b"\xef\xbb\xbf\n" + GOOD, id="mark-on-a-line-of-its-own"),
        pytest.param(GOOD.replace(b"\n", b"\r\n"), id="windows-line-ends"),
        pytest.param(b"\n  \t\n" + GOOD + b"\n", id="blank-lines"),
        pytest.param(GOOD.strip(), id="no-last-line-end"),
        pytest.param('{"prompt": "a", "label": "1", "other": "\u2028"}'.encode(), id="line-separator-in-a-text"),
        pytest.param(b'{"prompt": "a", "label": "1", "other": "\\ud800"}', id="surrogate-where-nobody-looks"),
        pytest.param(b'{"prompt": "a", "label": "1", "other": NaN}', id="nan-where-nobody-looks"),
    ],
)
def test_harmless_differences_are_read(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "p.jsonl").write_bytes(content)
    assert [p.label for p in load(tmp_path / "p.jsonl").all()] == ["1"]


def test_files_of_another_kind_say_what_they_are(tmp_path: Path) -> None:
    (tmp_path / "p.jsonl").write_text(GOOD.decode(), encoding="utf-16")
    with pytest.raises(UserError, match="UTF-16 mark, needs UTF-8"):
        load(tmp_path / "p.jsonl")
    (tmp_path / "folder.jsonl").mkdir()
    with pytest.raises(UserError, match=r"folder\.jsonl: a folder"):
        load(tmp_path / "folder.jsonl")
    (tmp_path / "empty.jsonl").write_text("\n")
    with pytest.raises(UserError, match="no prompt left of 0 rows"):
        load(tmp_path / "empty.jsonl")
    (tmp_path / "P.JSONL").write_bytes(GOOD)
    assert len(load(tmp_path / "P.JSONL")) == 1


@pytest.mark.parametrize(
    ("column", "words"),
    [
        pytest.param(pa.array([b"a"], pa.binary()), "row 0 key 'prompt': found a bytes", id="binary"),
        pytest.param(pa.array([datetime.datetime(2024, 1, 1)], pa.timestamp("us")), "found a datetime", id="timestamp"),
        pytest.param(
            pa.array([2**62], pa.timestamp("us")), "row 0 key 'prompt': a timestamp.* cannot be read", id="timestamp-out-of-range"
        ),
        pytest.param(pa.array([[("role", "user")]], pa.map_(pa.string(), pa.string())), "found a mapping", id="map"),
        pytest.param(pa.array([[{"role": "user", "content": b"x"}]]), "message 0: content is a bytes", id="bytes-in-a-message"),
        pytest.param(pa.array([1.5]), "found a float", id="float"),
        pytest.param(pa.array([None], pa.null()), "found nothing", id="null"),
        pytest.param(pa.array([[]], pa.list_(pa.string())), "found an empty list", id="empty-list"),
        pytest.param(pa.array([b"\xff"], pa.binary()).view(pa.string()), "row 0 key 'prompt': not UTF-8", id="not-utf-8"),
    ],
)
def test_columns_of_odd_types_are_named(tmp_path: Path, column: pa.Array, words: str) -> None:
    pq.write_table(pa.table({"prompt": column, "label": ["1"]}), tmp_path / "p.parquet")
    with pytest.raises(UserError, match=words):
        load(tmp_path / "p.parquet")


def test_metadata_goes_to_a_service_only_as_json_has_it(tmp_path: Path) -> None:
    remote = {"reward": {"type": "remote", "url": "http://x"}}
    rows = [{"prompt": "a", "label": "1", "metadata": {"n": float("nan"), "b": b"x"}}]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "p.parquet")
    with pytest.raises(UserError, match="row 0 key 'metadata', b: found a bytes, needs what JSON can hold"):
        load(tmp_path / "p.parquet", **remote)
    assert load(tmp_path / "p.parquet").all()[0].metadata["b"] == b"x"


def test_a_prompt_longer_than_the_context_is_found_at_the_start(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "p.jsonl"
    path.write_text("".join(json.dumps({"prompt": "a" * n, "label": "1"}) + "\n" for n in (1, 30, 5)))
    # <|user|>, the text, <|assistant|>: 32 tokens
    with pytest.raises(UserError) as caught:
        load(path, context=32, response=8)
    assert caught.value.message == f"{path} row 1 key 'prompt': a prompt of 32 tokens leaves no room for a response in a context of 32"
    assert "data.maxPromptTokens (at most 24 with a whole response)" in caught.value.remedy
    with pytest.raises(UserError, match="context of 32"):
        load(path, context=32, response=100)
    assert len(load(path, context=32, response=8, max_prompt_tokens=24)) == 2
    with caplog.at_level(logging.WARNING):
        assert len(load(path, context=33, response=8)) == 3
    assert "1 of 3 prompts leave less than maxResponseTokens (8) in a context of 33" in caplog.text and "25 would" in caplog.text
    caplog.clear()
    assert len(load(path, context=40, response=8)) == 3 and not caplog.text


def test_only_prompts_that_can_be_too_long_are_tokenised_for_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, seen = tmp_path / "p.jsonl", []
    path.write_text("".join(json.dumps({"prompt": "a" * n, "label": "1"}) + "\n" for n in (1, 200, 5, 300) * 600))
    monkeypatch.setattr(
        type(TOKENIZER), "__call__", lambda self, texts, **more: (seen.append(len(texts)), {"input_ids": [[0] * len(t) for t in texts]})[1]
    )
    dataset = load(path, context=1000, response=800)
    assert sum(seen) == 1200 and max(seen) == 1024 and len(dataset) == 2400


def test_large_parquet_groups_are_read_a_batch_at_a_time_and_the_log_tells_of_it(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lprl_workload.rollout.rows.REPORT_ROWS", 1000)
    pq.write_table(pa.table({"prompt": [f"q{n}" for n in range(3000)]}), tmp_path / "p.parquet", row_group_size=2500)
    with caplog.at_level(logging.INFO):
        found = list(read_rows(tmp_path / "p.parquet", ("prompt",), 900, 2600))
    assert found == [(n, {"prompt": f"q{n}"}) for n in range(900, 2600)]
    assert "1000 rows read" in caplog.text


def test_a_column_name_that_is_there_twice_is_refused(tmp_path: Path) -> None:
    table = pa.table([pa.array(["a"]), pa.array(["b"])], names=["prompt", "prompt"])
    pq.write_table(table, tmp_path / "p.parquet")
    with pytest.raises(UserError, match="column 'prompt' is there twice"):
        load(tmp_path / "p.parquet")
