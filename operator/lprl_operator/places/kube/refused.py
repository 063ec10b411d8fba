"""Why Jobs have no pods, as the newest list of events told (podless.py). Thread-safe: replaced as a whole."""

from collections.abc import Mapping

Refusal = tuple[str, str]
"""When and why."""
NONE: Refusal = ("", "")


class RefusedPods:
    """Refusals by uid of the Job."""

    def __init__(self) -> None:
        self._found: dict[str, Mapping[str, Refusal]] = {}

    def replace(self, namespace: str, found: Mapping[str, Refusal]) -> None:
        """Take over what a list of a namespace found: what is not in it is over."""
        others = {name: kept for name, kept in self._found.items() if name != namespace}
        self._found = {**others, namespace: found} if found else others

    def of(self, uid: str) -> Refusal:
        """The newest refusal of a pod of a Job."""
        return next((found[uid] for found in self._found.values() if uid in found), NONE)
