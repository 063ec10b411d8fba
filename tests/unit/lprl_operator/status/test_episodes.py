"""What became of a step's episodes, in one bounded line of the status."""

from lprl_api.wire.progress import EpisodeReport
from lprl_operator.status.episodes import LONGEST, told


def test_failed_episodes_calls_and_the_first_reasons_are_told() -> None:
    report = EpisodeReport(
        drawn=64, failed=3, aborted=1, turns=2.13, calls={"ok": 120, "failed": 3}, failures=("prompt 7, sample 1: tool t: x",)
    )
    assert told(report) == (
        "3 of 64 failed, 1 aborted; 2.1 turns; tool calls: 120 ok, 3 failed; first failures: prompt 7, sample 1: tool t: x"
    )
    assert told(EpisodeReport(drawn=64, turns=1.5)) == "0 of 64 failed; 1.5 turns"
    assert told(None) is None


def test_the_line_is_bounded() -> None:
    report = EpisodeReport(drawn=64, failed=3, failures=tuple("é" * 900 for _ in range(3)))
    assert len(told(report) or "") <= LONGEST
