"""Log lines: which job and attempt they are about."""

import json
import logging

from lprl_operator.logs import JsonFormatter, about


def line(**extra: object) -> dict[str, object]:
    record = logging.getLogger("test").makeRecord("test", logging.INFO, __file__, 1, "deleted %s", ("x",), None, extra=extra)
    return dict(json.loads(JsonFormatter().format(record)))


def test_lines_carry_what_they_are_about() -> None:
    with about(namespace="ns", job="toy"):
        with about(attempt=2):
            assert {"namespace": "ns", "job": "toy", "attempt": 2, "message": "deleted x"}.items() <= line().items()
            assert line(job="other")["job"] == "other"
        assert "attempt" not in line()
    assert "job" not in line()
