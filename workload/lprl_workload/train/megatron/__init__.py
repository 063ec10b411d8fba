"""Megatron and TransformerEngine: the one room that imports them. What needs neither (names, slices, layers) is said in its file."""
