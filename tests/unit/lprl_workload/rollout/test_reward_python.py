"""Reward functions of users: every real number is taken; whatever else they do is told with function, line and row."""

import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from lprl_api.errors import UserError
from lprl_api.spec.algorithm import Reward
from lprl_workload.rollout.reward import RewardItem, make_scorer
from lprl_workload.rollout.time_limit import SIGNAL

ITEM = RewardItem("p", "abc", "7", {"k": 1}, "/data/p.jsonl row 17")
Make = Callable[..., list[float]]


@pytest.fixture
def score(score_all: Callable[..., list[float]]) -> Make:
    """score(body, name="f", limit=30): the rewards of one item by function `name` of a module with this text."""
    return lambda body, name="f", limit=30.0: score_all(body, [ITEM], name, limit)


@pytest.fixture
def score_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """score_all(body, items, name="f", limit=30): the rewards of several."""
    monkeypatch.syspath_prepend(str(tmp_path))

    def make(body: str, items: list[RewardItem], name: str = "f", limit: float = 30.0) -> list[float]:
        sys.modules.pop("judge_it", None)
        (tmp_path / "judge_it.py").write_text(body)
        scorer = make_scorer(Reward(type="python", function=f"judge_it:{name}", timeout_seconds=limit))
        return scorer.score(items)

    yield make
    sys.modules.pop("judge_it", None)


def returning(value: str) -> str:
    return (
        "import fractions, decimal, numpy, torch\n"
        "class Real(float):\n    pass\n"
        "class Rude:\n    def __repr__(self):\n        raise RuntimeError('no')\n"
        "async def later():\n    return 1.0\n"
        f"def f(prompt, response, label, metadata):\n    return {value}\n"
    )


@pytest.mark.parametrize(
    ("value", "reward"),
    [
        ("1", 1.0), ("0.5", 0.5), ("True", 1.0), ("numpy.float32(1.0)", 1.0), ("numpy.float16(0.5)", 0.5), ("numpy.int64(2)", 2.0),
        ("numpy.bool_(True)", 1.0), ("numpy.array(0.25)", 0.25), ("torch.tensor(0.5)", 0.5), ("torch.tensor(True)", 1.0),
        ("torch.tensor(0.5, dtype=torch.bfloat16, requires_grad=True)", 0.5), ("decimal.Decimal('0.5')", 0.5),
        ("fractions.Fraction(1, 4)", 0.25), ("Real(2)", 2.0), ("numpy.float64(-1e300)", -1e300), ("2 ** 70", 2.0**70),
    ],
)  # fmt: skip
def test_every_finite_number_is_a_reward(score: Make, value: str, reward: float) -> None:
    assert score(returning(value)) == [reward]


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("None", "returned None"), ("'1.0'", "returned '1.0'"), ("[1.0]", r"returned \[1\.0\]"), ("(1, 2)", r"returned \(1, 2\)"),
        ("{'score': 1}", r"returned \{'score': 1\}"), ("float('nan')", "returned nan"), ("numpy.float32('inf')", "returned .*inf"),
        ("torch.tensor(float('nan'))", r"returned tensor\(nan\)"), ("numpy.array([1.0])", r"returned array\(\[1\.\]\)"),
        ("torch.ones(3)", "returned tensor"), ("1j", "returned 1j"), ("numpy.complex64(1)", "returned .*1"), ("b'1'", "returned b'1'"),
        ("10 ** 400", r"returned 10{70,}\.\.\."), ("decimal.Decimal('NaN')", "returned Decimal"), ("later()", "returned <coroutine"),
        ("Rude()", "returned <Rude, whose repr raised RuntimeError>"), ("numpy.array('x')", "returned array"),
    ],
)  # fmt: skip
def test_what_is_no_finite_number_is_told_with_function_and_row(score: Make, value: str, words: str) -> None:
    with pytest.raises(UserError, match=words) as caught:
        score(returning(value))
    assert caught.value.message.startswith("data.reward.function: judge_it:f returned")
    assert caught.value.message.endswith(", for /data/p.jsonl row 17, needs a finite number") and "\n" not in caught.value.message


