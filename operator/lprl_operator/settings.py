"""What the platform decides for the whole operator: one YAML file, read once at start-up, validated like a manifest.

The chart writes it from `values.config`; every field has a default, so that `python -m lprl_operator` runs without a file.
"""

import os
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import Field, ValidationError, model_validator

from lprl_api.base import Contract
from lprl_api.errors import UserError
from lprl_api.kube_names import LabelKey
from lprl_api.spec.quantity import Quantity, amount
from lprl_operator.resources.settings import RenderSettings

ENV_CONFIG = "LPRL_OPERATOR_CONFIG"
"""Path of the configuration file."""
ENV_POD_NAME = "POD_NAME"
ENV_POD_NAMESPACE = "POD_NAMESPACE"
DEFAULT_NAMESPACE = "lprl-system"
MAX_BYTES = 1 << 20

_DEFAULTS = RenderSettings()
Limits = dict[LabelKey, Quantity]
Port = Annotated[int, Field(ge=1, le=65535)]


class LeaderElection(Contract):
    """One replica acts; the others hold warm caches."""

    enabled: bool = Field(True, description="Take a Lease before acting. Off only where one replica is certain.")
    lease_name: str = Field("lprl-operator", description="Name of the Lease in the operator's namespace.")
    lease_duration_seconds: int = Field(15, ge=3, le=300, description="Seconds after which a silent leader is replaced.")
    renew_deadline_seconds: int = Field(10, ge=2, le=299, description="Seconds after which a leader that cannot renew stops acting.")
    retry_period_seconds: int = Field(2, ge=1, le=60, description="Seconds between two tries to take or renew the Lease.")

    @model_validator(mode="after")
    def _a_leader_stops_before_it_is_replaced(self) -> Self:
        lease, renew, retry = self.lease_duration_seconds, self.renew_deadline_seconds, self.retry_period_seconds
        if renew >= lease:
            raise ValueError(f"renewDeadlineSeconds {renew} needs to be less than leaseDurationSeconds {lease}: two would lead at once")
        if retry >= renew:
            raise ValueError(
                f"retryPeriodSeconds {retry} needs to be less than renewDeadlineSeconds {renew}: the Lease would never be renewed"
            )
        return self


class Metrics(Contract):
    """Prometheus metrics of the operator."""

    enabled: bool = Field(True, description="Serve /metrics.")
    port: Port = Field(9090, description="Port of /metrics.")
    authentication: bool = Field(True, description="Ask the API server who the scraper is and whether it may `get /metrics`.")
    per_job: bool = Field(True, description="Export step, reward, mismatch and tokens/s of every job that has not ended.")


class Webhook(Contract):
    """Validating admission webhook."""

    enabled: bool = Field(False, description="Serve the webhook.")
    port: Port = Field(9443, description="Port the webhook listens on (TLS).")
    service_name: str = Field("lprl-webhook", description="Service in front of it: the certificate's name.")
    configuration_name: str = Field("lprl", description="ValidatingWebhookConfiguration whose caBundle is kept up to date.")
    certificate: Literal["self-made", "mounted"] = Field(
        "self-made",
        description="self-made: made, kept in `secretName`, rotated by the leader; mounted: read from `certificateFolder`.",
    )
    secret_name: str = Field("lprl-webhook-certificate", description="Secret of the self-made certificate.")
    certificate_folder: str = Field("/etc/lprl-webhook", description="Folder with tls.crt and tls.key (cert-manager mounts them).")
    validity_days: int = Field(90, ge=1, le=3650, description="Days a self-made certificate is valid; renewed after two thirds.")


