"""`lprl plan`: what a job needs, and why it fits or what would."""

import argparse
import json
from pathlib import Path

from lprl_api.errors import UserError
from lprl_api.field_error import wrong
from lprl_api.model_shape import ModelShape
from lprl_api.spec import LowPrecisionRLJob
from lprl_cli import exits
from lprl_cli.arguments import at_least
from lprl_cli.checked import checked_job, invalid
from lprl_cli.cluster import place
from lprl_cli.manifest import Manifest, load_one


def epilog(_: str) -> str:
    """Examples for --help."""
    return (
        "examples:\n"
        "  lprl plan job.yaml\n"
        "  lprl plan kimi-k2-thinking-int4              a preset, without writing it first\n"
        "  lprl plan job.yaml --config model/config.json   a model that is no known shape\n"
        "  lprl plan --shapes                           the known shapes\n"
        "  kubectl lprl plan NAME -n NS                 a job in the cluster\n"
        "  lprl plan job.yaml --output json | jq .ranks"
    )


def add_arguments(parser: argparse.ArgumentParser, _: str) -> None:
    """Add this command's arguments."""
    parser.add_argument("job", nargs="?", metavar="FILE|PRESET|NAME", help="manifest, - for standard input, preset, or job in the cluster")
    parser.add_argument("--name", help="which job, when the file holds several")
    parser.add_argument("--shapes", action="store_true", help="list the known shapes, accelerators and presets")
    parser.add_argument("--config", metavar="config.json", help="Hugging Face config.json of the model; default spec.model.shape")
    parser.add_argument(
        "--host-memory", type=at_least(1), metavar="BYTES", help="host memory of a node to stay within; default: reported only"
    )
    parser.add_argument("--output", choices=("table", "json", "yaml"), default="table", help="default table")
    place.add_arguments(parser)


def manifest_of(text: str, name: str | None = None) -> Manifest:
    """Return the manifest of a file or of a preset."""
    from lprl_api.presets import PRESETS, preset_manifest

    if text in PRESETS and not Path(text).exists():
        manifest = Manifest(dict(preset_manifest(text)), text, {"": 1})
        if name not in (None, manifest.name):
            raise UserError(f"--name {name}: preset {text} holds one job, {manifest.name}", "leave --name out")
        return manifest
    if _is_name(text):
        raise UserError(f"{text}: neither a file nor a preset", f"presets: {', '.join(PRESETS)}")
    return load_one(text, name)


def _is_name(text: str) -> bool:
    return text != "-" and not Path(text).exists() and "/" not in text and "." not in text


def _wanted(args: argparse.Namespace) -> tuple[Manifest, ModelShape | None]:
    """Return what to plan, with the shape that is known of it beside its spec."""
    from lprl_api.presets import PRESETS

    if place.named(args) or (place.called_as_kubectl() and _is_name(args.job) and args.job not in PRESETS):
        from lprl_cli.cluster import plan

        if args.name is not None:
            raise UserError(f"--name {args.name}: which job of a file, and {args.job} is one in the cluster", "leave --name out")
        return plan.job(args)
    return manifest_of(args.job, args.name), None


def run(args: argparse.Namespace) -> int:
    """Print the plan, or what keeps it from fitting."""
    if args.shapes:
        return _list()
    if args.job is None:
        raise UserError("nothing to plan", "give a manifest, a preset, or --shapes")
    manifest, inspected = _wanted(args)
    job = checked_job(manifest)
    from lprl_operator.plan.explain import explain
    from lprl_operator.plan.plan import PlanError, make_plan

    try:
        shape = inspected if inspected is not None and args.config is None else _shape(args.config, manifest, job)
        plan = make_plan(job.spec, shape, host_bytes_per_node=args.host_memory)
    except PlanError as error:
        raise invalid(manifest, error.errors) from None
    if args.output == "json":
        print(json.dumps(plan.document(), indent=2))
    elif args.output == "yaml":
        import yaml

        print(yaml.safe_dump(plan.document(), sort_keys=False), end="")
    else:
        print(explain(plan), end="")
    return exits.OK


def _shape(config: str | None, manifest: Manifest, job: LowPrecisionRLJob) -> ModelShape | None:
    if config is None:
        if job.spec.model.shape is None:
            need = "a known shape to plan with (lprl plan --shapes), or --config config.json"
            raise invalid(manifest, [wrong("model.shape", None, need)])
        return None
    from lprl_api.hf_config import shape_from_config

    try:
        found = json.loads(Path(config).read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"{config}: {error.strerror}") from None
    except json.JSONDecodeError as error:
        raise UserError(f"{config}:{error.lineno}: no JSON: {error.msg}", "give the model's config.json") from None
    except UnicodeDecodeError:
        raise UserError(f"{config}: not UTF-8", "give the model's config.json") from None
    if not isinstance(found, dict):
        raise UserError(f"{config}: no JSON object", "give the model's config.json")
    return shape_from_config(found)


def _list() -> int:
    from lprl_api.accelerators import ACCELERATORS
    from lprl_api.presets import PRESETS
    from lprl_api.shapes import SHAPES
    from lprl_api.weights import parameters

    print("shapes (spec.model.shape)")
    for name, shape in SHAPES.items():
        experts = f", {shape.moe.experts} experts" if shape.moe else ""
        print(f"  {name:<24} {shape.architecture:<26} {parameters(shape) / 1e9:8.1f} B, {shape.layers} layers{experts}")
    print("accelerators (spec.topology.accelerator)")
    print(f"  {', '.join(ACCELERATORS)}")
    print("presets (lprl init NAME)")
    for preset in PRESETS.values():
        print(f"  {preset.name:<24} {preset.nodes} x {preset.gpus_per_node} {preset.accelerator}")
    return exits.OK
