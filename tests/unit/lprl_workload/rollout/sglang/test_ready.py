"""How far a starting server is, and when it is given up: by what moves, not by the clock."""

from lprl_workload.rollout.sglang.ready import STILL_S, WORDLESS_S, Startup


def test_phases_are_read_off_the_log() -> None:
    start, found = Startup(0.0), []
    for line in (
        "[2026-11-28 10:00:00] Init torch distributed begin.",
        "[2026-11-28 10:00:01] Load weight begin. avail mem=139.81 GB",
        "[2026-11-28 10:00:03] KV Cache is allocated. #tokens: 65536",
        "[2026-11-28 10:00:04] ninja: building fused_moe_kernel with nvcc",
        "[2026-11-28 10:06:04] Capture cuda graph begin. This can take up to several minutes.",
        "[2026-11-28 10:06:09] INFO:     Uvicorn running on http://127.0.0.1:4000",
    ):
        if start.hear([line], 1.0):
            found.append(start.phase)
    assert found == ["joining ranks", "loading weights", "allocating the KV cache", "compiling", "capturing graphs", "warming up"]
    assert not start.up
    start.hear(["[2026-11-28 10:06:12] The server is fired up and ready to roll!"], 2.0)
    assert start.up


def test_a_compilation_of_many_minutes_without_a_word_is_waited_for_while_it_works() -> None:
    start = Startup(0.0)
    start.hear(["nvcc marlin.cu"], 1.0)
    now, cpu = 1.0, 0.0
    while now + 10 < WORDLESS_S:
        now, cpu = now + 10, cpu + 9
        assert start.worked(cpu, now) and not start.late(now)
    assert start.worked(cpu + 9, now + 10)
    assert start.late(now + 10) == "it worked for 3600 s without a word while compiling"


def test_what_neither_says_nor_does_anything_is_given_up() -> None:
    start = Startup(0.0)
    start.hear(["Load weight begin"], 1.0)
    assert not start.worked(0.1, 2.0) and not start.late(STILL_S)
    assert start.late(STILL_S + 1.0) == "nothing moved for 300 s while loading weights"
