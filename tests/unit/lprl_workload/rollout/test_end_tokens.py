"""The ids that end a response, from a folder's own files."""

import json
from pathlib import Path
from types import SimpleNamespace

import pytest

from lprl_api.errors import UserError
from lprl_workload.rollout.end_tokens import end_token_ids

NONE = SimpleNamespace(eos_token_id=None)


def test_generation_config_decides_before_config_and_the_tokenizer_adds_its_own(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"eos_token_id": 1}))
    assert end_token_ids(tmp_path, NONE) == {1}
    (tmp_path / "generation_config.json").write_text(json.dumps({"eos_token_id": [2, 3]}))
    assert end_token_ids(tmp_path, SimpleNamespace(eos_token_id=7)) == {2, 3, 7}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[" * 100_000, "generation_config.json: not valid JSON"),
        ("[1]", "generation_config.json: needs a JSON object, found list"),
        ('{"eos_token_id": "</s>"}', "generation_config.json: eos_token_id is '</s>', needs a token id"),
        ("{}", "no end token"),
    ],
    ids=["nested too deeply", "no object", "a word", "none"],
)
def test_what_is_not_an_id_is_told_with_its_file(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "generation_config.json").write_text(text)
    with pytest.raises(UserError, match=said):
        end_token_ids(tmp_path, NONE)
