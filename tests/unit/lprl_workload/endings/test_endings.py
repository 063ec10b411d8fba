"""What an error becomes: exit code, reason, and one line that keeps field, cause and remedy."""

import errno
import json
import pickle
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from lprl_api.errors import StorageFullError, UserError
from lprl_api.names import TERMINATION_MESSAGE_BYTES, ExitCode, Reason
from lprl_api.text import last_words, one_line, shortened
from lprl_api.wire.progress import Termination
from lprl_workload.process.errors import FencedError, NonFiniteError, RecoveryExhaustedError, RemoteError, TrainerLostError
from lprl_workload.process.termination import ending_of, run_guarded, write_termination
from lprl_workload.rollout.reward_remote import RewardServiceError


def raised(make: Callable[[], object]) -> BaseException:
    """The error a piece of code raises, with its traceback."""
    with pytest.raises(BaseException) as caught:
        make()
    return caught.value


def throw(error: BaseException) -> Callable[[], object]:
    def make() -> object:
        raise error

    return make


CUDA_FULL = "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 79.11 GiB of which 1.18 GiB is free."
SIZES = 'Error(s) in loading state_dict for M:\n\tsize mismatch for lm_head.weight: copying a param with shape [64, 8], "got [65, 8]"'
USER, FULL = (ExitCode.USER_ERROR, Reason.USER_ERROR), (ExitCode.STORAGE_FULL, Reason.STORAGE_FULL)
AGAIN, MEMORY = (ExitCode.PROGRAM_ERROR, Reason.DRIVER_CRASHED), (ExitCode.PROGRAM_ERROR, Reason.OUT_OF_MEMORY)
CHANCE, RANKS = (ExitCode.CRASH, Reason.DRIVER_CRASHED), (ExitCode.TRAINER_LOST, Reason.WORKERS_LOST)
CASES = [
    # of the user: never retried
    ("user", throw(UserError("data.promptKey: row 7 has none", "name one")), *USER, "row 7 has none; name one"),
    ("volume-full", throw(StorageFullError("volume ckpt is full")), *FULL, "ckpt is full; free space"),
    ("errno-full", throw(OSError(errno.ENOSPC, "No space left", "/v/x")), *FULL, "/v/x: No space left"),
    ("permission", throw(PermissionError(errno.EACCES, "Permission denied", "/v/x")), *USER, "/v/x: Permission"),
    ("read-only", throw(OSError(errno.EROFS, "Read-only file system", "/v/x")), *USER, "mounted read-only"),
    ("links", throw(OSError(errno.ELOOP, "Too many levels of symbolic links", "/v/x")), *USER, "lead in a circle"),
    ("name", throw(OSError(errno.ENAMETOOLONG, "File name too long", "/v/x")), *USER, "a shorter one"),
    # of program and input: the same again at the same step ends the job
    ("attribute", lambda: object().decoder, *AGAIN, "has no attribute 'decoder' (test_endings.py:"),  # type: ignore[attr-defined]
    ("key", lambda: {}["rope"], *AGAIN, "KeyError: 'rope' (test_endings.py:"),
    ("import", lambda: __import__("no_such_engine"), *AGAIN, "No module named 'no_such_engine'"),
    ("shapes", lambda: torch.ones(2, 3) @ torch.ones(2, 3), *AGAIN, "cannot be multiplied"),
    ("not-implemented", throw(NotImplementedError()), *AGAIN, "NotImplementedError (test_endings.py:"),
    ("state-dict", throw(RuntimeError(SIZES)), *AGAIN, 'size mismatch for lm_head.weight: copying'),
    ("plain", throw(Exception("data did not match any variant of enum")), *AGAIN, "any variant"),
    ("no-number", throw(NonFiniteError("optimizer step 7: loss is nan")), *AGAIN, "learningRate"),
    ("gpu-full", throw(torch.OutOfMemoryError(CUDA_FULL)), *MEMORY, "lower topology.trainer.maxTokensPerGpu"),
    ("host-full", throw(MemoryError()), *MEMORY, "raise the memory of that container"),
    ("exit", throw(SystemExit(0)), *AGAIN, "SystemExit: 0 (test_endings.py:"),
    ("recursion", throw(RecursionError("maximum recursion depth exceeded")), *AGAIN, "maximum recursion depth"),
    ("wrong-gpu", throw(RuntimeError("CUDA error: no kernel image is available for execution")), *AGAIN, "no kernel image"),
    ("remote", throw(RemoteError("trainer: set_up: rank 3 on h: KeyError: 'x'", "program")), *AGAIN, "rank 3"),
    # of chance: retried within the budget
    ("port", throw(OSError(errno.EADDRINUSE, "Address already in use")), *CHANCE, "Address already in use"),
    ("connection", throw(ConnectionResetError("peer went")), *CHANCE, "peer went"),
    ("gloo", throw(RuntimeError("[gloo/transport] Connection closed by peer")), *CHANCE, "closed by peer"),
    ("device", throw(RuntimeError("CUDA error: uncorrectable ECC error")), *CHANCE, "uncorrectable ECC"),
    ("service", throw(RewardServiceError("http://r: 6 tries failed")), *CHANCE, "6 tries failed"),
    ("gone-file", throw(FileNotFoundError(errno.ENOENT, "No such file", "/v/x")), *CHANCE, "No such file"),
    ("fenced", throw(FencedError("attempt 3 owns this folder", 3)), ExitCode.FENCED, Reason.DRIVER_CRASHED, "attempt 3 owns"),
    ("ranks", throw(TrainerLostError("rank 3 died")), *RANKS, "rank 3 died"),
    ("recoveries", throw(RecoveryExhaustedError("engines lost 4 times")), *RANKS, "4 times"),
]  # fmt: skip


