"""CEL rules of the CRD: the cheap part of rules.py, for clusters whose webhook is not reachable, and what only transitions show."""

from lprl_api import names
from lprl_api.crd.cel import Cel
from lprl_api.derived.effects import FIXED
from lprl_api.derived.trained import MAY_CHANGE
from lprl_api.spec.algorithm import Algorithm

NAME_RULES = (
    Cel(
        f"self.metadata.name.size() <= {names.MAX_NAME_LENGTH}",
        f"metadata.name must have at most {names.MAX_NAME_LENGTH} characters, so that every child's name fits",
    ),
    Cel("self.metadata.name.matches('^[a-z]([-a-z0-9]*[a-z0-9])?$')", "metadata.name must start with a letter and hold no dots"),
)
_STARTED = "has(oldSelf.status) && has(oldSelf.status.startTime)"


_TRAINS = "has(oldSelf.status) && has(oldSelf.status.trainingStartTime)"


def _same(path: str, optional: bool = False) -> str:
    new, old = f"self.spec.{path}", f"oldSelf.spec.{path}"
    return f"has({new}) == has({old}) && (!has({new}) || {new} == {old})" if optional else f"{new} == {old}"


def _fixed(path: str) -> Cel:
    """Equality of a part as a whole; of `algorithm`, of all fields but those that may change."""
    if path == "algorithm":
        free = {p.partition(".")[2] for p in MAY_CHANGE if p.startswith("algorithm.")}
        fields = [(field.alias or name, field.default is None) for name, field in Algorithm.model_fields.items()]
        same = " && ".join(f"({_same(f'algorithm.{name}', optional)})" for name, optional in fields if name not in free)
    else:
        same = f"({_same(path, path in _OPTIONAL)})"
    message = f"spec.{path} is immutable once the job has started: make a new job"
    return Cel(f"!({_STARTED}) || ({same})", message, None if path in _OPTIONAL else f".spec.{path}")


