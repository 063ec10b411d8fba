"""What tests of the loop run."""

from collections.abc import Callable
from typing import Any

Make = Callable[..., Any]


def never() -> bool:
    return False


def whole(make: Make, changes: dict[str, Any] | None = None, **attempt: Any) -> tuple[Any, float]:
    run = make(changes, "whole")
    loop, _, trainer, _ = run.attempt(**attempt)
    assert loop.run(never) == "finished"
    return run, trainer.w


class KilledError(BaseException):
    """Stands for kill -9: nothing in the loop may catch it."""
