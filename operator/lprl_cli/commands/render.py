"""`lprl render`: the Kubernetes objects a job becomes, in the order they are created."""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from lprl_api.errors import UserError
from lprl_api.field_error import wrong
from lprl_api.model.model_shape import Inspection
from lprl_api.rules.advice import advise
from lprl_api.spec.job import LowPrecisionRLJob
from lprl_cli import exits
from lprl_cli.checked import checked_job, invalid, tell
from lprl_cli.commands.plan import manifest_of
from lprl_cli.manifest import Manifest

UNKNOWN_FINGERPRINT = "0" * 64


def epilog(_: str) -> str:
    """Examples for --help."""
    return (
        "examples:\n"
        "  lprl render job.yaml                            from spec.model.shape; conversions get stand-in names\n"
        "  lprl render job.yaml --model volumes/models/M   inspects the model first: exactly what the operator makes\n"
        "  lprl inspect M --output json > i.json; lprl render job.yaml --inspection i.json --output json"
    )


def add_arguments(parser: argparse.ArgumentParser, _: str) -> None:
    """Add this command's arguments."""
    parser.add_argument("job", metavar="FILE|PRESET", help="manifest, - for standard input, or the name of a preset")
    parser.add_argument("--name", help="which job, when the file holds several")
    parser.add_argument("--model", metavar="FOLDER", help="model folder on this machine to inspect")
    parser.add_argument("--inspection", metavar="FILE", help="inspection made earlier (lprl inspect --output json)")
    parser.add_argument("--image", help="workload image; default the operator's")
    parser.add_argument("--output", choices=("yaml", "json"), default="yaml", help="default yaml")


def run(args: argparse.Namespace) -> int:
    """Print the documents."""
    from lprl_operator.plan.plan import PlanError, make_plan
    from lprl_operator.resources.render import render_all
    from lprl_operator.resources.settings import RenderSettings

    manifest = manifest_of(args.job, args.name)
    job = checked_job(manifest)
    inspection = _inspection(args, manifest, job)
    try:
        plan = make_plan(job.spec, inspection=inspection)
    except PlanError as error:
        raise invalid(manifest, error.errors) from None
    tell(manifest, advise(job.spec, plan.shape))
    settings = RenderSettings(image=args.image) if args.image else RenderSettings()
    documents = render_all(job, plan, inspection, settings)
    if args.output == "json":
        print(json.dumps({"apiVersion": "v1", "kind": "List", "items": documents}, indent=2))
    else:
        print(_yaml(documents), end="")
    return exits.OK


def _yaml(documents: list[dict[str, Any]]) -> str:
    """Return YAML in which the JSON values of ConfigMaps stay readable."""
    import yaml

    class Dumper(yaml.SafeDumper):
        """Writes text of several lines as a literal block."""

    def text(dumper: yaml.SafeDumper, value: str) -> yaml.Node:
        return dumper.represent_scalar("tag:yaml.org,2002:str", value, style="|" if "\n" in value else None)

    Dumper.add_representer(str, text)
    return str(yaml.dump_all(documents, Dumper=Dumper, sort_keys=False, width=160))


def _inspection(args: argparse.Namespace, manifest: Manifest, job: LowPrecisionRLJob) -> Inspection:
    """Return what is known of the model: inspected now, earlier, or assumed from its shape."""
    if args.model is not None:
        from lprl_cli.commands.workload import inspect, inspection_of

        return inspection_of(inspect(Path(args.model)), args.model)
    if args.inspection is not None:
        try:
            return Inspection.model_validate_json(Path(args.inspection).read_bytes())
        except OSError as error:
            raise UserError(f"{args.inspection}: {error.strerror}", "check the path, and that it may be read") from None
        except ValidationError as error:
            raise UserError(
                f"{args.inspection}: no inspection: {_first(error)}", "write it with `lprl inspect FOLDER --output json`"
            ) from None
    return _assumed(manifest, job)


def _first(error: ValidationError, shown: int = 3) -> str:
    """Return the first fields that are wrong, and how many more."""
    details = error.errors(include_url=False)
    texts = [": ".join(filter(None, (".".join(map(str, d["loc"])), d["msg"]))) for d in details[:shown]]
    return "; ".join(texts) + (f"; and {len(details) - shown} more" if len(details) > shown else "")


def _assumed(manifest: Manifest, job: LowPrecisionRLJob) -> Inspection:
    from lprl_api.model.shapes import SHAPES
    from lprl_api.model.weights import parameters

    if job.spec.model.shape is None:
        need = "a known shape to render with (lprl plan --shapes), or --model or --inspection"
        raise invalid(manifest, [wrong("model.shape", None, need)])
    shape = SHAPES[job.spec.model.shape]
    print("note: the model was not inspected; names and paths of conversions are stand-ins", file=sys.stderr)
    total = parameters(shape) * 2
    return Inspection(shape=shape, fingerprint=UNKNOWN_FINGERPRINT, total_bytes=total, tensors=1, shards=max(1, total // (5 * 10**9)))
