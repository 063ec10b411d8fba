"""The quantizer's arithmetic as Triton kernels: the same bytes as the CPU path, one launch for all weights of a call.

`available` says whether a tensor goes this way; `fp8`, `int4` and `sums` are what callers use; `work` lays out a launch, without Triton.
"""
