"""Scenarios side by side: each waits most of its time, so a dozen take hardly longer than one."""

from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial

from tests.control_plane.harness.world import World

Scenario = Callable[[World, str], None]
"""Called with the world and the name of its job."""


def together(world: World, scenarios: Mapping[str, Scenario]) -> None:
    """Run all at once in one namespace, each with a job named after it; fail with every failure."""
    side_by_side({name: partial(scenario, world, name) for name, scenario in scenarios.items()})


def apart(make_world: Callable[[], World], scenarios: Mapping[str, Callable[[World], None]]) -> None:
    """Run all at once, each in a namespace of its own."""
    side_by_side({name: partial(scenario, make_world()) for name, scenario in scenarios.items()})


def side_by_side(scenarios: Mapping[str, Callable[[], None]]) -> None:
    """Run all at once, whatever each is bound to; fail with every failure."""
    with ThreadPoolExecutor(len(scenarios)) as pool:
        running = {name: pool.submit(scenario) for name, scenario in scenarios.items()}
        failures = [(name, error) for name, one in running.items() if (error := one.exception()) is not None]
    for name, error in failures:
        error.add_note(f"scenario {name}")
    if len(failures) == 1:
        raise failures[0][1]
    if failures:
        raise BaseExceptionGroup(
            f"{len(failures)} of {len(scenarios)} scenarios: {', '.join(n for n, _ in failures)}", [e for _, e in failures]
        )
