"""Where a model source lies as a folder: known before anything is downloaded, so that plans and pods agree on it."""

import hashlib
import json
import re

from lprl_api.errors import UserError
from lprl_api.spec.sources import ModelSource, VolumePath


def source_folder(source: ModelSource) -> VolumePath:
    """Return the folder of a source: its own path on a volume, or `CACHE/NAME-HASH` for a download.

    The hash covers what is downloaded (repository, revision and endpoint, or URI and endpoint), not credentials or region.
    A branch is resolved when it is first downloaded and stays what it was; name a commit, or remove the folder, to move on.
    Raises UserError when the source names no place, several, or a download without a cache.
    """
    kinds = [source.volume is not None or source.path is not None, source.hugging_face is not None, source.s3 is not None]
    if sum(kinds) != 1:
        raise UserError(f"source: {sum(kinds)} places given; needs exactly one of volume and path, huggingFace, s3")
    if source.hugging_face is None and source.s3 is None:
        if source.volume is None or source.path is None:
            raise UserError(f"source.{'volume' if source.volume is None else 'path'}: missing; a folder needs volume and path")
        return VolumePath(volume=source.volume, path=source.path)
    if source.cache is None:
        raise UserError("source.cache: missing; a download needs a folder to be kept in", "set source.cache to a volume and path")
    return VolumePath(volume=source.cache.volume, path=f"{source.cache.path}/{_name(source)}")


def _name(source: ModelSource) -> str:
    if source.hugging_face is not None:
        hub = source.hugging_face
        label, identity = hub.repo, ["huggingFace", hub.repo, hub.revision, hub.endpoint]
    elif source.s3 is not None:
        label, identity = source.s3.uri.rstrip("/").rsplit("/", 1)[-1], ["s3", source.s3.uri.rstrip("/"), source.s3.endpoint]
    else:
        raise AssertionError("a folder has its own name")
    digest = hashlib.sha256(json.dumps(identity).encode()).hexdigest()[:12]
    readable = re.sub(r"[^A-Za-z0-9_.-]+", "--", label).strip("-.")[:80]
    return f"{readable or 'model'}-{digest}"
