"""What a spec comes to where a field is not written: every default that follows from other fields, resolved in this one place.

Rules judge these values, the planner counts with them, the RunConfig carries them (`effective`), and the pods ask the same
functions. One function a value, each reading as few fields as it can: a spec with gaps (partial.py) is judged by what is there.
"""

from lprl_api.catalog.accelerators import ACCELERATORS
from lprl_api.model.formats.chosen import int4_scope
from lprl_api.model.model_shape import ModelShape
from lprl_api.spec.algorithm import Algorithm, Data, Evaluation, Kl, Sampling
from lprl_api.spec.episode import Episode
from lprl_api.spec.job import LowPrecisionRLJobSpec
from lprl_api.spec.precision import Precision
from lprl_api.spec.topology import RolloutLayout, Topology

GROUP_RELATIVE = ("grpo", "dr-grpo", "gspo", "cispo", "reinforce-plus-plus-baseline")
"""Objectives that compare the samples of a prompt."""
COLDEST_TEMPERATURE = 0.01
"""Below it only exact near-ties of the likeliest token are drawn: samples of a prompt are equal, log-probabilities 0 or beyond use."""
SMALLEST_TOP_P = 0.01
"""A smaller nucleus holds one token wherever the likeliest has 1 %, which is nearly everywhere: samples of a prompt are equal."""
ASSUMED_PROMPT_TOKENS = 1024
"""Prompt length planned for where data.maxPromptTokens is not set."""


def samples_per_step(algorithm: Algorithm) -> int:
    """Return the samples a rollout step trains on."""
    return algorithm.rollout_batch_size * algorithm.samples_per_prompt


def global_batch_size(algorithm: Algorithm) -> int:
    """Return the samples of one optimizer step: all of a rollout step unless the job says fewer."""
    return algorithm.global_batch_size if algorithm.global_batch_size is not None else samples_per_step(algorithm)


