"""The identity of a conversion: equal keys are equal bytes, so one conversion serves every job that wants it."""

import hashlib
import json

from lprl_api.model.formats import Bf16, WeightFormat

QUANTIZER_VERSION = "2"
"""Raised whenever the bytes for an equal input change; workload/quant says the same number and a test compares them."""


LISTS_VERSION = "2"
"""Raised when the list of what is not quantised, in config.json beside equal bytes, is written differently (docs/adr/0009)."""


def content_key(fingerprint: str, fmt: WeightFormat, quantizer_version: str = QUANTIZER_VERSION) -> str:
    """Return sha256 (64 hexadecimal digits) over source fingerprint, format, quantizer version and, where there are any, lists.

    The format counts with every default written out, so that an omitted field and its default are the same key.
    """
    identity = {"fingerprint": fingerprint, "format": fmt.document(), "quantizer": quantizer_version}
    if not isinstance(fmt, Bf16):
        identity["lists"] = LISTS_VERSION
    return hashlib.sha256(json.dumps(identity, sort_keys=True, separators=(",", ":")).encode()).hexdigest()
