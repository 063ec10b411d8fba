"""Remarks on a plan: legal and fitting, and still worth knowing."""

from lprl_api.catalog.mismatch import expectation, remarks
from lprl_api.derived import effective
from lprl_api.model.formats import Int4Group
from lprl_api.model.weights import unmatched
from lprl_api.spec.job import LowPrecisionRLJobSpec
from lprl_api.spec.quantity import amount
from lprl_api.wire.runconfig import Ranks
from lprl_operator.plan.caches import state_bytes
from lprl_operator.plan.memory import Sizing, make_engine


def plan_notes(sizing: Sizing) -> tuple[str, ...]:
    """Return what a reader of the plan should know."""
    case, engine, notes = sizing.case, make_engine(sizing), []
    fmt = case.rollout_format(sizing.shape)
    samples = effective.prompts_per_round(case.spec.algorithm) * case.spec.algorithm.samples_per_prompt
    each = -(-samples // sizing.ranks.engines)
    if case.sglang and engine.concurrency < each:
        notes.append(f"the KV cache holds {engine.concurrency} longest sequences, an engine gets {each} at a time: they run in turns")
    notes += _model_notes(sizing, engine.concurrency)
    if isinstance(fmt, Int4Group) and sizing.shape.moe is None:
        notes.append("dense INT4 is faster than BF16 below batch 48 only; it saves memory at any batch (FP8 is faster throughout)")
    if getattr(fmt, "activations", "dynamic") == "none":
        notes.append(
            "FP8 without activation quantisation computes in BF16 from FP8 weights (W8A16): it saves memory; its speed was not measured, "
            "and is not that of FP8 products"
        )
    if case.sglang:
        notes.append(f"mismatch to expect: {expectation(case.spec.precision)}")
    evaluation = case.spec.evaluation
    if evaluation is not None and evaluation.engines:
        others = f"the other {sizing.ranks.engines - evaluation.engines} of {sizing.ranks.engines} engines generate meanwhile"
        notes.append(f"evaluation.engines: {evaluation.engines} draw an evaluation beside training, {others}")
    notes += remarks(case.spec.precision)
    if sizing.groups.data_parallel * sizing.groups.context == 1 and not case.spec.optimizer.cpu_offload and not sizing.accelerator.is_cpu:
        notes.append("data parallel x context is 1: the optimizer state is not sharded")
    notes += [
        f"precision.excludeModules {pattern!r} matches no module of {sizing.shape.architecture}: it leaves out nothing"
        for pattern in unmatched(sizing.shape, case.spec.precision.exclude_modules)
    ]
    if sizing.limit_bytes == 0:
        notes.append("host memory is not known: bytes are reported, not checked")
    return tuple(notes)


def _model_notes(sizing: Sizing, concurrency: int) -> list[str]:
    """What of a model is planned for and neither trained nor a key or a value."""
    case, shape, found = sizing.case, sizing.shape, []
    most, state = case.spec.topology.rollout.max_concurrency, state_bytes(sizing.shape, case.engine_tensor)
    if state and case.sglang and (most is None or most > concurrency):
        found.append(
            f"linear layers keep {state / 1e6:.1f} MB of every sequence on each GPU, however short it is: beside it the cache holds "
            f"{concurrency} longest sequences; topology.rollout.maxConcurrency {concurrency} admits no more"
        )
    if shape.tower_parameters:
        found.append("weights outside the language model stay as they are: engines and folders hold them in BF16, the trainer does not")
    if shape.tower_parameters is None:
        found.append("the language model only, of a model whose other parts are not counted: nobody knows their sizes from config.json")
    return found


def limit_notes(spec: LowPrecisionRLJobSpec, ranks: Ranks, planned_bytes: int) -> tuple[str, ...]:
    """Limits of workers' memory that are below what a worker pod is planned to use, its /dev/shm included."""
    found = []
    for role in ("workers", "rollout") if ranks.placement == "split" else ("workers",):
        layers = spec.pod_template.own_resources(role)
        for path, resources in reversed(layers):
            limit = resources.limits.get("memory")
            if limit is not None:
                if amount(limit) < planned_bytes:
                    need = f"{planned_bytes / 1e9:.1f} GB planned for a worker"
                    found.append(f"{path}.limits.memory {limit} is below the {need}: it may be killed for memory")
                break
    return tuple(dict.fromkeys(found))
