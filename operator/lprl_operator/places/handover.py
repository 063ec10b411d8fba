"""A RayCluster passes from one attempt to the next: the JSON patch for it, guarded by the uid and the attempt it was seen with.

Likewise an object that is given another place in its queue, or another queue.
"""

from collections.abc import Iterable, Mapping
from typing import Any

from lprl_api import names
from lprl_operator.decide.actions import Begin, HandOver, Hold, Nudge, Relabel, Wish

Operation = Mapping[str, Any]


class TestFailedError(Exception):
    """A document is not as a patch expects it."""


def whose(action: HandOver) -> dict[str, Any]:
    """What of a document says whose it is, or for whose sake it is written to."""
    job = action.job if isinstance(action, Hold | Nudge | Wish) else action.document["metadata"]["labels"][names.LABEL_JOB]
    return {"metadata": {"namespace": action.ref.namespace, "labels": {names.LABEL_JOB: job}}}


def patch(action: HandOver) -> list[Operation]:
    """Return the JSON patch (RFC 6902) of an object. One that is not what was seen any more is refused as a whole."""
    if isinstance(action, Wish):
        return _relabelled(action)
    attempt = action.attempt if isinstance(action, Hold | Nudge) else action.seen_attempt
    tests: list[Operation] = [
        {"op": "test", "path": "/metadata/uid", "value": action.uid},
        {"op": "test", "path": _path("metadata", "labels", names.LABEL_ATTEMPT), "value": str(attempt)},
    ]
    if isinstance(action, Nudge):
        return [*tests, _add(action.at, "metadata", "annotations", names.ANNOTATION_NUDGED)]
    if isinstance(action, Hold):
        return [*tests, _add("true", "metadata", "annotations", names.ANNOTATION_HELD), _add(True, "spec", "suspend")]
    return [*tests, *_begin(action)]


def _relabelled(action: Wish) -> list[Operation]:
    labels = action.labels if isinstance(action, Relabel) else ((names.LABEL_PRIORITY, action.priority_class),)
    return [
        {"op": "test", "path": "/metadata/uid", "value": action.uid},
        {"op": "test", "path": "/metadata/resourceVersion", "value": action.resource_version},
        *(_add(value, "metadata", "labels", key) for key, value in labels),
    ]


def _begin(action: Begin) -> Iterable[Operation]:
    meta, spec = action.document["metadata"], action.document["spec"]
    yield _add(meta["labels"][names.LABEL_ATTEMPT], "metadata", "labels", names.LABEL_ATTEMPT)
    yield _add(meta["annotations"][names.ANNOTATION_MADE_FROM], "metadata", "annotations", names.ANNOTATION_MADE_FROM)
    places = [("headGroupSpec",), *(("workerGroupSpecs", str(n)) for n in range(len(spec["workerGroupSpecs"])))]
    groups = [spec["headGroupSpec"], *spec["workerGroupSpecs"]]
    for place, group in zip(places, groups, strict=True):
        wanted = group["template"]["metadata"]
        at = ("spec", *place, "template", "metadata")
        yield _add(wanted["labels"][names.LABEL_ATTEMPT], *at, "labels", names.LABEL_ATTEMPT)
        told = wanted.get("annotations", {})
        for key in (names.ANNOTATION_RECORDED_STEP, names.ANNOTATION_LIVE_SETTINGS):
            if key in told:
                yield _add(told[key], *at, "annotations", key)
    if action.suspend is False:
        yield {"op": "remove", "path": _path("metadata", "annotations", names.ANNOTATION_HELD)}
    if action.suspend is not None:
        yield _add(action.suspend, "spec", "suspend")


def _add(value: Any, *keys: str) -> Operation:
    return {"op": "add", "path": _path(*keys), "value": value}


def _path(*keys: str) -> str:
    return "".join("/" + key.replace("~", "~0").replace("/", "~1") for key in keys)


def patched(document: Mapping[str, Any], operations: Iterable[Operation]) -> dict[str, Any]:
    """Apply such a patch; raises TestFailedError where the document is not what it expects."""
    found: dict[str, Any] = _copy(document)
    for operation in operations:
        *way, key = (k.replace("~1", "/").replace("~0", "~") for k in operation["path"].split("/")[1:])
        place: Any = found
        for step in way:
            place = place[int(step)] if isinstance(place, list) else place.get(step)
            if place is None:
                raise TestFailedError(operation["path"])
        if operation["op"] == "add":
            place[key] = operation["value"]
        elif key not in place or (operation["op"] == "test" and place[key] != operation["value"]):
            raise TestFailedError(operation["path"])
        elif operation["op"] == "remove":
            del place[key]
    return found


def _copy(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {k: _copy(v) for k, v in value.items()}
    return [_copy(v) for v in value] if isinstance(value, list | tuple) else value
