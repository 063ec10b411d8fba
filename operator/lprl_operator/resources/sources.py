"""Where models lie once every pod can see them: on a volume already, or where a download puts them."""

import posixpath

from lprl_api.model.source_folder import source_folder
from lprl_api.spec.job import LowPrecisionRLJob, LowPrecisionRLJobSpec
from lprl_api.spec.sources import ModelSource, VolumePath


def is_remote(source: ModelSource) -> bool:
    """Whether the source has to be downloaded first."""
    return source.volume is None


def resolved(source: ModelSource, spec: LowPrecisionRLJobSpec) -> ModelSource:
    """The source as pods get it: a remote one always says where its downloads are kept."""
    if not is_remote(source) or source.cache is not None:
        return source
    beside = posixpath.join(posixpath.dirname(spec.conversion.path), "sources")
    return source.model_copy(update={"cache": VolumePath(volume=spec.conversion.volume, path=beside)})


def folder(source: ModelSource, spec: LowPrecisionRLJobSpec) -> VolumePath:
    """The folder of a model: its own, or the one its download goes to."""
    return source_folder(resolved(source, spec))


def identity(source: ModelSource, job: LowPrecisionRLJob) -> str:
    """Identity of the volume (claim and namespace) the folder is on: equal paths on two claims are two sources."""
    claim = job.spec.volumes[folder(source, job.spec).volume].persistent_volume_claim
    return f"{job.metadata.namespace}/{claim}"
