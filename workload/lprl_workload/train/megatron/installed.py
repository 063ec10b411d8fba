"""Whether Megatron is in this environment. It is not imported for that."""

from importlib.util import find_spec


def is_installed() -> bool:
    """Return whether megatron-core can be imported here."""
    return find_spec("megatron") is not None and find_spec("megatron.core") is not None
