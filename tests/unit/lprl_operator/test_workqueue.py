"""The queue's promises, with a clock of our own; one test with real threads for what a clock cannot show."""

import threading
import time

from lprl_operator.workqueue import MAX_BACKOFF_S, WorkQueue


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def queue() -> tuple[WorkQueue[str], Clock]:
    clock = Clock()
    return WorkQueue(clock, jitter=lambda: 1.0), clock


def test_a_key_is_handed_out_once_however_often_it_was_added() -> None:
    q, _ = queue()
    for _ in range(5):
        q.add("a")
    assert q.depth == 1
    assert q.get(0) == ("a", 0.0)
    assert q.get(0) is None


def test_a_key_added_while_busy_comes_again_only_afterwards() -> None:
    q, _ = queue()
    q.add("a")
    assert q.get(0) is not None
    q.add("a")
    assert q.get(0) is None
    q.done("a")
    assert q.get(0) == ("a", 0.0)


def test_the_earliest_of_several_times_counts() -> None:
    q, clock = queue()
    q.add("a", 30)
    q.add("a", 5)
    q.add("a", 60)
    assert q.get(0) is None
    clock.now += 5
    assert q.get(0) == ("a", 0.0)
    q.done("a")
    clock.now += 1000
    assert q.get(0) is None


def test_a_delay_asked_for_while_busy_is_kept() -> None:
    q, clock = queue()
    q.add("a")
    q.get(0)
    q.add("a", 10)
    q.done("a")
    assert q.get(0) is None
    clock.now += 10
    assert q.get(0) == ("a", 0.0)


def test_waiting_time_is_told() -> None:
    q, clock = queue()
    q.add("a")
    clock.now += 7
    assert q.get(0) == ("a", 7.0)


def test_backoff_doubles_up_to_a_limit_and_is_forgotten_after_success() -> None:
    q, _ = queue()
    delays = [q.retry("a") for _ in range(12)]
    assert delays[:4] == [0.5, 1.0, 2.0, 4.0]
    assert delays[-1] == MAX_BACKOFF_S
    q.succeeded("a")
    assert q.retry("a") == 0.5
    assert q.retry("a", at_least_s=90) == 90


def test_closing_wakes_waiting_workers() -> None:
    q: WorkQueue[str] = WorkQueue()
    found: list[object] = []
    thread = threading.Thread(target=lambda: found.append(q.get(60)))
    thread.start()
    q.close()
    thread.join(50)
    assert found == [None]


def test_no_two_workers_hold_one_key_and_none_is_lost() -> None:
    q: WorkQueue[int] = WorkQueue()
    held: set[int] = set()
    clashes: list[int] = []
    handled = dict.fromkeys(range(20), 0)
    lock = threading.Lock()

    def work() -> None:
        while (found := q.get(0.3)) is not None:
            key = found[0]
            with lock:
                if key in held:
                    clashes.append(key)
                held.add(key)
            time.sleep(0.0005)
            with lock:
                held.discard(key)
                handled[key] += 1
            q.done(key)

    workers = [threading.Thread(target=work) for _ in range(6)]
    for worker in workers:
        worker.start()
    for _ in range(30):
        q.add_all(range(20))
        time.sleep(0.002)
    for worker in workers:
        worker.join(180)
    assert not clashes
    assert all(count >= 1 for count in handled.values())
    assert q.depth == 0
