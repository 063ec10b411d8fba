"""render: (job, plan, inspection) -> every document the job may need, in the order they are created."""

from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from typing import Any

from lprl_api import names
from lprl_api.model.model_shape import Inspection
from lprl_api.spec.job import LowPrecisionRLJob
from lprl_operator.plan.types import JobPlan
from lprl_operator.resources import conversions, naming, network, progress, raycluster, rbac, runconfig, sources
from lprl_operator.resources.conversions import Conversion
from lprl_operator.resources.convert_job import convert_document
from lprl_operator.resources.finalise_job import finalise_document
from lprl_operator.resources.inspect_job import inspect_document
from lprl_operator.resources.needs import WorkerNeeds
from lprl_operator.resources.settings import RenderSettings

Document = dict[str, Any]
MAX_PREFLIGHT_BYTES = 100_000
"""A pod carries it in an annotation, of which there are 256 KiB in all. A larger spec is checked by the driver alone."""
UID_WHEN_MADE = "00000000-0000-0000-0000-000000000000"
"""Stands for the uid of an object that does not exist yet, where documents are only shown."""


@dataclass(frozen=True)
class Wanted:
    """What a job wants to exist; documents are built when asked for. Plan and inspection are None while unknown."""

    job: LowPrecisionRLJob
    plan: JobPlan | None
    inspection: Inspection | None
    settings: RenderSettings

    def inspect_document(self) -> Document:
        """The Job of the inspection."""
        model = self.job.spec.model
        reference = None
        if model.reference is not None and sources.is_remote(model.reference):
            reference = runconfig.inspect_config(self.job, model.reference)
        check = runconfig.preflight(self.job)
        fits = len(check.model_dump_json()) <= MAX_PREFLIGHT_BYTES
        source = runconfig.inspect_config(self.job, model.source, check if fits else None)
        return inspect_document(self.job, source, reference, self.settings)

    def conversions(self) -> tuple[Conversion, ...]:
        """Conversions the job needs; none before the inspection."""
        return self._conversions

    @cached_property
    def _conversions(self) -> tuple[Conversion, ...]:
        if self.plan is None or self.inspection is None:
            return ()
        return conversions.needed(self.job, self.inspection, self.plan.rollout_format)

    def convert_document(self, conversion: Conversion) -> Document:
        """The Indexed Job of a conversion."""
        return convert_document(self.job, conversion.name, conversion.config, self.settings)

    def finalise_document(self, conversion: Conversion, convert_uid: str) -> Document:
        """The finalise Job of a conversion, whose Indexed Job has this uid."""
        return finalise_document(self.job, conversion.name, convert_uid, conversion.config, self.settings)

    def attempt_documents(self, attempt: int, recorded_step: int = 0, cluster: str | None = None) -> tuple[Document, ...]:
        """Everything an attempt needs; the RayCluster is last, so that its presence says that all is there.

        `recorded_step`: of the newest checkpoint known, which the driver must find. `cluster`: name of the RayCluster that
        earlier attempts ran in; default: a new one's.
        """
        if self.plan is None or self.inspection is None:
            raise ValueError("an attempt is rendered after the inspection")
        cluster = cluster or naming.cluster(self.job.metadata.name, attempt)
        config = runconfig.run_config(self.job, self.plan, self.inspection, self.settings)
        name = runconfig.run_config_map(self.job, config)["metadata"]["name"]
        told = {names.ANNOTATION_RECORDED_STEP: str(recorded_step), names.ANNOTATION_LIVE_SETTINGS: runconfig.live_settings(config)}
        needs = worker_needs(self.plan)
        document = raycluster.raycluster(self.job, self.plan.ranks, needs, name, attempt, self.settings, told, cluster)
        return (*self.surroundings(attempt, cluster), *self._protection(cluster, self.plan.ranks.nodes), document)

    def pods_digest(self, cluster: str) -> str:
        """Digest of the pods that a RayCluster of this name would have now; empty before the inspection."""
        if self.plan is None or self.inspection is None:
            return ""
        meta = self.job.metadata.model_copy(update={"generation": 0, "resource_version": None})
        text = meta.model_dump_json() + self.inspection.model_dump_json()
        return _pods_digest(_Pods(text, cluster, id(self.job.spec), id(self.plan), id(self.settings), self))

    def surroundings(self, attempt: int, cluster: str | None = None) -> tuple[Document, ...]:
        """What an attempt needs beside its cluster and that does nothing by itself: it may be there long before."""
        if self.plan is None or self.inspection is None:
            raise ValueError("an attempt is rendered after the inspection")
        driver = self._driver_documents(attempt, cluster or naming.cluster(self.job.metadata.name, attempt))
        return (*self._platform_documents(), self._run_config(self.plan, self.inspection), *driver)

    def _run_config(self, plan: JobPlan, inspection: Inspection) -> Document:
        return runconfig.run_config_map(self.job, runconfig.run_config(self.job, plan, inspection, self.settings))

    def _driver_documents(self, attempt: int, cluster: str) -> tuple[Document, ...]:
        """Where an attempt's driver reports, and its right to."""
        return (progress.progress_config_map(self.job, attempt), *rbac.driver_account(self.job, attempt, cluster))

    def _protection(self, cluster: str, workers: int) -> tuple[Document, ...]:
        """Comes and goes with the cluster: a budget without pods is an alert in many places."""
        wanted = self.settings.pod_disruption_budget
        return (network.disruption_budget(self.job, workers + 1, cluster),) if wanted else ()

    def _platform_documents(self) -> tuple[Document, ...]:
        """What the platform asks for around every job."""
        found: list[Document] = []
        if self.settings.network_policy:
            found.append(network.network_policy(self.job, self.settings))
        if self.settings.pod_monitor and network.metrics_port(self.job, self.settings) is not None:
            found.append(network.pod_monitor(self.job))
        return tuple(found)


