"""`python -m lprl_operator`: run the operator. Configured by the YAML file $LPRL_OPERATOR_CONFIG names (see settings.py)."""

import asyncio
import gc
import logging
import sys

import kopf

from lprl_api.errors import UserError
from lprl_operator import handlers, kinds, logs, settings
from lprl_operator.kube.api import ApiError, KubeApi, Unavailable
from lprl_operator.metrics import OperatorMetrics
from lprl_operator.runtime import Runtime
from lprl_operator.scraping import Gate, serve
from lprl_operator.webhook import CertificateKeeper, WebhookServer

log = logging.getLogger("lprl_operator")


def main() -> int:
    """Run until a signal; returns the exit code."""
    gc.freeze()  # what the libraries brought lives as long as the process: the collector need not look through it again and again
    try:
        found = settings.load()
    except UserError as error:
        print(f"error: {error.message}\n  {error.remedy}", file=sys.stderr)
        return 3
    logs.set_up(found.log_level, found.log_format)
    who, metrics = settings.identity(), OperatorMetrics()
    api = KubeApi.connect(found.request_timeout_seconds, 2 * found.workers + 4, metrics.api_request)
    runtime = Runtime(found, who, api, metrics)
    if found.metrics.enabled:
        serve(metrics.registry, found.metrics.port, Gate(api) if found.metrics.authentication else None)
    keeper, server = None, None
    if found.webhook.enabled:
        server = WebhookServer(found.webhook.port)
        keeper = CertificateKeeper(api, found.webhook, who, server, runtime.is_leading)
        keeper.start()
    log.info("starting", extra={"identity": who.name, "namespaces": found.namespaces or "all"})
    runtime.start()
    try:
        asyncio.run(watch(found, runtime, api))
    finally:
        if keeper is not None and server is not None:
            keeper.stop()
            server.stop()
        runtime.stop()
    return 0


async def watch(found: settings.OperatorSettings, runtime: Runtime, api: KubeApi) -> None:
    """Run kopf until a signal, and anew whenever a kind that is watched came or went."""
    while True:
        seen = await _served(api)
        for plural in kinds.KINDS.keys() - seen:
            log.warning("the API server does not serve %s yet: waiting for it", plural)
        flag = asyncio.Event()
        looking = asyncio.create_task(kinds.changed(api, seen, flag))
        await kopf.operator(
            settings=handlers.configured(found),
            standalone=True,
            clusterwide=not found.namespaces,
            namespaces=found.namespaces,
            liveness_endpoint=f"http://0.0.0.0:{found.health_port}/healthz",
            memo=kopf.Memo(runtime=runtime),
            stop_flag=flag,
        )
        looking.cancel()
        if not flag.is_set():
            return
        log.info("the kinds served have changed: the watches are set up anew")


async def _served(api: KubeApi) -> frozenset[str]:
    """What is served now; nothing when the API server does not answer or refuses, so that its coming back is a change."""
    try:
        return await asyncio.to_thread(kinds.served, api)
    except ApiError as error:
        if not isinstance(error, Unavailable):
            log.warning("cannot see which kinds the API server serves: %s", error)
        return frozenset()


if __name__ == "__main__":
    sys.exit(main())
