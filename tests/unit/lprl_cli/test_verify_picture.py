"""`lprl verify --picture`: the option is taken out of what the workload gets, and the figures become a picture that stands alone."""

import json
from pathlib import Path
from typing import Any

import pytest

from lprl_api.errors import UserError
from lprl_cli.commands import verify
from lprl_cli.commands.verify import draw, given_json, taken

ANSWERS: dict[str, Any] = {
    "sensitivity": {"parts": [{"layer": n, "part": part, "recovered": n / 10} for n in range(3) for part in ("layer", "attention", "mlp")]}
}


def test_the_picture_is_taken_out_of_the_workloads_options() -> None:
    assert taken(["F", "--picture", "l.svg", "--top", "3"]) == (Path("l.svg"), ["F", "--top", "3"])
    assert taken(["F", "--picture=l.svg"]) == (Path("l.svg"), ["F"])
    assert taken(["F"]) == (None, ["F"])
    assert given_json(["F", "--json=f.json"]) == given_json(["F", "--json", "f.json"]) == Path("f.json")
    with pytest.raises(UserError, match="--picture: needs a file"):
        taken(["F", "--picture"])


def test_a_picture_says_what_its_lines_are(tmp_path: Path) -> None:
    draw(ANSWERS, tmp_path / "l.svg")
    svg = (tmp_path / "l.svg").read_text()
    assert svg.startswith("<svg xmlns=") and "var(--" not in svg
    for word in ("whole layer", "attention", "MLP or experts", "brought back"):
        assert f">{word}" in svg or f"{word} by" in svg, word
    with pytest.raises(UserError, match="no sensitivity was measured"):
        draw({"sensitivity": None}, tmp_path / "none.svg")


def test_the_figures_are_the_workloads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    def workload(name: str, arguments: list[str]) -> int:
        calls.append((name, arguments))
        Path(arguments[-1]).write_text(json.dumps({"answers": ANSWERS}))
        return 3

    monkeypatch.setattr(verify, "pass_through", workload)
    assert verify.verify(["F", "--picture", str(tmp_path / "l.svg")]) == 3, "the workload's own exit code"
    assert [(name, arguments[:2]) for name, arguments in calls] == [("verify", ["F", "--json"])]
    assert (tmp_path / "l.svg").is_file()
    with pytest.raises(UserError, match=r"ends in \.svg"):
        verify.verify(["F", "--picture", str(tmp_path / "l.png")])
