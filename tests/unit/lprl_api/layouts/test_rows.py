"""Weights and layers as text, as a layout carries them: what is written is read back."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lprl_api.model.weight import KINDS, SHARDINGS, Weight
from lprl_api.model.weight_rows import layers_of, row_of, text_of, weight_of


@given(st.sets(st.integers(0, 200), min_size=1))
def test_any_layers_are_read_back(layers: set[int]) -> None:
    assert layers_of(text_of(layers)) == layers


@pytest.mark.parametrize(
    ("layers", "text"),
    [
        ([0], "0"),
        (range(3), "0-2"),
        (range(3, 40, 4), "3-39:4"),
        ([0, 1], "0,1"),
        ([layer for layer in range(12) if layer % 4 != 3], "0-10:2,1-9:4"),
    ],
)
def test_patterns_of_layers_are_short(layers: list[int], text: str) -> None:
    assert text_of(layers) == text and layers_of(text) == set(layers)


@given(
    st.text("abcdefghijklmnopqrstuvwxyz_.*", min_size=1, max_size=20),
    st.sampled_from(sorted(KINDS)),
    st.sampled_from(sorted(SHARDINGS)),
    st.integers(1, 1 << 20),
    st.integers(1, 1 << 20),
    st.integers(1, 512),
)
def test_any_weight_is_read_back(module: str, kind: str, sharding: str, rows: int, cols: int, copies: int) -> None:
    weight = Weight(module, KINDS[kind], rows, cols, SHARDINGS[sharding], copies)
    assert weight_of(row_of(weight)) == weight


@pytest.mark.parametrize("row", ["", "q_proj attention column 1", "q_proj attention column one 1", "q_proj nothing column 1 1"])
def test_text_that_is_no_weight_is_refused(row: str) -> None:
    with pytest.raises((ValueError, KeyError)):
        weight_of(row)
