"""Rules on how responses are drawn, in training and in evaluation: judged by what is drawn in the end, written or not."""

from collections.abc import Iterator

from lprl_api.derived import effective
from lprl_api.field_error import FieldError, wrong
from lprl_api.rules.case import Case, Rule
from lprl_api.spec.algorithm import Sampling

_EQUAL = "greedy samples of a prompt are all equal and their log-probabilities are no policy"


def _training(case: Case) -> Iterator[FieldError]:
    sampling = case.spec.sampling
    if sampling.temperature < effective.COLDEST_TEMPERATURE:
        need = f"more than 0, at least {effective.COLDEST_TEMPERATURE}: {_EQUAL}; 1 is usual"
        yield wrong("sampling.temperature", sampling.temperature, need)
    if sampling.top_k == 1:
        yield wrong("sampling.topK", 1, f"at least 2, or nothing for all: {_EQUAL}")
    if sampling.top_p < effective.SMALLEST_TOP_P:
        yield wrong("sampling.topP", sampling.top_p, f"at least {effective.SMALLEST_TOP_P}; 1 is usual: {_EQUAL}")


def _training_context(case: Case) -> Iterator[FieldError]:
    yield from _fits_context(case, "sampling", case.spec.sampling)


def _pass_at(case: Case) -> Iterator[FieldError]:
    evaluation = case.spec.evaluation
    if evaluation is None:
        return
    for index, k in enumerate(evaluation.pass_at):
        if k > evaluation.samples_per_prompt:
            need = f"at most evaluation.samplesPerPrompt ({evaluation.samples_per_prompt})"
            yield wrong(f"evaluation.passAt[{index}]", k, need)


def _greedy_evaluation(case: Case) -> Iterator[FieldError]:
    evaluation = case.spec.evaluation
    if evaluation is None or evaluation.samples_per_prompt < 2:
        return
    if effective.is_greedy(effective.evaluation_sampling(evaluation, case.spec.sampling)):
        default = "without evaluation.sampling it is; " if evaluation.sampling is None else ""
        least = effective.COLDEST_TEMPERATURE
        need = f"1 with greedy sampling ({default}all samples are equal), or evaluation.sampling with a temperature of at least {least}"
        if evaluation.sampling is not None:
            need += f", topK not 1 and topP of at least {effective.SMALLEST_TOP_P}"
        yield wrong("evaluation.samplesPerPrompt", evaluation.samples_per_prompt, need)


def _evaluation_context(case: Case) -> Iterator[FieldError]:
    if case.spec.evaluation is not None and case.spec.evaluation.sampling is not None:  # else it is as long as the job's
        yield from _fits_context(case, "evaluation.sampling", case.spec.evaluation.sampling)


def _fits_context(case: Case, path: str, sampling: Sampling) -> Iterator[FieldError]:
    prompt = case.spec.data.max_prompt_tokens or 1
    length, source = effective.served_context(case.spec.topology.rollout, case.shape)
    if length is None or prompt + sampling.max_response_tokens <= length:
        return
    if prompt >= length:
        yield wrong("data.maxPromptTokens", prompt, f"at most {length - 1}, so that a response fits: {source}")
        return
    need = f"at most {length - prompt} ({source}, less prompt)"
    if source.startswith("topology"):
        need += ", or a longer contextLength"
    yield wrong(f"{path}.maxResponseTokens", sampling.max_response_tokens, need)


def _context_length(case: Case) -> Iterator[FieldError]:
    length, shape = case.spec.topology.rollout.context_length, case.shape
    if length is not None and shape is not None and length > shape.max_positions:
        need = f"at most {shape.max_positions}, the positions of the model (max_position_embeddings), or nothing"
        yield wrong("topology.rollout.contextLength", length, need)


RULES: tuple[Rule, ...] = (_training, _training_context, _pass_at, _greedy_evaluation, _evaluation_context, _context_length)
