"""Runs the operator with a wall clock that is wrong: `python skewed.py SECONDS`, ahead when positive. Monotonic time stays right.

Only this process sees it: `time.time` is replaced, and `datetime` in every module of ours that imported it.
"""

import sys
import time
from datetime import datetime, timedelta, tzinfo

from lprl_operator import __main__ as operator

BY_S = float(sys.argv[1])
right = time.time


class Skewed(datetime):
    """A datetime whose `now` is wrong."""

    @classmethod
    def now(cls, tz: tzinfo | None = None) -> "Skewed":
        return cls.fromtimestamp(right(), tz) + timedelta(seconds=BY_S)


def main() -> int:
    """Run until a signal."""
    time.time = lambda: right() + BY_S
    for name, module in tuple(sys.modules.items()):
        if name.partition(".")[0] in ("lprl_operator", "lprl_api") and vars(module).get("datetime") is datetime:
            vars(module)["datetime"] = Skewed
    return operator.main()


if __name__ == "__main__":
    sys.exit(main())