@pytest.mark.parametrize(("make", "code", "reason", "words"), [c[1:] for c in CASES], ids=[c[0] for c in CASES])
def test_an_error_of_the_driver_is_the_users_the_programs_or_chance(make: Callable[[], object], code: int, reason: str, words: str) -> None:
    ending = ending_of(raised(make), Reason.DRIVER_CRASHED)
    assert (ending.code, ending.reason) == (code, reason)
    assert words in ending.text and "\n" not in ending.text


def test_a_converter_that_crashes_is_tried_again_whatever_the_error() -> None:
    assert ending_of(raised(lambda: {}["x"]), Reason.CONVERSION_FAILED).code == ExitCode.CRASH


LONG = UserError(f"data.prompts row 3: {'x' * 9000}: no answer", "name data.labelKey")


@pytest.mark.parametrize("text", [LONG.message, 'a "quoted"\nsecond line\twith \ud800 and \x1b[31m' * 300, "ü" * 9000, "", "short"])
def test_a_termination_message_keeps_field_cause_and_remedy(text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LPRL_TERMINATION_LOG", str(tmp_path / "log"))
    write_termination(Reason.USER_ERROR, f"data.prompts: {text}; name data.labelKey")
    raw = (tmp_path / "log").read_bytes()
    said = Termination.model_validate_json(raw).message
    assert len(raw) <= TERMINATION_MESSAGE_BYTES and json.loads(raw)["reason"] == "UserError"
    assert said.startswith("data.prompts: ") and said.endswith("; name data.labelKey")
    assert "\n" not in said and "\x1b" not in said


TRACEBACK = """ray::TrainActorHost.set_up() (pid=7, ip=10.0.0.3)
  File "/x/hosts.py", line 10, in set_up
    self._actor = make()
                  ^^^^^^
KeyError: 'text_config'

The above exception was the direct cause of the following exception:

Traceback (most recent call last):
  File "/x/actor.py", line 5, in make
    raise ValueError("config.json: no text_config")
ValueError: config.json: no text_config
  in the folder /models/x
"""


def test_of_a_traceback_its_end_is_told() -> None:
    assert last_words(TRACEBACK) == "ValueError: config.json: no text_config in the folder /models/x"
    assert last_words("two\n  lines") == "two lines"
    assert one_line(" a \r\n\n b\tc ") == "a b c"


@pytest.mark.parametrize("limit", [0, 3, 12, 40, 99])
def test_what_is_too_long_loses_its_middle(limit: int) -> None:
    text = "spec.data.prompts: " + "y" * 60 + " end of the cause"
    cut = shortened(text, limit)
    assert len(cut) <= limit
    assert cut == text if len(text) <= limit else text.endswith(cut[-(limit // 2) :] if limit else "")


def test_a_fenced_process_says_which_attempt_owns_the_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As a number: whoever follows has to be above it, and reads no English."""
    said = tmp_path / "termination"
    monkeypatch.setenv("LPRL_TERMINATION_LOG", str(said))
    error = pickle.loads(pickle.dumps(FencedError("another one was faster", 12)))  # as it comes from another process
    assert run_guarded(throw(error), Reason.DRIVER_CRASHED) == ExitCode.FENCED
    assert json.loads(said.read_text())["ownerAttempt"] == 12
