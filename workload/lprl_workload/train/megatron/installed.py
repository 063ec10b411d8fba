"""Whether Megatron and TransformerEngine are in this environment. They are not imported for that."""

from importlib.util import find_spec


def is_installed() -> bool:
    """Return whether megatron-core can be imported here."""
    return find_spec("megatron") is not None and find_spec("megatron.core") is not None


def has_transformer_engine() -> bool:
    """Return whether transformer-engine can be imported here."""
    return find_spec("transformer_engine") is not None
