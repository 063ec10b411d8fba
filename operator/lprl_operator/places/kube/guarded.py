"""Requests about an object that may have changed or gone since it was read."""

from collections.abc import Callable, Mapping
from typing import Any

from lprl_operator.decide.observed import ObjectRef
from lprl_operator.kube.api import ApiError, Unavailable
from lprl_operator.places.cluster import Conflict


def guarded(request: Callable[[], Mapping[str, Any]], ref: ObjectRef) -> dict[str, Any]:
    """Send a request; raises Conflict where its object is gone or is not as the request says."""
    try:
        return dict(request())
    except Unavailable:
        raise
    except ApiError as error:
        # A patch with another uid than the object's is a conflict for some kinds and a 422 of the uid for others; so is a failed test.
        tested = "metadata.uid" in error.message or "the server rejected our request" in error.message
        if error.status in (404, 409) or (error.status == 422 and tested):
            raise Conflict(f"{ref}: {error.message[:200]}") from error
        raise
