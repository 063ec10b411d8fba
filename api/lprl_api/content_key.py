"""The identity of a conversion: equal keys are equal bytes, so one conversion serves every job that wants it."""

import hashlib
import json

from lprl_api.formats import WeightFormat

QUANTIZER_VERSION = "1"
"""Raised whenever the bytes for an equal input change; workload/quant says the same number and a test compares them."""


def content_key(fingerprint: str, fmt: WeightFormat, quantizer_version: str = QUANTIZER_VERSION) -> str:
    """Return sha256 (64 hexadecimal digits) over source fingerprint, format and quantizer version.

    The format counts with every default written out, so that an omitted field and its default are the same key.
    """
    identity = {"fingerprint": fingerprint, "format": fmt.document(), "quantizer": quantizer_version}
    return hashlib.sha256(json.dumps(identity, sort_keys=True, separators=(",", ":")).encode()).hexdigest()
