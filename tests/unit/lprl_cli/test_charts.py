"""Charts: round ticks that enclose the data, gaps, logs, accessible names."""

import math
import xml.etree.ElementTree as ElementTree

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from lprl_cli.report.charts import MAX_POINTS, Series, bar, line_chart, linear_axis, log_axis, thin, tick_text

finite = st.floats(-1e6, 1e6, allow_nan=False)


@given(finite, st.floats(1e-6, 1e6))
@example(879609.9999999999, 1e-06)  # the data differ from the tick by the last bit of a float
def test_linear_axis_encloses_its_data(low: float, span: float) -> None:
    axis = linear_axis(low, low + span)
    slack = max((axis.high - axis.low) * 1e-6, 2 * math.ulp(max(abs(low), abs(low + span))))
    assert axis.low <= low + slack and axis.high >= low + span - slack
    assert 2 <= len(axis.ticks) <= 12
    assert list(axis.ticks) == sorted(axis.ticks)


@pytest.mark.parametrize(
    ("low", "high", "ticks"),
    [
        pytest.param(0.0, 1.0, (0.0, 0.2, 0.4, 0.6, 0.8, 1.0), id="unit"),
        pytest.param(0.0, 120.0, (0.0, 50.0, 100.0, 150.0), id="steps"),
        pytest.param(-1.0, 1.0, (-1.0, -0.5, 0.0, 0.5, 1.0), id="symmetric"),
    ],
)
def test_linear_ticks_are_round(low: float, high: float, ticks: tuple[float, ...]) -> None:
    assert linear_axis(low, high).ticks == pytest.approx(ticks)


def test_a_constant_still_has_an_axis() -> None:
    axis = linear_axis(3.0, 3.0)
    assert axis.low < 3.0 < axis.high


def test_log_axis_has_whole_decades() -> None:
    assert log_axis(3e-5, 2e-2).ticks == pytest.approx((1e-5, 1e-4, 1e-3, 1e-2, 1e-1))


def test_chart_is_xml_with_a_spoken_summary_and_gaps() -> None:
    points = [(0, 0.1), (1, 0.2), (2, None), (3, float("nan")), (4, 0.4)]
    root = ElementTree.fromstring(line_chart("Reward <x>", [Series('a "b"', points)]))
    assert root.attrib["aria-label"] == 'Reward <x>: a "b" from 0.1 to 0.4'
    assert len(root.findall(".//polyline")) == 1 and len(root.findall(".//circle")) == 1


def test_log_chart_leaves_zero_out() -> None:
    root = ElementTree.fromstring(line_chart("k3", [Series("k3", [(0, 0.0), (1, 1e-3), (2, 1e-4)])], log=True))
    assert len(root.find(".//polyline").attrib["points"].split()) == 2  # type: ignore[union-attr]


def test_nothing_to_draw_is_said() -> None:
    assert "not measured" in line_chart("KL", [Series("kl", [(0, None)])])


@given(st.integers(1, 5000))
def test_thinning_bounds_points_and_keeps_order(count: int) -> None:
    found = thin([(float(i), float(i)) for i in range(count)])
    assert len(found) <= MAX_POINTS
    assert [x for x, _ in found] == sorted(x for x, _ in found)


def test_bar_marks_a_limit_that_is_passed() -> None:
    assert 'class="limit"' in bar([("weights", 3.0), ("optimizer", 2.0)], 4.0, "gpu 0")
    assert 'class="limit"' not in bar([("weights", 3.0)], 4.0, "gpu 0")


@pytest.mark.parametrize(("value", "text"), [(0, "0"), (0.2, "0.2"), (1e-4, "1e-4"), (1500, "1,500"), (2e6, "2e6")])
def test_tick_text(value: float, text: str) -> None:
    assert tick_text(value) == text