def worker_needs(plan: JobPlan) -> WorkerNeeds:
    """Host resources of a worker as planned. Processes on cpu are small and share a machine: only their count is asked for."""
    if plan.accelerator == "cpu":
        return WorkerNeeds(shared_memory_bytes=plan.shared_memory_bytes)
    memory = plan.host_bytes_per_node + plan.shared_memory_bytes
    return WorkerNeeds(memory_bytes=memory, shared_memory_bytes=plan.shared_memory_bytes)


def render(job: LowPrecisionRLJob, plan: JobPlan | None, inspection: Inspection | None, settings: RenderSettings) -> Wanted:
    """Return what the job wants to exist."""
    return Wanted(job, plan, inspection, settings)


def render_all(job: LowPrecisionRLJob, plan: JobPlan, inspection: Inspection, settings: RenderSettings) -> list[Document]:
    """Return every document of a job's life up to its first attempt, in order (`lprl render`, goldens)."""
    wanted = render(job, plan, inspection, settings)
    found = [wanted.inspect_document()]
    for conversion in wanted.conversions():
        found += [wanted.convert_document(conversion), wanted.finalise_document(conversion, UID_WHEN_MADE)]
    return [*found, *wanted.attempt_documents(1)]


@dataclass(frozen=True, slots=True)
class _Pods:
    """What pods follow from. Specs and plans are remembered by who makes them, so that the same ones are the same objects."""

    text: str
    cluster: str
    spec: int
    plan: int
    settings: int
    wanted: Wanted = field(compare=False)
    """Keeps the objects there that are told by their ids."""


@lru_cache(maxsize=4096)
def _pods_digest(pods: _Pods) -> str:
    """Remembered: a job that waits between two attempts asks at each look, and rendering takes some milliseconds."""
    document = pods.wanted.attempt_documents(1, cluster=pods.cluster)[-1]
    return str(document["metadata"]["annotations"][names.ANNOTATION_PODS])
