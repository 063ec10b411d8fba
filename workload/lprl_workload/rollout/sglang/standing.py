"""Having a server stand still and go on: at the gate of its desk, inside it, or by taking its requests back."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from lprl_workload.rollout.requests import PauseMode
from lprl_workload.rollout.sglang.control import Control
from lprl_workload.rollout.sglang.desk import Desk


class Standing:
    """Whether one server works."""

    def __init__(self, desk: Desk, control: Control, in_place: bool) -> None:
        """`in_place`: requests may stay in the server while its weights change, since it says which drew which tokens."""
        self._desk, self._control, self._in_place = desk, control, in_place
        self.inside = False
        """Whether the server itself stands still, with requests."""
        self._one = threading.Lock()

    def stand(self, mode: PauseMode) -> None:
        """Have nothing computed: requests wait at the desk, those at the server stand still or are taken back."""
        with self._one:
            self._desk.shut_gate()
            if not self._desk.counts[0] or self.inside:
                return
            if mode == "in-place" and self._in_place:
                self._control.pause("in_place")
                self.inside = True
            else:
                self._desk.run(self._desk.retract())

    def go(self) -> None:
        """Have everything go on."""
        with self._one:
            if self.inside:
                self._control.resume()
                self.inside = False
            self._desk.open_gate()

    @contextmanager
    def for_a_moment(self) -> Iterator[None]:
        """Let a server that stands still work inside: what is asked past the desk, and its requests meanwhile."""
        if self.inside:
            self._control.resume()
        try:
            yield
        finally:
            if self.inside:
                self._control.pause("in_place")
