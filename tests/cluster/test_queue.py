"""A job in a queue of the real Kueue, with real pods (queued.py), beside what needs the node meanwhile."""

from concurrent.futures import Future


def test_preempted_in_mid_run_it_comes_back_in_its_workload_and_makes_each_step_once(in_queue: "Future[None]") -> None:
    in_queue.result()
