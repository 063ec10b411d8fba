"""Prometheus metrics of the operator. Those of jobs are read from the cache at scrape time, so that a silent job costs nothing."""

import re
from collections import Counter as Tally
from collections.abc import Callable, Iterable, Iterator

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, disable_created_metrics
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from lprl_api.names import Condition, Reason
from lprl_api.wire.status import Phase
from lprl_operator.decide.actions import Event
from lprl_operator.decide.observed import Key
from lprl_operator.places.kube.summary import Summary

SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
WAITS = (1, 5, 15, 60, 300, 900, 3600, 14_400, 43_200, 86_400, 259_200, 604_800)
_BY = re.compile(r"by its queue: ([A-Z]\w*)|evicted \((\w+)\)|by eviction \((\w+)\)")
"""The queue's own reason, or that of a pod's disruption."""
GAUGES: tuple[tuple[str, str, str], ...] = (
    ("lprl_job_step", "Finished training steps.", "step"),
    ("lprl_job_steps", "Training steps wanted.", "steps"),
    ("lprl_job_reward", "Mean reward of the last finished step.", "reward"),
    ("lprl_job_mismatch_k3", "K3 mismatch between training and rollout of the last finished step.", "mismatch"),
    ("lprl_job_tokens_per_second", "Generated tokens per second of the last finished step.", "tokens_per_second"),
    ("lprl_job_attempt", "Number of the current attempt.", "attempt"),
    ("lprl_job_restarts_used", "Restarts charged since the last refill of the budget.", "restarts_used"),
)


class OperatorMetrics:
    """Every metric in a registry of its own."""

    def __init__(self) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]  # a series of its own for the start of every counter: nobody asks for it
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self.reconcile_seconds = Histogram("lprl_reconcile_seconds", "Seconds of one reconcile.", buckets=SECONDS, registry=self.registry)
        self.reconcile_errors = Counter("lprl_reconcile_errors", "Failed reconciles by kind of error.", ["kind"], registry=self.registry)
        self.queue_depth = Gauge("lprl_queue_depth", "Jobs that are due and not worked on.", registry=self.registry)
        self.queue_wait = Histogram(
            "lprl_queue_wait_seconds", "Seconds a due job waited for a worker.", buckets=SECONDS, registry=self.registry
        )
        self.api_requests = Counter(
            "lprl_api_requests", "Requests to the API server; code 0: no answer.", ["verb", "resource", "code"], registry=self.registry
        )
        self.api_seconds = Histogram(
            "lprl_api_request_seconds", "Seconds until the API server answered.", ["verb"], buckets=SECONDS, registry=self.registry
        )
        self.queued = Histogram(
            "lprl_queued_seconds", "Seconds that a queue held what it let go of.", ["kind"], buckets=WAITS, registry=self.registry
        )
        self.evictions = Counter("lprl_evictions", "Attempts that ended by eviction, by who says why.", ["reason"], registry=self.registry)
        self.leader = Gauge("lprl_leader", "1 while this replica acts.", registry=self.registry)
        self.watch_events = Counter("lprl_watch_events", "Objects the watches told of.", ["kind"], registry=self.registry)

    def was_held(self, kind: str, seconds: float) -> None:
        """Count what a queue let go of (places.kube.waits)."""
        self.queued.labels(kind).observe(seconds)

    def told(self, event: Event) -> None:
        """Count evictions from what is told of them."""
        if event.reason == Reason.EVICTED:
            found = _BY.search(event.message)
            self.evictions.labels(next(filter(None, found.groups())) if found else "unknown").inc()

    def api_request(self, verb: str, resource: str, code: int, seconds: float) -> None:
        """Count one request (kube.api.Observer)."""
        self.api_requests.labels(verb, resource, str(code)).inc()
        self.api_seconds.labels(verb).observe(seconds)

    def follow_jobs(self, summaries: Callable[[], Iterable[tuple[Key, Summary]]], per_job: bool) -> None:
        """Export what `summaries` says at each scrape."""
        self.registry.register(JobCollector(summaries, per_job))


ENDED = (Phase.SUCCEEDED.value, Phase.FAILED.value)
ENDINGS = (Condition.COMPLETE, Condition.FAILED)


class JobCollector(Collector):
    """Jobs by phase, and numbers of every job that has not ended; of those that have, only how (alerts ask for it)."""

    def __init__(self, summaries: Callable[[], Iterable[tuple[Key, Summary]]], per_job: bool) -> None:
        self._summaries, self._per_job = summaries, per_job

    def collect(self) -> Iterator[Metric]:
        """Return metrics of now."""
        found = list(self._summaries())
        phases = Tally(s.phase for _, s in found)
        jobs = GaugeMetricFamily("lprl_jobs", "Jobs by phase.", labels=["phase"])
        for phase in Phase:
            jobs.add_metric([phase.value], phases.get(phase.value, 0))
        yield jobs
        if not self._per_job:
            return
        for name, text, field in GAUGES:
            family = GaugeMetricFamily(name, text, labels=["namespace", "job"])
            for key, summary in found:
                value = getattr(summary, field)
                if value is not None and summary.phase not in ENDED:
                    family.add_metric([key.namespace, key.name], value)
            yield family
        condition = GaugeMetricFamily(
            "lprl_job_condition", "Condition of a job: 1 True, 0 False, -1 Unknown.", labels=["namespace", "job", "type"]
        )
        for key, summary in found:
            for kind, value in summary.conditions:
                if summary.phase in ENDED and kind not in ENDINGS:
                    continue
                condition.add_metric([key.namespace, key.name, kind], value)
        yield condition

    def describe(self) -> Iterator[Metric]:
        """Say nothing at registration: collecting then would read a cache that is not filled yet."""
        return iter(())
