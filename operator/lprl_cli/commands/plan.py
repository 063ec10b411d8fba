"""`lprl plan`: what a job needs, and why it fits or what would."""

import argparse
import json
from pathlib import Path

from lprl_api.errors import UserError
from lprl_api.field_error import wrong
from lprl_api.model.model_shape import Inspection, ModelShape
from lprl_api.rules.advice import advise
from lprl_api.rules.check import untrained
from lprl_api.spec.job import LowPrecisionRLJob, LowPrecisionRLJobSpec
from lprl_cli import exits
from lprl_cli.arguments import at_least
from lprl_cli.checked import checked_job, invalid, tell
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
    from lprl_api.catalog.presets import PRESETS, preset_manifest
    from lprl_api.catalog.presets_planned import PLANNED, planned_manifest

    if text in PRESETS | PLANNED and not Path(text).exists():
        manifest = Manifest(preset_manifest(text) if text in PRESETS else planned_manifest(text), text, {"": 1})
        if name not in (None, manifest.name):
            raise UserError(f"--name {name}: preset {text} holds one job, {manifest.name}", "leave --name out")
        return manifest
    if _is_name(text):
        raise UserError(f"{text}: neither a file nor a preset", f"presets: {', '.join(PRESETS | PLANNED)}")
    return load_one(text, name)


def _is_name(text: str) -> bool:
    return text != "-" and not Path(text).exists() and "/" not in text and "." not in text


def _wanted(args: argparse.Namespace) -> tuple[Manifest, ModelShape | None]:
    """Return what to plan, with the shape that is known of it beside its spec."""
    from lprl_api.catalog.presets import PRESETS
    from lprl_api.catalog.presets_planned import PLANNED

    if place.named(args) or (place.called_as_kubectl() and _is_name(args.job) and args.job not in PRESETS | PLANNED):
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
    job = checked_job(manifest, planned=True)
    from lprl_operator.plan.explain import explain
    from lprl_operator.plan.plan import PlanError, make_plan

    try:
        spec, shape, inspection = _known(args.config, manifest, job, inspected)
        plan = make_plan(spec, shape, inspection=inspection, host_bytes_per_node=args.host_memory, planned=True)
    except PlanError as error:
        raise invalid(manifest, error.errors) from None
    if inspection is not None and inspection.notes:
        plan = plan.model_copy(update={"notes": (*plan.notes, *inspection.notes)})
    tell(manifest, [*advise(spec, plan.shape), *untrained(spec, plan.shape, inspection)])
    if args.output == "json":
        print(json.dumps(plan.document(), indent=2))
    elif args.output == "yaml":
        import yaml

        print(yaml.safe_dump(plan.document(), sort_keys=False), end="")
    else:
        print(explain(plan), end="")
    return exits.OK


def _known(
    config: str | None, manifest: Manifest, job: LowPrecisionRLJob, inspected: ModelShape | None
) -> tuple[LowPrecisionRLJobSpec, ModelShape | None, Inspection | None]:
    """Return what is planned, and what is known of its model: the cluster's inspection, else config.json's word, or its known shape."""
    if config is not None:
        from lprl_cli.config_json import differences, inspection_of

        found = inspection_of(config)
        if inspected is not None:
            notes = (*found.notes, *differences(found.shape, inspected, config))
            return job.spec, None, found.model_copy(update={"shape": inspected, "notes": notes})
        # The file stands for the model: the manifest's known shape, of another one perhaps, is not asked.
        spec = job.spec.model_copy(update={"model": job.spec.model.model_copy(update={"shape": None})})
        return spec, None, found
    if inspected is None and job.spec.model.shape is None:
        need = "a known shape to plan with (lprl plan --shapes), or --config config.json"
        raise invalid(manifest, [wrong("model.shape", None, need)])
    return job.spec, inspected, None


def _list() -> int:
    from lprl_api.catalog.accelerators import ACCELERATORS
    from lprl_api.catalog.presets import PRESETS
    from lprl_api.catalog.presets_planned import PLANNED
    from lprl_api.model.by_class import proven_type
    from lprl_api.model.megatron import STAGED
    from lprl_api.model.shapes import SHAPES
    from lprl_api.model.weights import whole_parameters

    print("shapes (spec.model.shape)")
    for name, shape in SHAPES.items():
        experts = f", {shape.moe.experts} experts" if shape.moe else ""
        by_class = shape.family == "other" or shape.tower_parameters
        proven = proven_type(shape.architecture) if by_class else None
        trainers = "torch" if proven not in STAGED else "torch, megatron"
        only = "" if not by_class else f", by its class ({trainers})" if proven else ", planned only"
        print(f"  {name:<24} {shape.architecture:<34} {whole_parameters(shape) / 1e9:8.1f} B, {shape.layers} layers{experts}{only}")
    print("accelerators (spec.topology.accelerator)")
    print(f"  {', '.join(ACCELERATORS)}")
    for title, rows in (("presets (lprl init NAME)", PRESETS), ("of models that nothing trains yet (lprl plan NAME)", PLANNED)):
        print(title)
        for preset in rows.values():
            print(f"  {preset.name:<24} {preset.nodes} x {preset.gpus_per_node} {preset.accelerator}")
    return exits.OK
