"""Rules on what is merged into pods: environment, labels, placement, resources; and on what the driver's pod reports."""

from collections.abc import Iterator

from lprl_api.field_error import FieldError, wrong
from lprl_api.kube_names import is_prefixed
from lprl_api.rules.case import Case, Rule
from lprl_api.spec.pod_settings import EnvVar, PodSettings, stacked
from lprl_api.spec.quantity import amount
from lprl_api.spec.scheduling import NodeAffinity, NodeRequirement, PodAffinity, Requirement, Selector, Toleration

OWN_ENVIRONMENT = ("LPRL_", "RAY_AUTH_")
"""Prefixes of environment variables the operator sets itself."""
OWN_KEYS = ("lprl.dev/", "ray.io/", "batch.kubernetes.io/", "app.kubernetes.io/managed-by", "job-name", "controller-uid")
"""Labels and annotations of pods that the operator, KubeRay and the Job controller find them by; below a prefix where it ends so."""
ROLES = ("head", "workers", "rollout", "conversion")


def _settings(case: Case) -> Iterator[tuple[str, PodSettings]]:
    template = case.spec.pod_template
    yield "podTemplate", template
    for role in ROLES:
        found = getattr(template, role)
        if found is not None:
            yield f"podTemplate.{role}", found


def _environment(case: Case) -> Iterator[FieldError]:
    for where, settings in _settings(case):
        seen: set[str] = set()
        for index, variable in enumerate(settings.env):
            path = f"{where}.env[{index}]"
            yield from _variable(path, variable)
            if variable.name in seen:
                yield wrong(f"{path}.name", variable.name, "each variable once; remove one")
            seen.add(variable.name)


def _variable(path: str, variable: EnvVar) -> Iterator[FieldError]:
    given = [n for n, v in (("value", variable.value), ("secret", variable.secret), ("valueFrom", variable.value_from)) if v is not None]
    if len(given) != 1:
        yield wrong(path, " and ".join(given) or "neither", "exactly one of value, secret and valueFrom")
    if variable.value_from is not None:
        source = variable.value_from
        refs = (("secretKeyRef", source.secret_key_ref), ("configMapKeyRef", source.config_map_key_ref), ("fieldRef", source.field_ref))
        named = [name for name, ref in refs if ref is not None]
        if len(named) != 1:
            need = "exactly one of secretKeyRef, configMapKeyRef and fieldRef"
            yield wrong(f"{path}.valueFrom", " and ".join(named) or "nothing", need)
    if variable.name.startswith(OWN_ENVIRONMENT):
        yield wrong(f"{path}.name", variable.name, f"a name the operator does not set ({', '.join(OWN_ENVIRONMENT)}*)")


def _own_keys(case: Case) -> Iterator[FieldError]:
    for where, settings in _settings(case):
        for field, keys in (("labels", settings.labels), ("annotations", settings.annotations)):
            for key in keys:
                if is_prefixed(key, OWN_KEYS):
                    yield wrong(f"{where}.{field}.{key}", key, "a key of your own: pods are found by this one, so that ours would stay")


def _rollout(case: Case) -> Iterator[FieldError]:
    if case.spec.pod_template.rollout is not None and case.spec.topology.placement != "split":
        yield wrong("podTemplate.rollout", "settings", "topology.placement split, or settings under podTemplate.workers")


def _tolerations(case: Case) -> Iterator[FieldError]:
    for where, settings in _settings(case):
        for index, toleration in enumerate(settings.tolerations):
            yield from _toleration(f"{where}.tolerations[{index}]", toleration)


def _toleration(path: str, found: Toleration) -> Iterator[FieldError]:
    if found.operator == "Exists" and found.value:
        yield wrong(f"{path}.value", found.value, "no value with operator Exists, or operator Equal")
    if not found.key and found.operator != "Exists":
        yield wrong(f"{path}.operator", found.operator or "nothing", "Exists where no key is given, or a key")
    if found.toleration_seconds is not None and found.effect != "NoExecute":
        yield wrong(f"{path}.tolerationSeconds", found.toleration_seconds, "effect NoExecute, or no tolerationSeconds")


