"""The rule on models that nothing here can train yet. Plans leave it out: what such a job would need can be known before."""

from collections.abc import Iterator

from lprl_api.field_error import FieldError, wrong
from lprl_api.model.by_class import proven_type, trained_types
from lprl_api.model.megatron import why_not_staged
from lprl_api.rules.case import Case, Rule


def _trained(case: Case) -> Iterator[FieldError]:
    shape, trainer = case.shape, case.spec.backends.trainer
    if shape is None:
        return
    inside = case.inspection.model_class if case.inspection is not None else None
    by_class = shape.family == "other" or shape.tower_parameters != 0 or inside is not None
    name = inside or shape.architecture
    on_cpus = case.accelerator is not None and case.accelerator.is_cpu
    if by_class and (model_type := proven_type(name)):
        if case.spec.backends.rollout != "torch":
            why = f"backends.rollout torch alone serves {name}, which is built by its class"
        elif trainer == "torch" or (reason := why_not_staged(model_type, on_cpus)) is None:
            return
        else:
            why = f"backends.trainer torch alone trains {name}; megatron does not: {reason}"
    elif shape.family == "other":
        why = f"no trainer of this version trains {shape.architecture}; families that are trained: {trained_types()}"
    elif by_class:
        why = f"{trainer} trains no language model that is a part of another (text_config)"
    else:
        return
    path = "model.source" if case.spec.model.shape is None else "model.shape"
    got = shape.architecture if case.spec.model.shape is None else case.spec.model.shape
    yield wrong(path, got, f"a model that can be trained: {why}; lprl plan says what this one would need, lprl convert converts it")


RULES: tuple[Rule, ...] = (_trained,)
