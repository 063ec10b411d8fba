"""The template and the pool that docs/rollouts.md shows."""

from typing import Any

import yaml
from tests.pages import blocks


def documented() -> tuple[dict[str, Any], dict[str, Any]]:
    """Return them as they stand there."""
    (text,) = (block.text for block in blocks("docs/rollouts.md") if block.text.startswith("apiVersion: extensions.agents"))
    template, pool = yaml.safe_load_all(text)
    return template, pool