def _affinity(case: Case) -> Iterator[FieldError]:
    for where, settings in _settings(case):
        if settings.affinity is None:
            continue
        path, affinity = f"{where}.affinity", settings.affinity
        if affinity.node_affinity is not None:
            yield from _nodes(f"{path}.nodeAffinity", affinity.node_affinity)
        for name, pods in (("podAffinity", affinity.pod_affinity), ("podAntiAffinity", affinity.pod_anti_affinity)):
            if pods is not None:
                yield from _pods(f"{path}.{name}", pods)


REQUIRED, PREFERRED = "requiredDuringSchedulingIgnoredDuringExecution", "preferredDuringSchedulingIgnoredDuringExecution"


def _nodes(path: str, affinity: NodeAffinity) -> Iterator[FieldError]:
    required = affinity.required_during_scheduling_ignored_during_execution
    terms = [(f"{path}.{REQUIRED}.nodeSelectorTerms[{i}]", t) for i, t in enumerate(required.node_selector_terms if required else ())]
    preferred = affinity.preferred_during_scheduling_ignored_during_execution
    terms += [(f"{path}.{PREFERRED}[{i}].preference", p.preference) for i, p in enumerate(preferred)]
    for where, term in terms:
        for index, requirement in enumerate(term.match_expressions):
            yield from _requirement(f"{where}.matchExpressions[{index}]", requirement)


def _pods(path: str, affinity: PodAffinity) -> Iterator[FieldError]:
    terms = [(f"{path}.{REQUIRED}[{i}]", t) for i, t in enumerate(affinity.required_during_scheduling_ignored_during_execution)]
    preferred = affinity.preferred_during_scheduling_ignored_during_execution
    terms += [(f"{path}.{PREFERRED}[{i}].podAffinityTerm", p.pod_affinity_term) for i, p in enumerate(preferred)]
    for where, term in terms:
        for name, selector in (("labelSelector", term.label_selector), ("namespaceSelector", term.namespace_selector)):
            yield from _selector(f"{where}.{name}", selector)


def _selector(path: str, selector: Selector | None) -> Iterator[FieldError]:
    for index, requirement in enumerate(selector.match_expressions if selector is not None else ()):
        yield from _requirement(f"{path}.matchExpressions[{index}]", requirement)


def _requirement(path: str, found: NodeRequirement | Requirement) -> Iterator[FieldError]:
    got = ", ".join(found.values) or "nothing"
    if found.operator in ("In", "NotIn") and not found.values:
        yield wrong(f"{path}.values", got, f"at least one value with operator {found.operator}")
    if found.operator in ("Exists", "DoesNotExist") and found.values:
        yield wrong(f"{path}.values", got, f"no values with operator {found.operator}")
    if found.operator in ("Gt", "Lt") and not (len(found.values) == 1 and found.values[0].isdecimal()):
        yield wrong(f"{path}.values", got, f"one whole number with operator {found.operator}")


def _resources(case: Case) -> Iterator[FieldError]:
    """A request above its limit, as the pod would have both; the path is where the request stands."""
    for container in ("ray-head", "driver", "workers", "rollout", "conversion"):
        layers = list(case.spec.pod_template.own_resources(container))
        if container == "conversion":
            layers.insert(1, ("conversion.resources", case.spec.conversion.resources))
        whole = stacked(layers[0][1], [resources for _, resources in layers[1:]])
        for name, request in whole.requests.items():
            limit = whole.limits.get(name)
            if limit is None:
                continue
            where = next(path for path, resources in reversed(layers) if name in resources.requests)
            if amount(request) > amount(limit):
                yield wrong(f"{where}.requests.{name}", request, f"at most the limit, {limit}")
            elif "/" in name and amount(request) != amount(limit):
                yield wrong(f"{where}.requests.{name}", request, f"the limit, {limit}: devices cannot be shared out")


def _reports(case: Case) -> Iterator[FieldError]:
    """The interval is kept, so that a run whose step takes longer than `stallSeconds` is known to live by its reports alone."""
    interval, stall = case.spec.progress.interval_seconds, case.spec.failure_policy.stall_seconds
    if interval >= stall:
        yield wrong("failurePolicy.stallSeconds", stall, f"more than progress.intervalSeconds ({interval:g}): reports would come too late")


RULES: tuple[Rule, ...] = (_environment, _own_keys, _rollout, _tolerations, _affinity, _resources, _reports)
