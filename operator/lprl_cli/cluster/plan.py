"""The job `plan NAME` is about: its manifest and the shape its inspection found."""

import argparse

from lprl_api.model.model_shape import ModelShape
from lprl_cli.cluster.connection import connect
from lprl_cli.manifest import Manifest


def job(args: argparse.Namespace) -> tuple[Manifest, ModelShape | None]:
    """Return a job of the cluster; its shape once it was inspected."""
    connection = connect(args)
    document = connection.job(args.job)
    inspection = (document.get("status") or {}).get("inspection") or {}
    shape = ModelShape.model_validate(inspection["shape"]) if inspection.get("shape") else None
    return Manifest(document, f"{connection.namespace}/{args.job}", {"": 1}), shape
