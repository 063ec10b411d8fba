"""The one quantizer: the only code that turns a high-precision weight into codes and scales.

Offline conversion, the trainer's fake quantisation and weight sync call the same functions; tests demand bit equality of all three.
"""

QUANTIZER_VERSION = "2"
"""Part of every conversion's content key: raised whenever the bytes for an equal input change."""
