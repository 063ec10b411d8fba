"""What is optimised, on which data, with which sampling. Formulas: docs/numerics.md."""

from typing import Annotated, Any, Literal

from pydantic import Field

from lprl_api.base import MOST_RANKS, Contract, Fraction, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt
from lprl_api.spec.sources import DataFile, SecretKey


class Reward(Contract):
    """How a response becomes a number."""

    type: Literal["exact", "math", "deepscaler", "dapo", "remote", "python"] = Field(
        "math",
        description="exact: 1 when the stripped response equals the label; math: boxed or last answer judged by math-verify; "
        "deepscaler: math on what follows </think> or ###Response; dapo: +1/-1 on the last 'Answer:' line; "
        "remote: HTTP POST; python: an import path. Default math.",
    )
    url: str | None = Field(None, max_length=2048, description="Address of a remote reward service; type remote needs it. Default none.")
    headers_secret: SecretKey | None = Field(None, description="Secret key sent as the Authorization header (type remote). Default none.")
    timeout_seconds: PositiveFloat = Field(30.0, description="Time limit of one reward call, seconds. Default 30.")
    retries: NonNegativeInt = Field(5, description="Retries of a failed remote call, with exponential back-off. Default 5.")
    function: Annotated[str, Field(pattern=r"^[A-Za-z_][\w.]*:[A-Za-z_]\w*$")] | None = Field(
        None,
        description="package.module:function called as f(prompt, response, label, metadata) -> float; type python needs it. Default none.",
    )


class Data(Contract):
    """Training prompts and their reward."""

    prompts: DataFile = Field(description="JSON lines or parquet with one prompt a row.")
    prompt_key: str = Field(
        "prompt", description="Column with the prompt: text or a list of chat messages; a.b is key b inside column a. Default prompt."
    )
    label_key: str | None = Field(
        "label", description="Column with the expected answer; of a list, any is right. Nested as promptKey. Default label."
    )
    metadata_key: str | None = Field("metadata", description="Column with a mapping passed to the reward. Default metadata.")
    tools_key: str | None = Field(None, description="Column with tool schemas for the chat template. Default none.")
    apply_chat_template: bool = Field(True, description="Render prompts with the tokenizer's chat template. Default true.")
    chat_template_kwargs: dict[str, Any] = Field({}, description="Extra arguments of the chat template. Default none.")
    system_prompt: str | None = Field(None, description="System message put before every prompt. Default none.")
    max_prompt_tokens: PositiveInt | None = Field(None, description="Drop prompts longer than this, tokens. Default: keep all.")
    shuffle: bool = Field(True, description="Shuffle every epoch with seed + epoch. Default true.")
    reward: Reward = Field(Reward(), description="Reward of a response.")


class Kl(Contract):
    """Distance to the reference policy."""

    coefficient: NonNegativeFloat = Field(0.0, description="Weight of the KL term; 0 measures it only. Default 0.")
    estimator: Literal["k1", "k2", "k3", "low-var-kl"] = Field(
        "low-var-kl", description="Estimator; low-var-kl is k3 clamped to [-10, 10]. Default low-var-kl."
    )
    placement: Literal["loss", "reward"] = Field("loss", description="Add the term to the loss or to the reward. Default loss.")
    measure: bool = Field(False, description="Compute the KL metric even when coefficient is 0. Default false.")


class Clip(Contract):
    """Clipping of the importance ratio."""

    low: NonNegativeFloat = Field(0.2, description="Lower clip: ratio >= 1 - low. Default 0.2.")
    high: NonNegativeFloat = Field(0.28, description="Upper clip (clip-higher): ratio <= 1 + high. Default 0.28.")
    dual: Annotated[float, Field(gt=1)] | None = Field(None, description="Dual clip bound c > 1 for negative advantages. Default none.")


class Correction(Contract):
    """Importance correction for the gap between rollout and training log-probabilities."""

    type: Literal["none", "tis", "icepop", "mis"] = Field(
        "none",
        description="tis truncates weights, icepop zeroes those outside bounds, mis masks or truncates by level. Default none.",
    )
    low: NonNegativeFloat = Field(0.0, description="Lower bound of the weight. Default 0.")
    high: PositiveFloat = Field(2.0, description="Upper bound of the weight. Default 2.")
    level: Literal["token", "sequence", "geometric"] = Field("token", description="Ratio per token or per sequence (mis). Default token.")
    mode: Literal["truncate", "clip", "mask"] = Field("truncate", description="What mis does outside the bounds. Default truncate.")
    veto_threshold: NonNegativeFloat = Field(
        0.0, description="Drop a sequence holding a token whose ratio is below this (mis); 0 is off. Default 0."
    )


class DynamicSampling(Contract):
    """Drop groups whose rewards are all equal and sample more."""

    enabled: bool = Field(False, description="Keep only groups with reward standard deviation > 0. Default false.")
    over_sampling_batch_size: PositiveInt | None = Field(
        None, description="Prompts sampled at a time while filling a batch. Default rolloutBatchSize."
    )
    max_rounds: PositiveInt = Field(8, description="Sampling rounds before the batch is filled with what there is. Default 8.")


