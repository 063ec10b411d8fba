"""Special tokens: prompts get those the tokenizer or the template places, once; rewards see those that say something."""

import json
from pathlib import Path
from typing import Any

import pytest
from tokenizers import AddedToken
from tokenizers.processors import TemplateProcessing
from transformers import PreTrainedTokenizerFast

from lprl_api.spec.algorithm import Data, Reward
from lprl_fixtures.tokenizer import build_tokenizer
from lprl_workload.rollout.dataset import PromptDataset
from lprl_workload.rollout.decode import response_decoder
from lprl_workload.rollout.reward import RewardItem, make_scorer


def with_bos(single: str = "<s> $A") -> PreTrainedTokenizerFast:
    """Return a tokenizer that puts `<s>` before a text (and `<|end|>` behind it, if `single` says so)."""
    tokenizer = build_tokenizer()
    tokenizer.add_special_tokens({"bos_token": "<s>"})
    ids = [(token, tokenizer.convert_tokens_to_ids(token)) for token in ("<s>", "<|end|>")]
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(single=single, special_tokens=ids)
    return tokenizer


def prompt_of(folder: Path, tokenizer: Any, text: str, **settings: Any) -> str:
    (folder / "p.jsonl").write_text(json.dumps({"prompt": text, "label": "1"}) + "\n")
    data = Data.model_validate({"prompts": {"volume": "v", "path": "p"}, "reward": {"type": "exact"}, **settings})
    return str(tokenizer.decode(PromptDataset(folder / "p.jsonl", data, tokenizer, 0).all()[0].token_ids))


@pytest.mark.parametrize(
    ("single", "text", "tokens"),
    [
        pytest.param("<s> $A", "abc", "<s>abc", id="as-the-tokenizer-does"),
        pytest.param("<s> $A", "<s>abc", "<s>abc", id="written-out-already"),
        pytest.param("<s> $A <|end|>", "abc", "<s>abc", id="an-end-would-end-the-prompt"),
        pytest.param("$A", "abc", "abc", id="a-tokenizer-without"),
    ],
)
def test_a_prompt_without_template_begins_as_the_tokenizer_has_it(tmp_path: Path, single: str, text: str, tokens: str) -> None:
    assert prompt_of(tmp_path, with_bos(single), text, apply_chat_template=False) == tokens


def test_a_template_places_the_beginning_itself(tmp_path: Path) -> None:
    tokenizer = with_bos()
    assert tokenizer.decode(tokenizer("a")["input_ids"]) == "<s>a"
    assert prompt_of(tmp_path, tokenizer, "abc") == "<|user|>abc<|assistant|>"
    tokenizer.chat_template = "{{ bos_token }}" + tokenizer.chat_template
    assert prompt_of(tmp_path, tokenizer, "abc") == "<s><|user|>abc<|assistant|>"


def with_marks(special: bool, *marks: str) -> PreTrainedTokenizerFast:
    tokenizer = build_tokenizer()
    tokenizer.add_tokens([AddedToken(mark, special=special, normalized=False) for mark in marks], special_tokens=special)
    return tokenizer


END = frozenset({1})


def said(tokenizer: Any, text: str, stop: tuple[str, ...] = ()) -> str:
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    return response_decoder(tokenizer, END, [tokenizer.convert_tokens_to_ids(token) for token in stop])(ids)


MARKS = ("<think>", "</think>", "[THINK]", "[/THINK]", "<answer>", "</answer>", "<tool_call>", "<|channel|>", "<|im_end|>", "<|eot|>")


@pytest.mark.parametrize("special", [True, False], ids=["special", "added-text"])
@pytest.mark.parametrize(
    ("text", "stop", "seen"),
    [
        pytest.param("<think>1</think>7<|end|>", (), "<think>1</think>7", id="think"),
        pytest.param("[THINK]1[/THINK]7<|end|>", (), "[THINK]1[/THINK]7", id="brackets"),
        pytest.param("<|channel|>a 7<|endoftext|><|endoftext|>", (), "<|channel|>a 7", id="padding"),
        pytest.param("<answer>7</answer>", ("</answer>",), "<answer>7</answer>", id="a-closing-mark-that-ends-it"),
        pytest.param("7<tool_call>x", (), "7<tool_call>x", id="tool-call"),
        pytest.param("7 . 8 ", (), "7 . 8 ", id="no-clean-up"),
        pytest.param("<|user|>7", (), "<|user|>7", id="what-it-should-not-have-written"),
    ],
)
def test_rewards_see_what_was_said_and_not_what_ended_it(special: bool, text: str, stop: tuple[str, ...], seen: str) -> None:
    assert said(with_marks(special, *MARKS), text, stop) == seen


def test_a_special_stop_token_of_the_job_is_no_part_of_the_answer() -> None:
    assert said(with_marks(True, *MARKS), "7<|im_end|>", ("<|im_end|>",)) == "7"
    assert said(with_marks(True, *MARKS), "7<|im_end|>8") == "7<|im_end|>8"


def plain_text_marks() -> PreTrainedTokenizerFast:
    """Return a tokenizer that writes `</think>` character by character."""
    tokenizer = build_tokenizer()
    tokenizer.add_tokens([AddedToken(character, normalized=False) for character in "<>/"])
    return tokenizer


@pytest.mark.parametrize("form", ["special", "added-text", "plain"])
def test_deepscaler_sees_the_end_of_reasoning_however_the_tokenizer_writes_it(form: str) -> None:
    tokenizer = with_marks(form == "special", "<think>", "</think>") if form != "plain" else plain_text_marks()
    text = said(tokenizer, "<think>8</think>7<|end|>")
    assert text == "<think>8</think>7"
    tokenizer.add_tokens([AddedToken(text, normalized=False) for text in (r"\boxed{", "}")])
    scorer = make_scorer(Reward(type="deepscaler"))
    assert scorer.score([RewardItem("p", said(tokenizer, rf"<think>8</think>\boxed{{{n}}}<|end|>"), "7") for n in (7, 8)]) == [1, 0]
    scorer.close()
