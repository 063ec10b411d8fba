"""Rewards by a user's function f(prompt, response, label, metadata) -> number."""

import inspect
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import deepcopy
from typing import Any

from lprl_api.errors import UserError
from lprl_workload.process.movement import here
from lprl_workload.rollout.imported import imported, raised_at, said
from lprl_workload.rollout.reward_item import RewardItem, finite
from lprl_workload.rollout.time_limit import TimeLimitError, time_limit

RewardFunction = Callable[[str, str, str | None, Mapping[str, Any]], Any]
PLACES = {"prompt": 0, "response": 1, "solution_str": 1, "label": 2, "ground_truth": 2, "metadata": 3, "extra_info": 3}
"""Where a parameter of this name must stand, since all four are passed by position."""
CALL = "f(prompt, response, label, metadata)"


class PythonScorer:
    """Calls the function, item by item; whatever it does wrong is its author's error."""

    def __init__(self, path: str, limit_s: float) -> None:
        """Import `package.module:function` (limit_s: seconds a call may take); raises UserError when it cannot be called as a reward."""
        self._where, self._limit_s = f"data.reward.function: {path}", limit_s
        module, _, name = path.partition(":")
        self._function = imported(self._where, module, name)
        self._file = getattr(inspect.getmodule(self._function), "__file__", None) or ""
        _check_callable(self._where, self._function)

    def score(self, items: Sequence[RewardItem]) -> list[float]:
        """Return the function's value per item.

        Raises:
            UserError: it raised, took longer than the limit, or returned no finite number; names function, row and line.

        """
        return [self._one(item) for item in items]

    def close(self) -> None:
        """Nothing to end."""

    def _one(self, item: RewardItem) -> float:
        label = json.dumps(item.label) if isinstance(item.label, tuple) else item.label
        metadata = _own(item)
        with _blamed(self._where, item, self._file):
            try:
                with time_limit(self._limit_s):
                    value = self._function(item.prompt, item.response, label, metadata)
                    if inspect.iscoroutine(value):
                        value.close()
                    reward = finite(value, f"{self._where} returned", item)  # which calls what the value's class defines
            except TimeLimitError:
                raise UserError(
                    f"{self._where} took more than {self._limit_s:g} s{item.row}", "make it faster, or raise data.reward.timeoutSeconds"
                ) from None
        here.finished()
        return reward


def _own(item: RewardItem) -> dict[str, Any]:
    """Return metadata that the function may change: a row's are those of all its samples and of later epochs. Raises UserError."""
    try:
        return deepcopy(dict(item.metadata))
    except RecursionError:
        raise UserError(f"data.metadataKey: nested too deep{item.row}", "leave out what the reward does not read") from None


@contextmanager
def _blamed(where: str, item: RewardItem, file: str) -> Iterator[None]:
    """Turn whatever a user's code raises into their error, asyncio's CancelledError included, which is no Exception.

    What ends this process stays: KeyboardInterrupt is the terminal's, MemoryError the machine's.
    """
    try:
        yield
    except (UserError, MemoryError, KeyboardInterrupt):
        raise
    except BaseException as error:
        raise UserError(f"{where} raised {said(error)}{raised_at(error, file)}{item.row}", "correct the function") from error


def _check_callable(where: str, function: Any) -> None:
    if isinstance(function, type) or not callable(function):
        what = "a class" if isinstance(function, type) else f"a {type(function).__name__}"
        raise UserError(f"{where} is {what}, needs a function", f"it is called as {CALL}")
    kinds = (inspect.iscoroutinefunction, inspect.isgeneratorfunction, inspect.isasyncgenfunction)
    if any(kind(f) for kind in kinds for f in (function, getattr(function, "__call__", None))):  # noqa: B004 the method itself is asked
        raise UserError(
            f"{where} is an async function or a generator, needs a plain function", f"it is called as {CALL} and returns a number"
        )
    try:
        signature = inspect.signature(function)
    except (ValueError, TypeError):  # some built in C say nothing
        return
    try:
        signature.bind("", "", None, {})
    except TypeError as error:
        raise UserError(f"{where} takes {signature}, is called as {CALL}: {error}", "give it these four parameters") from error
    for place, name in enumerate(signature.parameters):
        if PLACES.get(name, place) != place:
            raise UserError(
                f"{where} takes {signature}, is called as {CALL}: its {name!r} would get another one's value", "put them in this order"
            )
