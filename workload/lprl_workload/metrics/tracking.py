"""Sinks into tracking services, and the choice of sinks from the run's configuration."""

import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lprl_api import names
from lprl_api.spec.operations import Mlflow, Tracking, Wandb
from lprl_workload.metrics.sinks import Guarded, PrometheusSink, Row, Sink, TensorBoardSink

log = logging.getLogger(__name__)
"""Address the metrics port binds to: the loopback device unless set (pods: 0.0.0.0)."""
CONNECT_TIMEOUT_S = "10"


class MlflowSink:
    """One MLflow run per attempt, named after the job."""

    def __init__(self, settings: Mlflow, job: str, attempt: int) -> None:
        # An unreachable server must cost seconds, not the default minutes of retries.
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", CONNECT_TIMEOUT_S)
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
        import mlflow

        mlflow.set_tracking_uri(settings.tracking_uri)
        mlflow.set_experiment(settings.experiment)
        self._mlflow: Any = mlflow
        mlflow.start_run(run_name=f"{job}-a{attempt}")

    def write(self, step: int, row: Row) -> None:
        """Log every number."""
        self._mlflow.log_metrics({name: value for name, value in row.items() if value is not None}, step=step)

    def close(self) -> None:
        """End the run."""
        self._mlflow.end_run()


class WandbSink:
    """One Weights & Biases run per attempt, grouped by job."""

    def __init__(self, settings: Wandb, job: str, attempt: int, folder: Path) -> None:
        import wandb

        self._run: Any = wandb.init(
            project=settings.project,
            entity=settings.entity,
            group=settings.group or job,
            name=f"{job}-a{attempt}",
            mode=settings.mode,
            dir=str(folder),
            settings=wandb.Settings(base_url=settings.base_url) if settings.base_url else None,
        )

    def write(self, step: int, row: Row) -> None:
        """Log every number."""
        self._run.log({name: value for name, value in row.items() if value is not None}, step=step)

    def close(self) -> None:
        """Finish the run."""
        self._run.finish()


def make_sinks(tracking: Tracking, job: str, attempt: int, folder: Path, resume_step: int) -> list[Sink]:
    """Return the optional sinks of a run; one that cannot start is logged once and left out."""
    sinks: list[Sink] = []

    def offer(name: str, make: Callable[[], Sink]) -> None:
        try:
            sinks.append(Guarded(name, make()))
        except Exception as error:  # a missing package or an unreachable service must not stop training
            log.warning("metrics sink %s cannot start (%s); the run goes on without it", name, error)

    if tracking.tensorboard:
        offer("tensorboard", lambda: TensorBoardSink(folder / "tensorboard", resume_step))
    if tracking.prometheus_port is not None:
        port, address = tracking.prometheus_port, os.environ.get(names.ENV_PROMETHEUS_ADDRESS, "127.0.0.1")
        offer("prometheus", lambda: PrometheusSink(port, address, job))
    if tracking.mlflow is not None:
        mlflow = tracking.mlflow
        offer("mlflow", lambda: MlflowSink(mlflow, job, attempt))
    if tracking.wandb is not None:
        wandb = tracking.wandb
        offer("wandb", lambda: WandbSink(wandb, job, attempt, folder))
    return sinks
