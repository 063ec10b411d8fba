"""Manifests: lines of fields, refusals."""

from pathlib import Path

import pytest

from lprl_api.errors import UserError
from lprl_cli.manifest import load, load_one

TEXT = """\
apiVersion: lprl.dev/v1alpha1
kind: LowPrecisionRLJob
metadata: {name: toy}
spec:
  algorithm:
    steps: 3
  evaluation:
    passAt:
    - 1
    - 2
"""


@pytest.mark.parametrize(
    ("path", "line"),
    [
        pytest.param("spec.algorithm.steps", 6, id="field"),
        pytest.param("spec.evaluation.passAt[1]", 10, id="list-item"),
        pytest.param("metadata.name", 3, id="flow-mapping"),
        pytest.param("spec.algorithm.clip.low", 5, id="absent-field-is-at-its-parent"),
        pytest.param("spec.evaluation.passAt[7]", 8, id="absent-item-is-at-its-list"),
        pytest.param("nothing", 1, id="unknown-is-at-the-top"),
    ],
)
def test_where(tmp_path: Path, path: str, line: int) -> None:
    file = tmp_path / "job.yaml"
    file.write_text(TEXT)
    assert load_one(str(file)).where(path) == f"{file}:{line}"


BAD = [
    pytest.param("a: 1\na: 2\n", ":2: a is there twice", id="duplicate-key"),
    pytest.param("a: [1\nb: 2\n", ":2: ", id="broken-yaml-names-the-line"),
    pytest.param("- 1\n", ":1: a list, need a mapping", id="not-a-mapping"),
    pytest.param("apiVersion: v1\nkind: ConfigMap\n", "no LowPrecisionRLJob in it", id="another-kind"),
    pytest.param("", "no LowPrecisionRLJob in it", id="empty"),
    pytest.param("a: &a [*a]\n", ":1: more than 64 levels deep, or an alias inside itself", id="alias-of-itself"),
    pytest.param("[" * 5000, "", id="deep"),
    pytest.param(f"a: {'9' * 5000}\n", ":1: Exceeds the limit", id="thousands-of-digits"),
    pytest.param("a: !!int x\n", ":1: invalid literal", id="tag-does-not-fit"),
    pytest.param("x: !!python/object/apply:os.system [ls]\n", "list", id="no-python-objects"),
]


@pytest.mark.parametrize(("text", "message"), BAD)
def test_refused(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "job.yaml"
    file.write_text(text)
    if "python/object" in text:  # a foreign tag is data at most, never executed
        assert load(str(file))[0].document["x"] == ["ls"]
        return
    with pytest.raises(UserError) as error:
        load(str(file))
    assert message in error.value.message


def test_aliases_cannot_grow_without_bound(tmp_path: Path) -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 8)]
    file = tmp_path / "bomb.yaml"
    file.write_text("\n".join(lines))
    with pytest.raises(UserError, match="once aliases are expanded"):
        load(str(file))


def test_several_jobs_need_a_name(tmp_path: Path) -> None:
    file = tmp_path / "two.yaml"
    file.write_text(f"{TEXT}---\n{TEXT.replace('toy', 'other')}---\nkind: Service\napiVersion: v1\n")
    assert [m.document["metadata"]["name"] for m in load(str(file))] == ["toy", "other"]
    with pytest.raises(UserError, match="2 jobs"):
        load_one(str(file))
    assert load_one(str(file), "other").where("spec") == f"{file}:15"


def test_missing_file_says_so() -> None:
    with pytest.raises(UserError, match="No such file"):
        load("/no/such/file.yaml")


@pytest.mark.parametrize(
    ("text", "value"),
    [
        pytest.param("1e-3", 0.001, id="no-dot"),
        pytest.param("1.5e3", 1500, id="no-sign"),
        pytest.param("1.0e-3", 0.001, id="dot-and-sign"),
        pytest.param("-.5e-1", -0.05, id="no-leading-digit"),
        pytest.param("3.0", 3, id="whole"),
        pytest.param("'1e-3'", "1e-3", id="quoted"),
        pytest.param("12:30", "12:30", id="no-base-60"),
        pytest.param("1e", "1e", id="no-exponent"),
        pytest.param("2026-01-01", "2026-01-01", id="no-date"),
        pytest.param("on", True, id="switch"),
    ],
)
def test_scalars_are_read_as_kubernetes_reads_them(tmp_path: Path, text: str, value: object) -> None:
    file = tmp_path / "job.yaml"
    file.write_text(f"{TEXT}x: {text}\n")
    found = load_one(str(file)).document["x"]
    assert (found, type(found)) == (value, type(value))
