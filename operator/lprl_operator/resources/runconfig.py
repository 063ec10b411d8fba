"""spec + plan + inspection -> what pods are told: complete, frozen, content-hashed."""

from typing import Any

from lprl_api import names
from lprl_api.effective import effective
from lprl_api.model_shape import Inspection
from lprl_api.runconfig import CheckpointConfig, InspectConfig, RunConfig
from lprl_api.sources import ModelSource, VolumePath
from lprl_api.spec import LowPrecisionRLJob
from lprl_operator.plan.types import JobPlan
from lprl_operator.resources import conversions, jobs, metadata, naming, sources
from lprl_operator.resources.settings import RenderSettings


def inspect_config(job: LowPrecisionRLJob, source: ModelSource) -> InspectConfig:
    """Return what the inspect Job reads about one source."""
    free = VolumePath(volume=job.spec.conversion.volume, path=job.spec.conversion.path)
    return InspectConfig(source=sources.resolved(source, job.spec), free_space_at=free, volume_identity=sources.identity(source, job))


def run_config(job: LowPrecisionRLJob, plan: JobPlan, inspection: Inspection, settings: RenderSettings) -> RunConfig:
    """Return everything the driver needs, defaults that follow from other fields written out. Nothing of an attempt is in it."""
    spec, meta = effective(job.spec, plan.shape), job.metadata
    found = conversions.paths(job, inspection, plan.rollout_format)
    folder = VolumePath(volume=spec.checkpoint.volume, path=f"{spec.checkpoint.path}/{meta.name}")
    port = spec.tracking.prometheus_port or settings.prometheus_port
    return RunConfig(
        job_name=meta.name,
        namespace=meta.namespace,
        job_uid=meta.uid,
        model_path=found.model,
        reference_path=found.reference,
        rollout_path=found.rollout,
        shape=plan.shape,
        precision=spec.precision,
        rollout_format=plan.rollout_format,
        training_format=plan.training_format,
        data=spec.data,
        algorithm=spec.algorithm,
        optimizer=spec.optimizer,
        sampling=spec.sampling,
        evaluation=spec.evaluation,
        ranks=plan.ranks,
        trainer=spec.topology.trainer,
        rollout=spec.topology.rollout,
        backends=spec.backends,
        weight_sync=spec.weight_sync,
        checkpoint=CheckpointConfig(
            directory=folder,
            every_steps=spec.checkpoint.every_steps,
            keep=spec.checkpoint.keep,
            load_from=spec.checkpoint.load_from,
            export_formats=spec.checkpoint.export_formats,
        ),
        stability=spec.stability,
        tracking=spec.tracking.model_copy(update={"prometheus_port": port}),
        progress=spec.progress,
        refill_steps=spec.failure_policy.refill_steps,
    )


def run_config_map(job: LowPrecisionRLJob, config: RunConfig) -> dict[str, Any]:
    """The ConfigMap with runconfig.json; its name carries the content's hash, so a changed config is another object."""
    content = {names.RUN_CONFIG_KEY: config.document()}
    name = naming.run_config(job.metadata.name, naming.content_hash(content))
    return jobs.config_map(metadata.metadata(job, name, "run"), content)
