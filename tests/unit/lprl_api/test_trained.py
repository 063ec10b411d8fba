"""What a run's result follows from, as both sides compare it."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from lprl_api.derived.run_folder import changed_fields
from lprl_api.derived.trained import differences, trained_document
from lprl_api.rules.parse import parse_job

ROOT = Path(__file__).parents[3]


def changed(document: dict[str, Any], path: str, value: Any) -> dict[str, Any]:
    """Return the document with one dotted path set."""
    key, _, rest = path.partition(".")
    inner = changed(document.get(key) or {}, rest, value) if rest else value
    return {**document, key: inner}


MANIFEST = yaml.safe_load((ROOT / "examples/00-cpu-quickstart.yaml").read_text())


def trained(document: dict[str, Any] = MANIFEST) -> dict[str, Any]:
    return trained_document(parse_job(document).spec)


def test_a_default_and_its_omission_are_the_same() -> None:
    written = changed(MANIFEST, "spec.optimizer.beta1", 0.9)
    assert differences(trained(), trained(written)) == ()


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("algorithm.steps", 999),
        ("model.shape", "qwen3-4b"),
        ("failurePolicy.maxRestarts", 9),
        ("checkpoint.everySteps", 3),
        ("data.reward.timeoutSeconds", 7.5),
        ("data.reward.retries", 2),
    ],
)
def test_what_does_not_decide_the_result_is_left_out(path: str, value: Any) -> None:
    assert differences(trained(), trained(changed(MANIFEST, f"spec.{path}", value))) == ()


def test_a_rotated_secret_is_no_other_model() -> None:
    sources = [{"huggingFace": {"repo": "org/model", "tokenSecret": {"name": name, "key": "token"}}} for name in ("old", "new")]
    first, second = (trained(changed(MANIFEST, "spec.model.source", source)) for source in sources)
    assert differences(first, second) == ()
    other = trained(changed(MANIFEST, "spec.model.source", {"huggingFace": {"repo": "org/other"}}))
    assert differences(first, other) == ("model.source.huggingFace.repo",)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("optimizer.learningRate", 0.5),
        ("algorithm.seed", 5),
        ("algorithm.kl.coefficient", 0.25),
        ("sampling.topP", 0.5),
        ("precision.rollout", "bf16"),
        ("data.maxPromptTokens", 7),
        ("model.source.path", "another"),
    ],
)
def test_what_decides_the_result_is_named_by_its_path(path: str, value: Any) -> None:
    assert differences(trained(), trained(changed(MANIFEST, f"spec.{path}", value))) == (path,)


def test_a_key_that_one_side_lacks_is_a_difference() -> None:
    assert differences({"a": None}, {}) == ("a",)


TOOL = {"name": "t", "url": "https://t/x", "description": "d", "parameters": {"type": "object"}}
TOOLS = {"type": "tools", "tools": [TOOL]}


def test_run_folders_of_before_there_were_episodes_go_on() -> None:
    before = {part: value for part, value in trained().items() if part != "episode"}
    assert changed_fields(before, trained()) == ()
    assert changed_fields(before, trained(changed(MANIFEST, "spec.episode", TOOLS))) != ()


def test_what_an_episode_is_decides_the_result_and_patience_with_tools_does_not() -> None:
    first = trained(changed(MANIFEST, "spec.episode", TOOLS))
    assert differences(trained(), first) == ("episode.tools", "episode.type")
    patient = {**TOOL, "retries": 5, "timeoutSeconds": 3, "headersSecret": {"name": "s", "key": "k"}}
    changes = {"type": "tools", "tools": [patient], "timeoutSeconds": 5, "maxFailedFraction": 1.0}
    assert differences(first, trained(changed(MANIFEST, "spec.episode", changes))) == ()
    assert differences(first, trained(changed(MANIFEST, "spec.episode", {"type": "tools", "tools": [{**TOOL, "name": "u"}]}))) == (
        "episode.tools",
    )
