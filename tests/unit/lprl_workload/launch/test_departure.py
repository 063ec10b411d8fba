"""A driver that got SIGTERM ends soon, whatever holds its main thread: by itself with a checkpoint, else from the side."""

import os
import signal
import subprocess
import sys
import time

import pytest

SCRIPT = """
import hashlib, os, sys, threading, time
from lprl_workload.launch import departure as d
d.UNSAVED_S, d.CLOSE_S, d.ANSWER_S, d.POLL_S = 0.2, 0.2, 0.5, 0.05
def end(saved, why):
    print(f"side saved={saved} {why}", flush=True)
    os._exit(7)
def answers():
    if case == "ray-hangs": time.sleep(600)
    if case == "ray-raises": raise ConnectionError("no GCS")
    return "1/2 lprl_trainer" if case == "workers-gone" else ""
case = sys.argv[1]
departure = d.Departure(end, limit_s=1.0 if case == "long-step" else 30.0)
departure.listen()
ready = case != "loading"
if case != "starting":
    departure.guard(lambda: ready, answers)
print("up", flush=True)
if case == "step-ends":
    while not departure.asked.is_set(): time.sleep(0.01)
    print("checkpointed", flush=True)
    departure.saved()
    sys.exit(4)
if case == "closing-hangs":
    while not departure.asked.is_set(): time.sleep(0.01)
    departure.saved()
hashlib.pbkdf2_hmac("sha256", b"", b"", 2_000_000_000)  # as a call to Ray: holds the main thread, hears of no signal
"""
CASES = [
    pytest.param("step-ends", 4, "checkpointed", id="the-step-ends-and-a-checkpoint-is-made"),
    pytest.param("long-step", 7, "side saved=False no checkpoint could be made in 1 s", id="the-step-takes-too-long"),
    pytest.param("workers-gone", 7, "side saved=False no checkpoint could be made: 1/2 lprl_trainer", id="the-workers-go-too"),
    pytest.param("ray-hangs", 7, "side saved=False no checkpoint could be made: Ray does not answer", id="ray-went-and-does-not-answer"),
    pytest.param("ray-raises", 7, "side saved=False no checkpoint could be made: Ray is gone (no GCS)", id="ray-went-and-says-so"),
    pytest.param("loading", 7, "side saved=False nothing was there to save", id="while-it-loads"),
    pytest.param("starting", 7, "side saved=False nothing was there to save", id="while-it-connects"),
    pytest.param("closing-hangs", 7, "side saved=True closing took too long", id="closing-hangs-after-the-checkpoint"),
]


@pytest.mark.parametrize(("case", "code", "says"), CASES)
def test_a_driver_that_is_asked_to_go_ends_soon(case: str, code: int, says: str) -> None:
    driver = subprocess.Popen([sys.executable, "-c", SCRIPT, case], stdout=subprocess.PIPE, text=True)
    try:
        assert driver.stdout is not None and driver.stdout.readline() == "up\n"
        time.sleep(0.2)
        os.kill(driver.pid, signal.SIGTERM)
        out, _ = driver.communicate(timeout=180)
    finally:
        driver.kill()
    assert (driver.returncode, out.strip()) == (code, says)