class Algorithm(Contract):
    """The RL objective and its batch sizes."""

    name: Literal["grpo", "dr-grpo", "gspo", "cispo", "reinforce-plus-plus", "reinforce-plus-plus-baseline"] = Field(
        "grpo", description="Objective. Default grpo."
    )
    steps: PositiveInt = Field(description="Rollout steps of the run. May be raised while it runs.")
    rollout_batch_size: PositiveInt = Field(32, description="Prompts per rollout step. Default 32.")
    samples_per_prompt: PositiveInt = Field(8, description="Responses per prompt (the group). Default 8.")
    global_batch_size: PositiveInt | None = Field(
        None, description="Samples per optimizer step; divides rolloutBatchSize x samplesPerPrompt. Default: all of them."
    )
    kl: Kl = Field(Kl(), description="Distance to the reference policy.")
    clip: Clip = Field(Clip(), description="Clipping of the importance ratio.")
    correction: Correction = Field(Correction(), description="Training/rollout mismatch correction.")
    entropy_coefficient: float = Field(0.0, description="Weight of the entropy bonus. Default 0.")
    normalize_by_std: bool | None = Field(
        None, description="Divide group advantages by their standard deviation. Default: true for grpo, gspo and cispo, else false."
    )
    loss_aggregation: Literal["sample-mean", "token-mean", "constant"] | None = Field(
        None,
        description="sample-mean: mean over samples of token means; token-mean: over all tokens; "
        "constant: token sum / the most tokens an episode can draw (maxResponseTokens; of several turns maxResponseTokens x maxTurns, "
        "at most maxEpisodeTokens and the context). Default sample-mean, constant for dr-grpo.",
    )
    discount: Fraction = Field(1.0, description="Discount per token (REINFORCE++). Default 1.")
    whiten_advantages: bool | None = Field(
        None, description="Whiten advantages over the batch. Default: true for reinforce-plus-plus(-baseline), else false."
    )
    dynamic_sampling: DynamicSampling = Field(DynamicSampling(), description="Group filter.")
    max_staleness: Annotated[int, Field(ge=0, le=8)] = Field(
        0,
        description="Steps by which the weights that drew a sample may be older than those it trains. 0: generate and train in turn; n: up "
        "to n batches are generated ahead while the trainer works (placement split). Default 0.",
    )
    balance_data: bool = Field(True, description="Balance tokens over data-parallel ranks. Default true.")
    check_for_nan: bool = Field(True, description="Stop the step on a non-finite loss or gradient. Default true.")
    seed: NonNegativeInt = Field(0, description="Seed of data order, sampling and initialisation. Default 0.")


class Optimizer(Contract):
    """AdamW."""

    learning_rate: PositiveFloat = Field(1.0e-6, description="Peak learning rate. Default 1e-6.")
    min_learning_rate: NonNegativeFloat = Field(0.0, description="Final learning rate of linear and cosine. Default 0.")
    schedule: Literal["constant", "linear", "cosine"] = Field("constant", description="Decay after warm-up. Default constant.")
    warmup_steps: NonNegativeInt = Field(0, description="Linear warm-up, optimizer steps. Default 0.")
    weight_decay: NonNegativeFloat = Field(0.1, description="Decoupled weight decay. Default 0.1.")
    beta1: Annotated[float, Field(ge=0, lt=1)] = Field(0.9, description="First-moment decay. Default 0.9.")
    beta2: Annotated[float, Field(ge=0, lt=1)] = Field(0.98, description="Second-moment decay. Default 0.98.")
    epsilon: PositiveFloat = Field(1.0e-8, description="Adam epsilon. Default 1e-8.")
    gradient_clip: PositiveFloat | None = Field(1.0, description="Global gradient-norm limit. Default 1.")
    cpu_offload: bool = Field(False, description="Keep optimizer state and FP32 masters in host memory. Default false.")
    overlap_cpu_transfers: bool = Field(
        True, description="Overlap device-host copies of cpuOffload (Megatron; the torch trainer does not). Default true."
    )
    precision_aware: bool = Field(False, description="Low-precision optimizer states (Megatron, TE FusedAdam). Default false.")
    grad_reduce_in_fp32: bool = Field(True, description="Accumulate and reduce gradients in FP32. Default true.")


class Sampling(Contract):
    """How responses are drawn."""

    temperature: Annotated[float, Field(ge=0, le=10)] = Field(
        1.0, description="Softmax temperature; at least 0.01 for training. Default 1."
    )
    top_p: Fraction = Field(1.0, description="Nucleus mass. Default 1.")
    top_k: PositiveInt | None = Field(None, description="Keep the k likeliest tokens. Default all.")
    max_response_tokens: PositiveInt = Field(8192, description="Longest response, tokens. Default 8192.")
    stop: tuple[str, ...] = Field((), description="Strings that end a response. Default none.")
    stop_token_ids: tuple[NonNegativeInt, ...] = Field((), description="Extra token ids that end a response. Default none.")


class Evaluation(Contract):
    """Held-out evaluation during training."""

    every_steps: PositiveInt = Field(20, description="Evaluate every so many steps, and at the end. Default 20.")
    at_start: bool = Field(True, description="Evaluate before the first step. Default true.")
    prompts: DataFile = Field(description="Held-out prompts, same columns as data.")
    samples_per_prompt: PositiveInt = Field(
        1, description="Responses per prompt; more than 1 needs sampling that is not greedy. Default 1."
    )
    pass_at: tuple[PositiveInt, ...] = Field((1,), description="k of pass@k; each at most samplesPerPrompt. Default [1].")
    sampling: Sampling | None = Field(None, description="Sampling of the evaluation. Default: the job's, greedy.")
    engines: Annotated[int, Field(ge=0, le=MOST_RANKS)] = Field(
        0,
        description="Engines that draw an evaluation beside training, with the weights of its step, and take part in no batch and no push "
        "meanwhile (split placement, fewer than there are); 0: all engines draw it and training waits. Default 0.",
    )
