"""Rules on the objective, its data, optimizer and stability guard."""

from collections.abc import Iterator

from lprl_api.derived import effective
from lprl_api.field_error import FieldError, wrong
from lprl_api.rules.case import Case, Rule, divisors

GROUP_RELATIVE = effective.GROUP_RELATIVE
_BOUNDED = "tis, icepop or mis"
REINFORCE = ("reinforce-plus-plus", "reinforce-plus-plus-baseline")


def _global_batch(case: Case) -> Iterator[FieldError]:
    algorithm = case.spec.algorithm
    samples, size = effective.samples_per_step(algorithm), effective.global_batch_size(algorithm)
    if samples % size:
        need = f"a divisor of rolloutBatchSize x samplesPerPrompt = {samples}: {divisors(samples)}"
        yield wrong("algorithm.globalBatchSize", size, need)


def _group(case: Case) -> Iterator[FieldError]:
    algorithm = case.spec.algorithm
    if algorithm.name in GROUP_RELATIVE and algorithm.samples_per_prompt < 2:
        need = f"at least 2: {algorithm.name} compares the samples of a prompt; or algorithm.name reinforce-plus-plus"
        yield wrong("algorithm.samplesPerPrompt", algorithm.samples_per_prompt, need)


def _group_filter(case: Case) -> Iterator[FieldError]:
    algorithm = case.spec.algorithm
    if algorithm.dynamic_sampling.enabled and algorithm.samples_per_prompt < 2 and algorithm.name not in GROUP_RELATIVE:
        need = "at least 2 with dynamicSampling: the rewards of one sample never differ, so no group is kept; or enabled false"
        yield wrong("algorithm.samplesPerPrompt", algorithm.samples_per_prompt, need)


def _whole_batch(case: Case) -> Iterator[FieldError]:
    algorithm = case.spec.algorithm
    if algorithm.name not in GROUP_RELATIVE and effective.samples_per_step(algorithm) < 2:
        need = f"at least 2: {algorithm.name} whitens its advantages over the samples of a step, one sample's are 0"
        yield wrong("algorithm.rolloutBatchSize", algorithm.rollout_batch_size, need)


def _over_sampling(case: Case) -> Iterator[FieldError]:
    algorithm = case.spec.algorithm
    over = algorithm.dynamic_sampling.over_sampling_batch_size
    if over is not None and not algorithm.dynamic_sampling.enabled:
        yield wrong("algorithm.dynamicSampling.enabled", False, "true, or no overSamplingBatchSize")
    if over is not None and over < algorithm.rollout_batch_size:
        need = f"at least rolloutBatchSize ({algorithm.rollout_batch_size})"
        yield wrong("algorithm.dynamicSampling.overSamplingBatchSize", over, need)


def _clip(case: Case) -> Iterator[FieldError]:
    low = case.spec.algorithm.clip.low
    if low >= 1:
        yield wrong("algorithm.clip.low", low, "less than 1: the lower bound of the ratio is 1 - low")


def _advantages(case: Case) -> Iterator[FieldError]:
    algorithm = case.spec.algorithm
    if algorithm.name in REINFORCE and not effective.whitens(algorithm):
        need = f"true: {algorithm.name} has no group normalisation, its advantages are whitened over the batch"
        yield wrong("algorithm.whitenAdvantages", False, need)
    if algorithm.name not in REINFORCE and algorithm.discount != 1.0:
        yield wrong("algorithm.discount", algorithm.discount, f"1: {algorithm.name} has one advantage per response")
    if algorithm.name == "reinforce-plus-plus" and effective.normalizes_by_std(algorithm):
        yield wrong("algorithm.normalizeByStd", True, "no value: reinforce-plus-plus whitens over the batch, not in groups")


def _kl(case: Case) -> Iterator[FieldError]:
    algorithm = case.spec.algorithm
    if algorithm.kl.placement == "reward" and algorithm.name not in REINFORCE and algorithm.kl.coefficient > 0:
        need = f"loss: {algorithm.name} normalises rewards per group; or algorithm.name reinforce-plus-plus"
        yield wrong("algorithm.kl.placement", "reward", need)
    if algorithm.name == "cispo" and algorithm.clip.dual is not None:
        yield wrong("algorithm.clip.dual", algorithm.clip.dual, "no value: cispo clips the weight, not the objective")


def _correction(case: Case) -> Iterator[FieldError]:
    correction = case.spec.algorithm.correction
    if correction.low >= correction.high:
        yield wrong("algorithm.correction.low", correction.low, f"less than high ({correction.high})")
    if correction.type in ("tis", "icepop") and correction.high <= 1:
        yield wrong("algorithm.correction.high", correction.high, "more than 1, the weight of an exact match (2 is usual)")


def _correction_type(case: Case) -> Iterator[FieldError]:
    correction = case.spec.algorithm.correction
    if correction.type == "none":
        for name, value, usual in (("low", correction.low, 0.0), ("high", correction.high, 2.0)):
            if value != usual:
                yield wrong(f"algorithm.correction.{name}", value, f"nothing for type none, which has no bounds; or type {_BOUNDED}")
    if correction.type != "mis":
        if correction.level != "token":
            yield wrong("algorithm.correction.level", correction.level, f"token for type {correction.type}, or type mis")
        if correction.mode != "truncate":
            yield wrong("algorithm.correction.mode", correction.mode, f"truncate for type {correction.type}, or type mis")
        if correction.veto_threshold:
            yield wrong("algorithm.correction.vetoThreshold", correction.veto_threshold, f"0 for type {correction.type}, or type mis")
    elif correction.veto_threshold >= 1:
        yield wrong("algorithm.correction.vetoThreshold", correction.veto_threshold, "less than 1; 1e-4 is usual")


