"""What an object was made from, written on it: the operator's memory beside status, for objects that wait and status that is edited."""

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from pydantic import ValidationError

from lprl_api.base import Contract, NonNegativeInt
from lprl_api.derived import effects
from lprl_api.names import ANNOTATION_MADE_FROM
from lprl_api.spec.job import LowPrecisionRLJob
from lprl_api.wire import lenient
from lprl_api.wire.status import LowPrecisionRLJobStatus


class MadeFrom(Contract):
    """Annotation of an inspect Job, a conversion and a RayCluster."""

    uid: str
    """Of the job."""
    generation: NonNegativeInt
    """Its metadata.generation."""
    pods: str
    """Digest of what its pods follow from and may be edited."""
    claims: str
    start_time: str | None = None
    """These of status, where it is an attempt's."""
    restarts_used: NonNegativeInt = 0
    refill_step: NonNegativeInt = 0


def made_from(job: LowPrecisionRLJob, status: LowPrecisionRLJobStatus | None = None) -> MadeFrom:
    """Return what an object made now is made from."""
    found = effects.digests(job.spec)
    pods = effects.digest({path: found.get(path) for path in (*effects.NEXT, effects.CLAIMS)})
    made = MadeFrom(uid=job.metadata.uid, generation=job.metadata.generation, pods=pods, claims=found[effects.CLAIMS])
    if status is None:
        return made
    known = {"start_time": status.start_time, "restarts_used": status.restarts_used, "refill_step": status.refill_step}
    return made.model_copy(update=known)


def annotated(document: Mapping[str, Any], made: MadeFrom) -> dict[str, Any]:
    """Return a document that says what it was made from."""
    meta = document["metadata"]
    text = made.model_dump_json(by_alias=True, exclude_none=True)
    return {**document, "metadata": {**meta, "annotations": {**meta.get("annotations", {}), ANNOTATION_MADE_FROM: text}}}


@lru_cache(maxsize=4096)
def read(text: str) -> MadeFrom | None:
    """Return what an annotation says, None when it says nothing that can be read."""
    try:
        return lenient.read_json(MadeFrom, text) if text else None
    except ValidationError:
        return None


def is_outdated(text: str, job: LowPrecisionRLJob) -> bool:
    """Whether the job was edited since, and in a way that makes other pods. A newer operator's other rendering is no edit."""
    made = read(text)
    if made is None or made.uid != job.metadata.uid:
        return False
    return made.generation != job.metadata.generation and made.pods != made_from(job).pods


def on_other_claims(text: str, job: LowPrecisionRLJob) -> bool:
    """Whether what was made looked at other claims than the job names now."""
    made = read(text)
    return made is not None and made.uid == job.metadata.uid and made.claims != made_from(job).claims
