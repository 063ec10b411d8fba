"""`metrics` of a job in a cluster: what its status says, and what its driver serves to Prometheus, through the API server."""

import argparse
import json
import math
import re
from typing import Any

from lprl_api.errors import UserError
from lprl_cli import exits
from lprl_cli.cluster.connection import Connection, Document, connect, said
from lprl_cli.cluster.logs import job_pods
from lprl_cli.cluster.pods import choose, sources
from lprl_cli.cluster.table import aligned, phase
from lprl_cli.live import number
from lprl_operator.decide.observed import ObjectRef
from lprl_operator.kube import paths
from lprl_operator.kube.api import ApiError
from lprl_operator.resources.network import METRICS_PORT_NAME

LIMIT_BYTES = 1024 * 1024
IDLE_S = 15.0
SAMPLE = re.compile(r"^lprl_([a-zA-Z0-9_]+)(?:\{[^}]*\})? (\S+)")
FROM_STATUS = ("step", "steps", "reward", "mismatch", "tokensPerSecond", "secondsLeft", "weightVersion", "evaluationReward")


def run(args: argparse.Namespace) -> int:
    """Print a job's numbers."""
    connection = connect(args)
    document = connection.job(args.run_folder)
    status = document.get("status") or {}
    training = status.get("training") or {}
    known = {name: _number(training.get(name)) for name in FROM_STATUS if training.get(name) not in (None, "")}
    found, missing = driver_metrics(connection, document)
    value: dict[str, Any] = {
        "job": document["metadata"]["name"],
        "namespace": connection.namespace,
        "phase": phase(document),
        "attempt": status.get("attempt", 0),
        "restartsUsed": status.get("restartsUsed", 0),
        "status": known,
        "driver": found,
        "missing": missing,
    }
    if args.output != "table":
        print(as_text(value, args.output), end="")
        return exits.OK
    rows = [("METRIC", "VALUE", "FROM"), *((n, str(value[n]), "status") for n in ("phase", "attempt", "restartsUsed"))]
    rows += [(name, number(amount, 5), "status") for name, amount in known.items()]
    rows += [(name, number(amount, 5), "driver") for name, amount in found.items()]
    print("\n".join(aligned(rows)))
    if missing:
        print(f"\nof the driver: {missing}")
    return exits.OK


def as_text(value: dict[str, Any], form: str) -> str:
    """Return a value as JSON or YAML; JSON has no NaN, and a number that is none is null."""
    if form == "json":
        finite = {k: v if math.isfinite(v) else None for k, v in value["driver"].items()}
        return json.dumps({**value, "driver": finite}, indent=2) + "\n"
    import yaml

    return str(yaml.safe_dump(value, sort_keys=False))


def driver_metrics(connection: Connection, document: Document) -> tuple[dict[str, float], str]:
    """Return what the newest attempt's driver serves, or why it cannot be had."""
    try:
        pods = job_pods(connection, document)
        source = choose(sources(pods), document, role="driver")
    except UserError as error:
        return {}, error.message
    if source.state != "running":
        return {}, f"the driver in {source.pod} is {source.state}"
    port = metrics_port(next(p for p in pods if p["metadata"]["name"] == source.pod))
    if port is None:
        return {}, "its Prometheus port is off (prometheusPort)"
    path = f"{paths.item(ObjectRef('v1', 'Pod', connection.namespace, source.pod))}:{port}/proxy/metrics"
    text = b""
    try:
        for block in connection.api.stream(path, {}, IDLE_S):
            text += block
            if len(text) > LIMIT_BYTES:
                break
    except ApiError as error:
        return {}, refused(error, source.pod, port, connection.namespace)
    return parsed(text[:LIMIT_BYTES].decode(errors="replace")), ""


def refused(error: ApiError, pod: str, port: int, namespace: str) -> str:
    """Return why the API server does not pass the request on, and what helps."""
    if error.status == 403 and "pods/proxy" in error.message:  # the API server's own; whatever answers at the address may refuse too
        return f"reading {pod}:{port} takes the right to get pods/proxy in {namespace}; or kubectl port-forward {pod} {port}"
    return f"{pod}:{port} does not answer the API server ({error.status} {said(error.message)[:200]}); it opens when training starts"


def metrics_port(pod: Document) -> int | None:
    """Return the port of a head pod's driver metrics."""
    ports = [p for c in (pod.get("spec") or {}).get("containers") or () for p in c.get("ports") or ()]
    return next((int(p["containerPort"]) for p in ports if p.get("name") == METRICS_PORT_NAME), None)


def parsed(text: str) -> dict[str, float]:
    """Return the samples of an exposition by name, without the prefix and the job's label."""
    found: dict[str, float] = {}
    for line in text.splitlines():
        if (match := SAMPLE.match(line)) is not None:
            try:
                found[match[1]] = float(match[2])
            except ValueError:
                continue
    return dict(sorted(found.items()))


def _number(value: Any) -> Any:
    """Status holds some numbers as text, so that a column can show them."""
    try:
        return float(value) if isinstance(value, str) else value
    except ValueError:
        return value