def _staleness(case: Case) -> Iterator[FieldError]:
    allowed = case.spec.algorithm.max_staleness
    if allowed and case.spec.topology.placement == "colocated":
        need = "0 with placement colocated, where trainer and engines take turns; or topology.placement split"
        yield wrong("algorithm.maxStaleness", allowed, need)


def _reward(case: Case) -> Iterator[FieldError]:
    data, reward = case.spec.data, case.spec.data.reward
    if reward.type == "remote":
        if reward.url is None:
            yield wrong("data.reward.url", None, "the address of the reward service")
        elif not reward.url.startswith(("http://", "https://")):
            yield wrong("data.reward.url", reward.url, "an address that starts with http:// or https://")
    else:
        for name, value in (("url", reward.url), ("headersSecret", reward.headers_secret)):
            if value is not None:
                yield wrong(f"data.reward.{name}", "a value", f"nothing for type {reward.type}, or type remote")
    if reward.type == "python" and reward.function is None:
        yield wrong("data.reward.function", None, "package.module:function")
    if reward.type != "python" and reward.function is not None:
        yield wrong("data.reward.function", reward.function, f"nothing for type {reward.type}, or type python")
    if reward.type not in ("remote", "python") and data.label_key is None:
        yield wrong("data.labelKey", None, f"the column with the answers: reward type {reward.type} compares with it")


def _chat_template(case: Case) -> Iterator[FieldError]:
    data = case.spec.data
    if data.chat_template_kwargs and not data.apply_chat_template:
        yield wrong("data.chatTemplateKwargs", "arguments", "nothing, or applyChatTemplate true")
    if data.tools_key is not None and not data.apply_chat_template:
        yield wrong("data.toolsKey", data.tools_key, "nothing, or applyChatTemplate true")
    if data.system_prompt and not data.apply_chat_template:
        yield wrong("data.systemPrompt", data.system_prompt, "nothing, or applyChatTemplate true: without a template a prompt is text")


def _learning_rate(case: Case) -> Iterator[FieldError]:
    optimizer = case.spec.optimizer
    if optimizer.min_learning_rate > optimizer.learning_rate:
        yield wrong("optimizer.minLearningRate", optimizer.min_learning_rate, f"at most learningRate ({optimizer.learning_rate})")


def _warmup(case: Case) -> Iterator[FieldError]:
    warmup, total = case.spec.optimizer.warmup_steps, effective.optimizer_steps(case.spec.algorithm)
    if warmup > total:
        need = f"at most {total}, the optimizer steps of the whole run (algorithm.steps x batches of globalBatchSize in a rollout step)"
        yield wrong("optimizer.warmupSteps", warmup, need)


def _optimizer_states(case: Case) -> Iterator[FieldError]:
    optimizer = case.spec.optimizer
    if optimizer.precision_aware and not case.megatron:
        yield wrong("optimizer.precisionAware", True, "false, or backends.trainer megatron (TransformerEngine's FusedAdam)")
    if optimizer.cpu_offload and case.megatron and not optimizer.precision_aware:
        yield wrong("optimizer.precisionAware", False, "true: Megatron's CPU-offloaded Adam needs the precision-aware optimizer")
    if optimizer.cpu_offload and case.accelerator is not None and case.accelerator.is_cpu:
        yield wrong("optimizer.cpuOffload", True, "false: with accelerator cpu the state is in host memory already")


def _stability(case: Case) -> Iterator[FieldError]:
    stability, spec = case.spec.stability, case.spec
    if stability.action != "warn" and stability.relative_limit is None and stability.absolute_limit is None:
        yield wrong("stability.relativeLimit", None, f"a limit for action {stability.action} (5 is usual), or an absoluteLimit")
    if stability.action == "fallback-bf16" and spec.precision.rollout == "bf16":
        yield wrong("stability.action", stability.action, "warn, correct, hold or rollback: the rollout serves BF16 already")
    if stability.action == "rollback":
        # The guard acts patience steps into a drift; the run keeps the checkpoint before it beyond `keep`, which is seldom to be needed.
        meanwhile = -(-(stability.patience - 1) // spec.checkpoint.every_steps)
        least = max(2, meanwhile + 1)
        if spec.checkpoint.keep < least:
            need = f"at least {least}: stability.action rollback needs one from before the drift, which is {stability.patience} steps old"
            yield wrong("checkpoint.keep", spec.checkpoint.keep, need)


def _model_folders(case: Case) -> Iterator[FieldError]:
    settings = case.spec.checkpoint
    every = settings.export_every_steps
    if every is not None and every % settings.every_steps:
        yield wrong(
            "checkpoint.exportEverySteps",
            every,
            f"a multiple of checkpoint.everySteps ({settings.every_steps}): folders lie in checkpoints",
        )


RULES: tuple[Rule, ...] = (
    *(_global_batch, _group, _group_filter, _whole_batch, _over_sampling),
    *(_clip, _advantages, _kl, _correction, _correction_type, _staleness),
    *(_reward, _chat_template),
    *(_learning_rate, _warmup, _optimizer_states, _stability, _model_folders),
)
