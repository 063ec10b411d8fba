"""Tolerations and affinity as Kubernetes has them, typed: a misspelt field would put pods where they must not run, or nowhere."""

from typing import Annotated, Literal

from pydantic import Field

from lprl_api.base import Contract
from lprl_api.kube_names import MAX_KEY, TAINT_PATTERN, LabelKey, LabelValue, ObjectName

MAX = 16
INT32 = 2**31 - 1
Weight = Annotated[int, Field(ge=1, le=100)]


class Toleration(Contract):
    """A taint that pods tolerate."""

    key: Annotated[str, Field(max_length=MAX_KEY, pattern=TAINT_PATTERN)] = Field("", description="Key of the taint. Default: every key.")
    operator: Literal["", "Equal", "Exists"] = Field("Equal", description="How value is compared. Default Equal.")
    value: LabelValue = Field("", description="Value of the taint. Default none.")
    effect: Literal["", "NoSchedule", "PreferNoSchedule", "NoExecute"] = Field("", description="Default: every effect.")
    toleration_seconds: Annotated[int, Field(ge=-INT32, le=INT32)] | None = Field(
        None, description="Seconds a NoExecute taint is tolerated. Default: for ever."
    )


class NodeRequirement(Contract):
    """A condition on one label (or field) of a node."""

    key: LabelKey = Field(description="Label.")
    operator: Literal["In", "NotIn", "Exists", "DoesNotExist", "Gt", "Lt"] = Field(description="Operator.")
    values: Annotated[tuple[LabelValue, ...], Field(max_length=64)] = Field((), description="Values. Default none.")


class FieldRequirement(Contract):
    """A condition on a field of a node."""

    key: Literal["metadata.name"] = Field(description="Field.")
    operator: Literal["In", "NotIn"] = Field(description="Operator.")
    values: Annotated[tuple[ObjectName, ...], Field(min_length=1, max_length=1)] = Field(description="One name.")


class NodeTerm(Contract):
    """Conditions that all hold."""

    match_expressions: Annotated[tuple[NodeRequirement, ...], Field(max_length=MAX)] = Field((), description="By labels. Default none.")
    match_fields: Annotated[tuple[FieldRequirement, ...], Field(max_length=MAX)] = Field((), description="By fields. Default none.")


class NodeTerms(Contract):
    """Terms of which one holds."""

    node_selector_terms: Annotated[tuple[NodeTerm, ...], Field(min_length=1, max_length=MAX)] = Field(description="One of these holds.")


class PreferredNodes(Contract):
    """A term with a weight."""

    weight: Weight = Field(description="1 to 100.")
    preference: NodeTerm = Field(description="Preferred nodes.")


class NodeAffinity(Contract):
    """Which nodes."""

    required_during_scheduling_ignored_during_execution: NodeTerms | None = Field(None, description="Must hold. Default none.")
    preferred_during_scheduling_ignored_during_execution: Annotated[tuple[PreferredNodes, ...], Field(max_length=MAX)] = Field(
        (), description="Should hold. Default none."
    )


class Requirement(Contract):
    """A condition on a label."""

    key: LabelKey = Field(description="Label.")
    operator: Literal["In", "NotIn", "Exists", "DoesNotExist"] = Field(description="Operator.")
    values: Annotated[tuple[LabelValue, ...], Field(max_length=64)] = Field((), description="Values. Default none.")


class Selector(Contract):
    """A label selector."""

    match_labels: dict[LabelKey, LabelValue] = Field({}, description="Labels. Default none.")
    match_expressions: Annotated[tuple[Requirement, ...], Field(max_length=MAX)] = Field((), description="Conditions. Default none.")


class PodTerm(Contract):
    """Pods, and the domain to be together or apart in."""

    topology_key: LabelKey = Field(description="Node label that makes the domain.")
    label_selector: Selector | None = Field(None, description="Pods. Default none.")
    namespaces: Annotated[tuple[ObjectName, ...], Field(max_length=MAX)] = Field((), description="Their namespaces. Default the job's.")
    namespace_selector: Selector | None = Field(None, description="Their namespaces. Default none.")
    match_label_keys: Annotated[tuple[LabelKey, ...], Field(max_length=MAX)] = Field((), description="Same value. Default none.")
    mismatch_label_keys: Annotated[tuple[LabelKey, ...], Field(max_length=MAX)] = Field((), description="Other value. Default none.")


class PreferredPods(Contract):
    """A term with a weight."""

    weight: Weight = Field(description="1 to 100.")
    pod_affinity_term: PodTerm = Field(description="Term.")


class PodAffinity(Contract):
    """Which pods to be with, or apart from."""

    required_during_scheduling_ignored_during_execution: Annotated[tuple[PodTerm, ...], Field(max_length=MAX)] = Field(
        (), description="Must hold. Default none."
    )
    preferred_during_scheduling_ignored_during_execution: Annotated[tuple[PreferredPods, ...], Field(max_length=MAX)] = Field(
        (), description="Should hold. Default none."
    )


class Affinity(Contract):
    """Kubernetes affinity."""

    node_affinity: NodeAffinity | None = Field(None, description="Nodes. Default none.")
    pod_affinity: PodAffinity | None = Field(None, description="Near pods. Default none.")
    pod_anti_affinity: PodAffinity | None = Field(None, description="Apart from pods. Default none.")
