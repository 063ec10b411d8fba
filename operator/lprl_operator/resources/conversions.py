"""Which conversions a job needs: what the run reads and the source lacks."""

from dataclasses import dataclass

from lprl_api.model.content_key import content_key
from lprl_api.model.formats import Bf16, WeightFormat
from lprl_api.model.model_shape import Inspection, SourceQuantization
from lprl_api.spec.job import LowPrecisionRLJob
from lprl_api.spec.sources import VolumePath
from lprl_api.wire.runconfig import ConvertConfig
from lprl_operator.resources import naming, sources

SHARDS_PER_POD = 4
"""At most: an index that fails is retried as a whole, and CONVERTED moves by this much."""


@dataclass(frozen=True, slots=True)
class Conversion:
    """One conversion: a shared Indexed Job, its finalise Job and the folder they make."""

    name: str
    config: ConvertConfig
    shards: int

    @property
    def target(self) -> VolumePath:
        """The converted folder; it exists when its manifest does."""
        return self.config.target


@dataclass(frozen=True, slots=True)
class Paths:
    """Where the run reads weights."""

    model: VolumePath
    reference: VolumePath
    rollout: VolumePath


def served_as_is(found: SourceQuantization, fmt: WeightFormat) -> bool:
    """Whether a published source already has the format the engine is to serve."""
    if found.format != fmt.kind or isinstance(fmt, Bf16) or fmt.exclude_modules:
        return False
    return fmt.held_by(found)


def make(job: LowPrecisionRLJob, inspection: Inspection, fmt: WeightFormat) -> Conversion:
    """Return the conversion of a job's source into a format."""
    key = content_key(inspection.fingerprint, fmt)
    wish = job.spec.conversion
    target = VolumePath(volume=wish.volume, path=f"{wish.path}/{fmt.kind}-{key[:16]}")
    claim = job.spec.volumes[wish.volume].persistent_volume_claim
    workers = min(inspection.shards, max(wish.parallelism, -(-inspection.shards // SHARDS_PER_POD)))
    config = ConvertConfig(
        source=sources.resolved(job.spec.model.source, job.spec),
        target=target,
        format=fmt,
        fingerprint=inspection.fingerprint,
        volume_identity=sources.identity(job.spec.model.source, job),
        content_key=key,
        workers=workers,
        threads=wish.threads,
        max_relative_rms_error=None,
        verify=None if wish.verify is None or isinstance(fmt, Bf16) else wish.verify.model_copy(update={"max_kl": None}),
    )
    return Conversion(naming.conversion(key, f"{claim}/{target.path}"), config, inspection.shards)


def needed(job: LowPrecisionRLJob, inspection: Inspection, fmt: WeightFormat) -> tuple[Conversion, ...]:
    """Conversions of a job, in the order they are made.

    A quantised source is dequantised to train from; a high-precision one, or one in another format, is converted for rollout.
    """
    found = []
    if inspection.quantization.format != "none":
        found.append(make(job, inspection, Bf16()))
    if not isinstance(fmt, Bf16) and not served_as_is(inspection.quantization, fmt):
        found.append(make(job, inspection, fmt))
    return tuple(found)


def paths(job: LowPrecisionRLJob, inspection: Inspection, fmt: WeightFormat) -> Paths:
    """Return where trainer, reference and engines read from, once the conversions are made."""
    source = sources.folder(job.spec.model.source, job.spec)
    made = {c.config.format.kind: c.target for c in needed(job, inspection, fmt)}
    model = made.get("bf16", source)
    rollout = model if isinstance(fmt, Bf16) else made.get(fmt.kind, source)
    reference = sources.folder(job.spec.model.reference, job.spec) if job.spec.model.reference is not None else source
    if reference == source:  # written or not: read as the trainer reads it, dequantised where it has to be
        reference = model
    return Paths(model, reference, rollout)
