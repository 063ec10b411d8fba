"""spec + plan + inspection -> what pods are told: complete, frozen, content-hashed."""

import json
from typing import Any

from lprl_api import names
from lprl_api.derived.effective import effective
from lprl_api.derived.trained import trained_document
from lprl_api.model.model_shape import Inspection
from lprl_api.spec.job import LowPrecisionRLJob, LowPrecisionRLJobSpec
from lprl_api.spec.sources import ModelSource, VolumePath
from lprl_api.spec.topology import Stability
from lprl_api.wire.runconfig import CheckpointConfig, InspectConfig, LiveSettings, Preflight, RunConfig
from lprl_operator.plan.types import JobPlan
from lprl_operator.resources import conversions, jobs, metadata, naming, pods, sources
from lprl_operator.resources.settings import RenderSettings

_SAME_FOR_ALL = LiveSettings(steps=1, stability=Stability(), refill_steps=1, stall_seconds=1)


def inspect_config(job: LowPrecisionRLJob, source: ModelSource, check: Preflight | None = None) -> InspectConfig:
    """Return what the inspect Job reads about one source, and what it checks besides."""
    free = VolumePath(volume=job.spec.conversion.volume, path=job.spec.conversion.path)
    found, identity = sources.resolved(source, job.spec), sources.identity(source, job)
    return InspectConfig(source=found, free_space_at=free, volume_identity=identity, preflight=check)


def preflight(job: LowPrecisionRLJob) -> Preflight:
    """Return what the inspection of the source checks besides."""
    spec, meta, template = job.spec, job.metadata, job.spec.pod_template
    workers: tuple[pods.Role, ...] = ("workers", "rollout") if spec.topology.placement == "split" else ("workers",)
    same_image = all(pods.user_image(template, role) == pods.user_image(template, "conversion") for role in workers)
    same_head = pods.user_image(template, "head") == pods.user_image(template, "conversion")
    same_env = [pods.user_env(template, role) == pods.user_env(template, "conversion") for role in ("head", workers[-1])]
    return Preflight(
        job_name=meta.name,
        namespace=meta.namespace,
        job_uid=meta.uid,
        trained=trained_document(spec),
        data=spec.data,
        seed=spec.algorithm.seed,
        sampling=spec.sampling,
        episode=spec.episode,
        evaluation=spec.evaluation,
        rollout=spec.topology.rollout,
        checkpoint=checkpoint_config(job),
        backends=spec.backends if same_image else None,
        accelerator=spec.topology.accelerator,
        **_of_megatron(spec),
        imports_reward=same_head and same_env[0],
        imports_episode=same_head and same_image and all(same_env),
    )


def _of_megatron(spec: LowPrecisionRLJobSpec) -> dict[str, Any]:
    """Return what Megatron's trainer is asked besides: of other trainers nothing of it is checked there."""
    if spec.backends.trainer != "megatron":
        return {}
    return {"trainer": spec.topology.trainer, "optimizer": spec.optimizer, "precision": spec.precision}


def checkpoint_config(job: LowPrecisionRLJob) -> CheckpointConfig:
    """Return the checkpoint settings; a run's folder is named like its job."""
    wish = job.spec.checkpoint
    return CheckpointConfig(
        directory=VolumePath(volume=wish.volume, path=f"{wish.path}/{job.metadata.name}"),
        every_steps=wish.every_steps,
        keep=wish.keep,
        export_every_steps=wish.export_every_steps,
        load_from=wish.load_from,
        export_formats=wish.export_formats,
    )


def run_config(job: LowPrecisionRLJob, plan: JobPlan, inspection: Inspection, settings: RenderSettings) -> RunConfig:
    """Return everything the driver needs, defaults that follow from other fields written out. Nothing of an attempt is in it."""
    spec, meta = effective(job.spec, plan.shape), job.metadata
    found = conversions.paths(job, inspection, plan.rollout_format)
    port = spec.tracking.prometheus_port or settings.prometheus_port
    return RunConfig(
        job_name=meta.name,
        namespace=meta.namespace,
        job_uid=meta.uid,
        trained=trained_document(job.spec),
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
        episode=spec.episode,
        evaluation=spec.evaluation,
        ranks=plan.ranks,
        trainer=spec.topology.trainer,
        rollout=spec.topology.rollout,
        backends=spec.backends,
        weight_sync=spec.weight_sync,
        checkpoint=checkpoint_config(job),
        stability=spec.stability,
        tracking=spec.tracking.model_copy(update={"prometheus_port": port}),
        progress=spec.progress,
        refill_steps=spec.failure_policy.refill_steps,
        stall_seconds=spec.failure_policy.stall_seconds,
    )


def run_config_map(job: LowPrecisionRLJob, config: RunConfig) -> dict[str, Any]:
    """The ConfigMap with runconfig.json; its name carries the content's hash, so a changed config is another object.

    But for what takes effect at once: of that it says what it was first made with, and each attempt is told its own (`live_settings`).
    """
    fixed = _SAME_FOR_ALL.put_into(config).document()
    name = naming.run_config(job.metadata.name, naming.content_hash({names.RUN_CONFIG_KEY: fixed}))
    return jobs.config_map(metadata.metadata(job, name, "run"), {names.RUN_CONFIG_KEY: config.document()})


def live_settings(config: RunConfig) -> str:
    """Return what an attempt's driver puts into the RunConfig it finds, one line of JSON."""
    return json.dumps(LiveSettings.of(config).document(), sort_keys=True)
