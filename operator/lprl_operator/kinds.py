"""Which of the kinds the operator watches the API server serves, and noticing when that changes (KubeRay installed later).

kopf's own observation of CRDs is not used: it looks once at the moment a CRD changes, which is before the API server's discovery
serves the new kind, and then stays blind to it; and it needs the right to list every CRD of the cluster.
"""

import asyncio
import logging

from lprl_api import names
from lprl_operator.kube.api import ApiError, KubeApi, Unavailable

KINDS = {names.PLURAL: f"/apis/{names.GROUP}/{names.VERSION}", "rayclusters": "/apis/ray.io/v1"}
"""Plural and the discovery document it has to be in. Everybody who is authenticated may read these."""
LOOK_S = 5.0
log = logging.getLogger(__name__)


def served(api: KubeApi) -> frozenset[str]:
    """Return the plurals of KINDS that are served now. Raises Unavailable."""
    return frozenset(plural for plural, path in KINDS.items() if plural in _plurals(api, path))


async def changed(api: KubeApi, before: frozenset[str], flag: asyncio.Event) -> None:
    """Set `flag` when other kinds than `before` are served. An API server that does not answer, or refuses (401, 403), tells nothing."""
    told = ""
    while not flag.is_set():
        await asyncio.sleep(LOOK_S)
        try:
            if await asyncio.to_thread(served, api) != before:
                flag.set()
        except Unavailable:
            continue
        except ApiError as error:
            if str(error) != told:
                told = str(error)
                log.warning("cannot see which kinds the API server serves (%s); trying again every %g s", told, LOOK_S)


def _plurals(api: KubeApi, path: str) -> frozenset[str]:
    try:
        return frozenset(resource["name"] for resource in api.get(path).get("resources", ()))
    except Unavailable:
        raise
    except ApiError as error:
        if error.status == 404:
            return frozenset()
        raise