def optimizer_steps(algorithm: Algorithm) -> int:
    """Return the optimizer steps of the whole run, which schedules count in."""
    return algorithm.steps * max(1, samples_per_step(algorithm) // global_batch_size(algorithm))


def prompts_per_round(algorithm: Algorithm) -> int:
    """Return the prompts sampled at a time."""
    dynamic = algorithm.dynamic_sampling
    over = dynamic.over_sampling_batch_size if dynamic.enabled else None
    return over if over is not None else algorithm.rollout_batch_size


def least_of_group(algorithm: Algorithm) -> int:
    """Return the fewest samples of a prompt that teach anything: objectives that compare them need two."""
    return 2 if algorithm.name in GROUP_RELATIVE else 1


def normalizes_by_std(algorithm: Algorithm) -> bool:
    """Return whether group advantages are divided by their standard deviation."""
    return algorithm.normalize_by_std if algorithm.normalize_by_std is not None else algorithm.name in ("grpo", "gspo", "cispo")


def whitens(algorithm: Algorithm) -> bool:
    """Return whether advantages are whitened over the batch."""
    return algorithm.whiten_advantages if algorithm.whiten_advantages is not None else algorithm.name.startswith("reinforce-plus-plus")


def loss_aggregation(algorithm: Algorithm) -> str:
    """Return how token losses are summed up."""
    return algorithm.loss_aggregation or ("constant" if algorithm.name == "dr-grpo" else "sample-mean")


def reads_reference(kl: Kl) -> bool:
    """Return whether the KL reference is loaded at all."""
    return kl.coefficient > 0 or kl.measure


def evaluation_sampling(evaluation: Evaluation, sampling: Sampling) -> Sampling:
    """Return the sampling of the evaluation: its own, else the job's, greedy."""
    return evaluation.sampling if evaluation.sampling is not None else sampling.model_copy(update={"temperature": 0.0})


def is_greedy(sampling: Sampling) -> bool:
    """Return whether all samples of a prompt are equal: by temperature, or because one token is left to draw from."""
    return sampling.temperature < COLDEST_TEMPERATURE or sampling.top_k == 1 or sampling.top_p < SMALLEST_TOP_P


def prompt_tokens(data: Data) -> int:
    """Return the longest prompt that is planned for."""
    return data.max_prompt_tokens if data.max_prompt_tokens is not None else ASSUMED_PROMPT_TOKENS


def episode_tokens(episode: Episode, response_tokens: int) -> int:
    """Return the most tokens an episode may have after its prompt, the context apart; `response_tokens`: of one turn."""
    if episode.type == "single-turn":
        return response_tokens
    return episode.max_episode_tokens or response_tokens * episode.max_turns


def most_drawn(episode: Episode, response_tokens: int, context: int) -> int:
    """Return the most tokens that the policy can draw in one episode, which is what a constant loss denominator stands for.

    Args:
        episode: of the job.
        response_tokens: the limit of one turn.
        context: longest sequence that is served, tokens.

    """
    if episode.type == "single-turn":
        return response_tokens
    return min(episode_tokens(episode, response_tokens), response_tokens * episode.max_turns, context)


def served_context(rollout: RolloutLayout, shape: ModelShape | None) -> tuple[int | None, str]:
    """Return the longest sequence that is served, None where nobody knows it yet, and what says so."""
    length = rollout.context_length
    if shape is not None and (length is None or length >= shape.max_positions):
        return shape.max_positions, f"the model has {shape.max_positions} positions"
    return length, f"topology.rollout.contextLength {length}"


def context_length(rollout: RolloutLayout, shape: ModelShape) -> int:
    """Return the longest sequence that is served: a longer contextLength does not add positions to the model."""
    return min(rollout.context_length or shape.max_positions, shape.max_positions)


def engine_tensor(rollout: RolloutLayout) -> int:
    """Return the tensor-parallel size inside an engine."""
    return rollout.tensor if rollout.tensor is not None else rollout.gpus_per_engine


def gpus_per_node(topology: Topology) -> int:
    """Return the devices (or processes) of a node; 1 for an accelerator the table does not know, which has an error of its own."""
    if topology.gpus_per_node is not None:
        return topology.gpus_per_node
    accelerator = ACCELERATORS.get(topology.accelerator)
    return accelerator.gpus_per_node if accelerator else 1


def side_nodes(topology: Topology) -> tuple[int | None, int | None]:
    """Return the nodes of trainer and engines, None where the plan decides.

    Colocated sides share all nodes. Split ones have what is written, or what the other side leaves of `nodes` (then possibly
    less than one, which has an error of its own).
    """
    whole = topology.nodes if isinstance(topology.nodes, int) else None
    if topology.placement == "colocated":
        return whole, whole
    trainer, rollout = topology.trainer.nodes, topology.rollout.nodes
    if whole is not None and (trainer is None) != (rollout is None):
        return (whole - rollout, rollout) if rollout is not None else (trainer, whole - (trainer or 0))
    return trainer, rollout


def transport(topology: Topology, asked: str) -> str:
    """Return how weights reach the engines; `local` stands for CUDA IPC as well."""
    return asked if asked != "auto" else "broadcast" if topology.placement == "split" else "local"


def effective(spec: LowPrecisionRLJobSpec, shape: ModelShape | None = None) -> LowPrecisionRLJobSpec:
    """Return a spec with every derived default written out; a second time changes nothing.

    What only the model tells (INT4's scope, the context length) is written out when its shape is given.
    """
    evaluation = spec.evaluation
    if evaluation is not None:
        evaluation = evaluation.model_copy(update={"sampling": evaluation_sampling(evaluation, spec.sampling)})
    rollout: dict[str, object] = {"tensor": engine_tensor(spec.topology.rollout)}
    if shape is not None:
        rollout["context_length"] = spec.topology.rollout.context_length or shape.max_positions
    topology = {"gpus_per_node": gpus_per_node(spec.topology), "rollout": spec.topology.rollout.model_copy(update=rollout)}
    return spec.model_copy(
        update={
            "algorithm": _algorithm(spec.algorithm),
            "evaluation": evaluation,
            "topology": spec.topology.model_copy(update=topology),
            "precision": spec.precision if shape is None else _precision(spec.precision, shape),
        }
    )


def _algorithm(algorithm: Algorithm) -> Algorithm:
    dynamic = algorithm.dynamic_sampling
    if dynamic.enabled:
        dynamic = dynamic.model_copy(update={"over_sampling_batch_size": prompts_per_round(algorithm)})
    return algorithm.model_copy(
        update={
            "global_batch_size": global_batch_size(algorithm),
            "normalize_by_std": normalizes_by_std(algorithm),
            "whiten_advantages": whitens(algorithm),
            "loss_aggregation": loss_aggregation(algorithm),
            "dynamic_sampling": dynamic,
        }
    )


def _precision(precision: Precision, shape: ModelShape) -> Precision:
    scope = int4_scope(precision, shape.moe is not None)
    return precision.model_copy(update={"int4": precision.int4.model_copy(update={"scope": scope})})