def test_metadata_that_a_function_changes_are_its_own_copy(score_all: Callable[..., list[float]]) -> None:
    metadata = {"tests": [1, {"deep": [2, 3]}]}
    item = RewardItem("p", "abc", "7", metadata, "/data/p.jsonl row 17")
    body = "def f(prompt, response, label, metadata):\n    return metadata['tests'][1]['deep'].pop()\n"
    assert score_all(body, [item] * 3) == [3.0] * 3 and metadata == {"tests": [1, {"deep": [2, 3]}]}


def test_metadata_too_deep_to_copy_are_told_with_their_row(score_all: Callable[..., list[float]]) -> None:
    deep: list[object] = []
    for _ in range(2000):
        deep = [deep]
    with pytest.raises(UserError, match=r"data.metadataKey: nested too deep, for /data/p.jsonl row 17"):
        score_all("def f(p, r, l, m):\n    return 1\n", [RewardItem("p", "abc", "7", {"x": deep}, "/data/p.jsonl row 17")])


@pytest.mark.parametrize(
    ("body", "words"),
    [
        pytest.param("    return {}['x']", r"raised KeyError: 'x' \(.*judge_it.py line 2\), for /data/p.jsonl row 17", id="key"),
        pytest.param(
            "    import json\n    return json.loads(response)", r"raised json.decoder.JSONDecodeError: .*py line 3\)", id="in-a-library"
        ),
        pytest.param("    return float(label) / 0", r"raised ZeroDivisionError: float division by zero \(.*line 2", id="arithmetic"),
        pytest.param("    raise ValueError('one\\ntwo')", "raised .*two", id="two-lines"),
        pytest.param("    raise ConnectionError('judge away')", "raised ConnectionError: judge away", id="service"),
        pytest.param("    import sys\n    sys.exit(1)", "raised SystemExit: 1", id="exit"),
        pytest.param("    def g(n):\n        return g(n + 1)\n    return g(0)", "raised RecursionError", id="recursion"),
        pytest.param("    raise KeyError('x' * 5000)", "raised KeyError: 'x{250,}", id="long-message"),
        pytest.param(
            "    import asyncio\n    raise asyncio.CancelledError('late')", r"CancelledError: late \(.*py line 3\)", id="cancelled"
        ),
        pytest.param("    raise BaseException('own')", r"raised BaseException: own \(.*py line 2\)", id="base"),
        pytest.param(
            "    class R(float):\n        def __float__(self):\n            raise TypeError('no float')\n    return R(1)",
            r"raised TypeError: no float \(.*py line 4\)",
            id="in-its-value",
        ),
        pytest.param("    import torch\n    return torch.tensor(1.0, device='meta')", "raised .*[Mm]eta", id="meta"),
        pytest.param("    assert label == '8', 'no'", "raised AssertionError: no", id="assertion"),
        pytest.param("    return response.encode('utf-8') + 1", "raised TypeError", id="type"),
        pytest.param(
            "    raise ExceptionGroup('several', [ValueError('a')])", r"raised ExceptionGroup: several|raised .*ValueError: a", id="group"
        ),
    ],
)
def test_a_function_that_raises_is_told_with_its_last_line_and_the_users_line(score: Make, body: str, words: str) -> None:
    with pytest.raises(UserError, match=words) as caught:
        score(f"def f(prompt, response, label, metadata):\n{body}\n")
    assert caught.value.message.startswith("data.reward.function: judge_it:f raised") and "row 17" in caught.value.message
    assert "\n" not in caught.value.message and len(caught.value.message) < 600


