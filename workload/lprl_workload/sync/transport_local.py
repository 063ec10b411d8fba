"""Push to receivers that can be called directly: engines of this process, or stand-ins for engines of other processes."""

import logging
from collections.abc import Mapping, Sequence

from lprl_workload.data import Bucket
from lprl_workload.sync.checks import Check
from lprl_workload.sync.receiver import Receiver
from lprl_workload.sync.routes import Target

log = logging.getLogger(__name__)


class LocalTransport:
    """Calls every receiver in turn. A bucket is shared between them, never changed."""

    def __init__(self, receivers: Mapping[Target, Receiver]) -> None:
        """`receivers`: of every engine rank the push goes to."""
        self._receivers = dict(receivers)

    def begin(self, version: int, strong: bool) -> None:
        """Have every receiver begin."""
        for receiver in self._receivers.values():
            receiver.begin_update(version, strong)

    def open_round(self) -> None:
        """Nobody has to know."""

    def send(self, bucket: Bucket, to: Sequence[Target]) -> None:
        """Load into each."""
        for target in to:
            self._receivers[target].load_bucket(bucket)

    def close_round(self) -> None:
        """Nobody has to know."""

    def commit(self, version: int, checks: Sequence[tuple[Sequence[Target], Check]]) -> None:
        """Have each compare; one that got something else does not keep the others from serving."""
        failure: Exception | None = None
        for targets, check in checks:
            for target in targets:
                try:
                    self._receivers[target].end_update(version, check)
                except Exception as error:
                    failure = failure or error
        if failure is not None:
            raise failure

    def abort(self, why: str, first: bool) -> None:
        """Have each give up; the first sender alone speaks to them."""
        for target, receiver in self._receivers.items() if first else ():
            try:
                receiver.abort_update(why)
            except Exception as error:
                log.warning("engine %d did not hear that the push was given up: %s", target.engine, error)