_OPTIONAL = ("checkpoint.loadFrom",)
TRANSITION_RULES = (
    *(_fixed(path) for path in FIXED),
    Cel(
        f"!({_STARTED}) || self.spec.algorithm.steps >= oldSelf.spec.algorithm.steps",
        "spec.algorithm.steps may only be raised once the job has started",
        ".spec.algorithm.steps",
    ),
    Cel(
        f"!({_TRAINS}) || oldSelf.spec.volumes.all(name, name in self.spec.volumes && "
        "self.spec.volumes[name].persistentVolumeClaim == oldSelf.spec.volumes[name].persistentVolumeClaim)",
        "the claims of spec.volumes are immutable once training has begun: make a new job",
        ".spec.volumes",
    ),
)
# An object default is checked before its own fields are defaulted, so rules on such objects look at has() first.
OBJECT_RULES: dict[str, tuple[Cel, ...]] = {
    "ModelSource": (
        Cel(
            "[has(self.volume), has(self.huggingFace), has(self.s3)].exists_one(named, named)",
            "exactly one of volume (with path), huggingFace and s3",
        ),
        Cel("has(self.volume) == has(self.path)", "volume and path go together"),
    ),
    "DataFile": (
        Cel("self.path.endsWith('.jsonl') || self.path.endsWith('.parquet')", "must be a .jsonl or .parquet file", ".path"),
        Cel("!has(self.lastRow) || self.lastRow > self.firstRow", "must be more than firstRow", ".lastRow"),
    ),
    "Correction": (Cel("!has(self.low) || self.low < self.high", "must be less than high", ".low"),),
    "EnvVar": (
        Cel(
            "[has(self.value), has(self.secret), has(self.valueFrom)].exists_one(given, given)",
            "exactly one of value, secret and valueFrom",
        ),
    ),
    "EnvSource": (
        Cel(
            "[has(self.secretKeyRef), has(self.configMapKeyRef), has(self.fieldRef)].exists_one(given, given)",
            "exactly one of secretKeyRef, configMapKeyRef and fieldRef",
        ),
    ),
    "NodeTopology": (Cel("has(self.required) != has(self.preferred)", "exactly one of required and preferred"),),
    "Toleration": (
        Cel("self.operator != 'Exists' || self.value == ''", "must be left out with operator Exists", ".value"),
        Cel("self.key != '' || self.operator == 'Exists'", "must be Exists where key is empty", ".operator"),
        Cel("!has(self.tolerationSeconds) || self.effect == 'NoExecute'", "needs effect NoExecute", ".tolerationSeconds"),
    ),
    **{
        name: (
            Cel(
                "self.operator in ['In', 'NotIn'] ? size(self.values) > 0 : "
                "self.operator in ['Gt', 'Lt'] ? size(self.values) == 1 : size(self.values) == 0",
                "In and NotIn need values, Exists and DoesNotExist none, Gt and Lt one",
                ".values",
            ),
        )
        for name in ("NodeRequirement", "Requirement")
    },
    "Reward": (
        Cel("!has(self.type) || self.type != 'remote' || has(self.url)", "url is needed for type remote"),
        Cel("!has(self.type) || self.type != 'python' || has(self.function)", "function is needed for type python"),
    ),
}
SPEC_RULES = (
    *(
        Cel(f"self.{path}.volume in self.volumes", "must be a key of spec.volumes", f".{path}.volume")
        for path in ("conversion", "checkpoint", "data.prompts")
    ),
    Cel("!has(self.model.source.volume) || self.model.source.volume in self.volumes", "must be a key of spec.volumes", ".model.source"),
    Cel(
        "!has(self.evaluation) || self.evaluation.prompts.volume in self.volumes", "evaluation.prompts.volume must be a key of spec.volumes"
    ),
    Cel(
        "!has(self.conversion.verify) || self.conversion.verify.prompts.volume in self.volumes",
        "must be a key of spec.volumes",
        ".conversion.verify.prompts.volume",
    ),
    Cel(
        "!has(self.conversion.verify) || self.precision.rollout != 'bf16'",
        "nothing is converted with precision.rollout bf16: leave it out",
        ".conversion.verify",
    ),
    Cel(
        "self.volumes.all(name, name.matches('^[a-z0-9]([-a-z0-9]*[a-z0-9])?$') && name.size() <= 63)",
        "volume names are DNS labels: lower case letters, digits and dashes, at most 63",
        ".volumes",
    ),
    Cel("self.sampling.temperature >= 0.01", "must be at least 0.01: greedy samples of a prompt are all equal", ".sampling.temperature"),
    Cel(
        "!has(self.sampling.topK) || self.sampling.topK > 1",
        "must be at least 2, or absent: with 1 the samples of a prompt are all equal",
        ".sampling.topK",
    ),
    Cel(
        "!has(self.evaluation) || self.evaluation.samplesPerPrompt == 1 || "
        "(has(self.evaluation.sampling) && self.evaluation.sampling.temperature >= 0.01 && "
        "(!has(self.evaluation.sampling.topK) || self.evaluation.sampling.topK > 1))",
        "evaluation.samplesPerPrompt must be 1 with greedy sampling (all samples are equal; without evaluation.sampling it is greedy)",
    ),
    Cel(
        "!has(self.evaluation) || self.evaluation.passAt.all(k, k <= self.evaluation.samplesPerPrompt)",
        "each k of evaluation.passAt must be at most evaluation.samplesPerPrompt",
    ),
    Cel(
        "!has(self.evaluation) || self.evaluation.engines == 0 || self.topology.placement == 'split'",
        "evaluation.engines needs topology.placement split",
    ),
    Cel(
        "self.algorithm.name == 'reinforce-plus-plus' || self.algorithm.samplesPerPrompt > 1",
        "must be at least 2: the objective compares the samples of a prompt",
        ".algorithm.samplesPerPrompt",
    ),
    Cel(
        "!self.algorithm.dynamicSampling.enabled || self.algorithm.samplesPerPrompt > 1",
        "must be at least 2 with dynamicSampling: the rewards of one sample never differ",
        ".algorithm.samplesPerPrompt",
    ),
    Cel(
        "!has(self.data.systemPrompt) || self.data.systemPrompt == '' || self.data.applyChatTemplate",
        "needs data.applyChatTemplate true",
        ".data.systemPrompt",
    ),
    Cel(
        "self.precision.training != 'fp8-qat' || self.precision.rollout == 'fp8'",
        "must be fp8 when precision.training is fp8-qat",
        ".precision.rollout",
    ),
    Cel(
        "self.precision.training != 'int4-qat' || self.precision.rollout == 'int4'",
        "must be int4 when precision.training is int4-qat",
        ".precision.rollout",
    ),
    Cel(
        "!self.precision.fp8.paramGather || !self.optimizer.cpuOffload",
        "excludes precision.fp8.paramGather: switch one of them off",
        ".optimizer.cpuOffload",
    ),
    Cel(
        "!self.topology.trainer.sequenceParallel || self.topology.trainer.tensor > 1",
        "needs topology.trainer.tensor above 1",
        ".topology.trainer.sequenceParallel",
    ),
    Cel(
        "!has(self.algorithm.globalBatchSize) || "
        "(self.algorithm.rolloutBatchSize * self.algorithm.samplesPerPrompt) % self.algorithm.globalBatchSize == 0",
        "globalBatchSize must divide rolloutBatchSize x samplesPerPrompt",
    ),
    Cel(
        "self.backends.trainer != 'torch' || (self.topology.trainer.tensor == 1 && self.topology.trainer.pipeline == 1 && "
        "self.topology.trainer.context == 1 && self.topology.trainer.expert == 1 && self.topology.trainer.expertTensor == 1)",
        "tensor, pipeline, context, expert and expertTensor must be 1 with backends.trainer torch",
        ".topology.trainer",
    ),
)