@pytest.mark.parametrize(
    ("body", "name", "words"),
    [
        pytest.param(
            "def f(solution, truth):\n    return 1", "f", r"f takes \(solution, truth\), is called as f\(prompt, response", id="two"
        ),
        pytest.param("def f(p, r, l, m, extra):\n    return 1", "f", "takes .*missing a required argument: 'extra'", id="five"),
        pytest.param("def f(response, label, prompt, metadata):\n    return 1", "f", "its 'response' would get another", id="order"),
        pytest.param("def f(solution_str, truth, a, b):\n    return 1", "f", "its 'solution_str' would get another", id="verl-order"),
        pytest.param("def f(*, prompt, response, label, metadata):\n    return 1", "f", "takes .*too many positional", id="keywords-only"),
        pytest.param("async def f(p, r, l, m):\n    return 1", "f", "is an async function", id="async"),
        pytest.param("def f(p, r, l, m):\n    yield 1", "f", "is an async function or a generator", id="generator"),
        pytest.param("class f:\n    def __init__(self, p, r, l, m): pass", "f", "f is a class, needs a function", id="class"),
        pytest.param("f = 1.0", "f", "f is a float, needs a function", id="number"),
        pytest.param("import json as f", "f", "f is a module, needs a function", id="module"),
        pytest.param("def g(p, r, l, m):\n    return 1", "f", r"module judge_it \(.*judge_it.py\) has no 'f'", id="no-such-name"),
        pytest.param("def f(:\n", "f", r"importing judge_it raised SyntaxError: .*judge_it.py line 1", id="syntax"),
        pytest.param("\n1 / 0", "f", r"importing judge_it raised ZeroDivisionError: .*judge_it.py line 2", id="import-raises"),
        pytest.param("import sys\nsys.exit(3)", "f", "importing judge_it raised SystemExit: 3", id="import-exits"),
        pytest.param("import no_such_lib", "f", r"No module named 'no_such_lib', which judge_it imports \(.*line 1\)", id="dependency"),
        pytest.param("from json import nothing", "f", "importing judge_it raised ImportError: cannot import name 'nothing'", id="name"),
    ],
)
def test_a_function_that_cannot_be_called_is_found_before_the_run(score: Make, body: str, name: str, words: str) -> None:
    with pytest.raises(UserError, match=words) as caught:
        score(body, name)
    assert caught.value.message.startswith("data.reward.function: judge_it:")


@pytest.mark.parametrize(
    "body",
    [
        pytest.param("def f(*args):\n    return len(args)", id="any-arguments"),
        pytest.param("def f(a, b, c, d, e=1):\n    return 4", id="a-default-more"),
        pytest.param("class C:\n    def __call__(self, p, r, l, m):\n        return 4\nf = C()", id="callable-object"),
        pytest.param("import functools\ndef g(x, p, r, l, m):\n    return x\nf = functools.partial(g, 4)", id="partial"),
        pytest.param(
            "def f(prompt, response, label, metadata):\n    metadata['n'] = 4\n    return metadata['n']", id="metadata-of-its-own"
        ),
    ],
)
def test_whatever_takes_four_arguments_is_called(score: Make, body: str) -> None:
    assert score(body) == [4.0]
    assert ITEM.metadata == {"k": 1}


@pytest.mark.parametrize(
    "body",
    [
        pytest.param("import time\ndef f(*_):\n    time.sleep(60)", id="sleeps"),
        pytest.param("def f(*_):\n    while True:\n        pass", id="computes"),
        pytest.param("import time\ndef f(*_):\n    try:\n        time.sleep(60)\n    except Exception:\n        return 1", id="swallows"),
        pytest.param("import socket\ndef f(*_):\n    a, b = socket.socketpair()\n    a.recv(1)", id="reads"),
    ],
)
def test_a_function_that_does_not_return_is_the_users_error_after_the_limit(score: Make, body: str) -> None:
    before, start = signal.getsignal(SIGNAL), time.monotonic()
    with pytest.raises(UserError, match=r"judge_it:f took more than 0\.2 s, for /data/p.jsonl row 17") as caught:
        score(body, limit=0.2)
    assert "timeoutSeconds" in caught.value.remedy and time.monotonic() - start < 30
    assert signal.getsignal(SIGNAL) == before


def test_a_function_may_use_alarms_and_threads_of_its_own(score: Make) -> None:
    body = "import signal\ndef f(*_):\n    signal.alarm(50)\n    signal.alarm(0)\n    return 1"
    assert score(body, limit=20) == [1.0]
    found: list[float] = []
    thread = threading.Thread(target=lambda: found.extend(score("def f(*_):\n    return 2", limit=20)))
    thread.start()
    thread.join()
    assert found == [2.0]
