"""Where ranks and engines run: Ray placement groups, made once, kept while a dead actor is replaced, removed at the end.

A bundle is slots of one node (the custom resources of names.py). An engine that fits a node is one bundle; a larger one is a bundle a
node, each on a node of its own, and its process is in the first. Ray places a group whole or not at all, and places bundles anew that
went with their node.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import ray
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy


@dataclass(frozen=True, slots=True)
class Wanted:
    """Bundles that are placed together."""

    name: str
    """`engine 3`, `trainer ranks`."""
    bundles: tuple[int, ...]
    """Slots of each."""
    spread: bool = False
    """Each on a node of its own; else near each other, where there is room."""

    @property
    def strategy(self) -> str:
        """Ray's word for it."""
        return "STRICT_SPREAD" if self.spread else "PACK"

    def words(self, bundle: int, slot: str) -> str:
        """Name a bundle in an error."""
        which = f"bundle {bundle + 1} of {len(self.bundles)} of {self.name}" if len(self.bundles) > 1 else self.name
        return f"{which} ({self.bundles[bundle]} {slot}{', on a node of its own' if self.spread else ''})"


def engine_bundles(number: int, slots: int, slots_per_node: int) -> Wanted:
    """Return the bundles of an engine of `slots` slots: one a node."""
    full, rest = divmod(slots, slots_per_node)
    if full == 0 or (full, rest) == (1, 0):
        return Wanted(f"engine {number}", (slots,))
    return Wanted(f"engine {number}", (slots_per_node,) * full + ((rest,) if rest else ()), spread=True)


def without_room(wanted: Wanted, free: Mapping[str, int]) -> int | None:
    """Return the first bundle that finds no node among those with `free` slots, by name; None when all find one."""
    left = dict(free)
    for bundle in sorted(range(len(wanted.bundles)), key=lambda n: -wanted.bundles[n]):
        slots = wanted.bundles[bundle]
        # The fullest node that has room: what is left of others may fit larger bundles.
        node = min((name for name, count in left.items() if count >= slots), key=lambda name: left[name], default=None)
        if node is None:
            return bundle
        left[node] = 0 if wanted.spread else left[node] - slots
    return None


class Bundles:
    """The placement groups of one side of a run."""

    def __init__(self, slot: str, wanted: Sequence[Wanted]) -> None:
        """Ask for them; they are there when actors in them answer. `slot`: the custom resource they are counted in."""
        self._slot, self._wanted = slot, tuple(wanted)
        self._groups = [
            ray.util.placement_group([{slot: count} for count in one.bundles], strategy=one.strategy, name=one.name) for one in wanted
        ]

    def at(self, group: int, bundle: int = 0) -> dict[str, Any]:
        """Return the options of an actor that takes all of a bundle."""
        strategy = PlacementGroupSchedulingStrategy(self._groups[group], placement_group_bundle_index=bundle)
        return {"resources": {self._slot: self._wanted[group].bundles[bundle]}, "scheduling_strategy": strategy}

    def waits(self) -> str:
        """Return which bundles wait for a node, and what the nodes offer, in words."""
        nodes = {node["NodeID"]: node for node in ray.nodes() if node["Alive"] and node["Resources"].get(self._slot)}
        free = {name: int(node["Resources"][self._slot]) for name, node in nodes.items()}
        for table in ray.util.placement_group_table().values():
            for bundle, node in table["bundles_to_node_id"].items():
                if table["state"] in ("CREATED", "RESCHEDULING") and node in free:
                    free[node] -= int(table["bundles"][bundle].get(self._slot, 0))
        waiting = [words for one, group in zip(self._wanted, self._groups, strict=True) if (words := self._waiting(one, group, free))]
        offers = ", ".join(
            f"{node['NodeManagerAddress']}: {free[name]} of {node['Resources'][self._slot]:g} free" for name, node in nodes.items()
        )
        return f"waiting: {'; '.join(waiting) or 'none of the bundles'}; nodes with {self._slot}: {offers or 'none'}"

    def _waiting(self, wanted: Wanted, group: Any, free: Mapping[str, int]) -> str:
        table = ray.util.placement_group_table(group)
        if table["state"] == "CREATED":
            return ""
        placed = [bundle for bundle, node in table["bundles_to_node_id"].items() if node in free and table["state"] == "RESCHEDULING"]
        lost = [bundle for bundle in range(len(wanted.bundles)) if bundle not in placed]
        missing = without_room(wanted, free) if not placed else lost[0] if lost else None
        return wanted.words(missing or 0, self._slot)

    def remove(self) -> None:
        """Give the slots back."""
        groups, self._groups = self._groups, []
        for group in groups:
            ray.util.remove_placement_group(group)