class Resources(Contract):
    """What rendered objects depend on: images and requests."""

    image: str = Field(_DEFAULTS.image, description="Workload image: Ray, torch and lprl_workload.")
    head_image: str | None = Field(None, description="Image of the Ray head and its driver; default: `image`.")
    image_pull_policy: Literal["Always", "IfNotPresent", "Never"] = Field("IfNotPresent", description="Pull policy of workload images.")
    ray_version: str = Field(_DEFAULTS.ray_version, description="Version of Ray in the images.")
    network_policy: bool = Field(True, description="Restrict ingress of a job's pods to each other and to metric scrapes.")
    pod_disruption_budget: bool = Field(False, description="Make a PodDisruptionBudget per job, so that drains wait for it.")
    pod_monitor: bool = Field(False, description="Make a PodMonitor per job (needs the Prometheus operator).")
    head_cpu: Quantity = Field(_DEFAULTS.head_cpu, description="CPU request of the Ray head container.")
    head_memory: Quantity = Field(_DEFAULTS.head_memory, description="Memory request of the Ray head container.")
    head_limits: Limits = Field({}, description="Limits of the Ray head container.")
    driver_cpu: Quantity = Field(_DEFAULTS.driver_cpu, description="CPU request of the driver container.")
    driver_memory: Quantity = Field(_DEFAULTS.driver_memory, description="Memory request of the driver container.")
    driver_limits: Limits = Field({}, description="Limits of the driver container.")
    worker_limits: Limits = Field({}, description="Limits of a worker container; each replaces the planned request.")
    conversion_cpu: Quantity = Field(_DEFAULTS.conversion_cpu, description="CPU request of a conversion pod.")
    conversion_memory: Quantity = Field(_DEFAULTS.conversion_memory, description="Memory request of a conversion pod.")
    conversion_limits: Limits = Field({}, description="Limits of inspect, conversion and finalise pods.")
    prometheus_port: Port | None = Field(_DEFAULTS.prometheus_port, description="Port of driver metrics.")

    @model_validator(mode="after")
    def _requests_fit_their_limits(self) -> "Resources":
        for role in ("head", "driver", "conversion"):
            limits: Mapping[str, str] = getattr(self, f"{role}_limits")
            for name in ("cpu", "memory"):
                request = getattr(self, f"{role}_{name}")
                if name in limits and amount(request) > amount(limits[name]):
                    raise ValueError(f"{role}{name.capitalize()} {request} is above {role}Limits.{name} {limits[name]}")
        return self

    def render(self) -> RenderSettings:
        """Return them as the renderer takes them."""
        return RenderSettings(**self.model_dump())


class OperatorSettings(Contract):
    """Settings of the operator."""

    namespaces: tuple[str, ...] = Field((), description="Namespaces served; empty: all.")
    workers: int = Field(8, ge=1, le=64, description="Jobs reconciled at the same time.")
    resync_seconds: int = Field(600, ge=30, description="Seconds after which a job is read afresh even though nothing changed.")
    request_timeout_seconds: int = Field(30, ge=1, le=300, description="Seconds after which an API request is given up.")
    log_level: Literal["debug", "info", "warning", "error"] = Field("info", description="Least severe level that is logged.")
    log_format: Literal["json", "text"] = Field("json", description="One JSON object a line, or text for people.")
    health_port: Port = Field(8081, description="Port of /healthz, for the kubelet's probes.")
    leader_election: LeaderElection = Field(default_factory=lambda: LeaderElection.model_validate({}))
    metrics: Metrics = Field(default_factory=lambda: Metrics.model_validate({}))
    webhook: Webhook = Field(default_factory=lambda: Webhook.model_validate({}))
    resources: Resources = Field(default_factory=lambda: Resources.model_validate({}))


@dataclass(frozen=True, slots=True)
class Identity:
    """Who this process is among the replicas."""

    namespace: str
    name: str


def identity(environment: Mapping[str, str] = os.environ) -> Identity:
    """Return namespace and name of this pod, or what stands for them outside a cluster."""
    name = environment.get(ENV_POD_NAME) or f"{socket.gethostname()}-{os.getpid()}"
    return Identity(environment.get(ENV_POD_NAMESPACE) or DEFAULT_NAMESPACE, name)


def load(environment: Mapping[str, str] = os.environ) -> OperatorSettings:
    """Read the settings named by $LPRL_OPERATOR_CONFIG; defaults without one.

    Raises:
        UserError: the file cannot be read, is no YAML mapping, or a field is wrong; every wrong field is named.

    """
    path = environment.get(ENV_CONFIG)
    if not path:
        return OperatorSettings.model_validate({})
    return parse(_read(Path(path)), path)


def parse(document: Any, origin: str) -> OperatorSettings:
    """Validate a document of settings; `origin` names it in errors."""
    if not isinstance(document, Mapping):
        raise UserError(f"{origin}: a mapping of settings is needed, got {type(document).__name__}", "write it like `workers: 8`")
    try:
        return OperatorSettings.model_validate(document)
    except ValidationError as error:
        wrong = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}, got {e['input']!r:.80}" for e in error.errors())
        raise UserError(f"{origin}: {wrong}", "compare it with `config` in the chart's values.yaml") from None


def _read(path: Path) -> Any:
    try:
        if path.stat().st_size > MAX_BYTES:
            raise UserError(f"{path}: larger than {MAX_BYTES} bytes", "settings are small: is this the right file?")
        return yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise UserError(f"{path}: {error}", f"set {os.path.basename(ENV_CONFIG)} to a readable YAML file") from None
