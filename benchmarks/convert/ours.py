"""One worker process of our converter: the shards worker, worker + workers, ... of SOURCE.

python benchmarks/convert/ours.py SOURCE TARGET {fp8-block,int4-group} --workers N --worker I [--threads T]
"""

import argparse
import json
import time
from pathlib import Path

from lprl_api.model.formats import Fp8Block, Int4Group
from lprl_api.model.model_shape import ModelShape
from lprl_workload.convert.run import convert_shards


def main() -> None:
    """Convert and print the seconds it took, without start-up."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("source", type=Path)
    parser.add_argument("target", type=Path)
    parser.add_argument("format", choices=["fp8-block", "int4-group"])
    parser.add_argument("--workers", type=int, required=True)
    parser.add_argument("--worker", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    fmt = Fp8Block() if args.format == "fp8-block" else Int4Group(group_size=128)
    shape = ModelShape.model_validate_json((args.source / "shape.json").read_text())
    shards = sorted(path.name for path in args.source.glob("*.safetensors"))[args.worker :: args.workers]
    started, cpu = time.perf_counter(), time.process_time()
    convert_shards(args.source, args.target, fmt, shape, shards, args.threads, lambda _: None)
    print(json.dumps({"seconds": time.perf_counter() - started, "cpu_seconds": time.process_time() - cpu}))


if __name__ == "__main__":
    main()
