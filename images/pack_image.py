"""Writes an image file (docker-archive) from ready layers and one folder, with nothing but the standard library.

usage: pack_image.py NAME:TAG OUT.tar --layer BASE.tar --folder CODE [--user U:G] [--env K=V]... [--entrypoint WORD...|--command WORD...]

Layers are uncompressed and named by their content, so that a runtime that has the base already unpacks only the folder. Equal
inputs give equal bytes: owners, times and order of the folder's files are fixed.
"""

import argparse
import hashlib
import io
import json
import os
import platform
import tarfile
import tempfile
from pathlib import Path
from typing import Any

EPOCH = 1767225600  # 2026-01-01, the time of everything in an image
CREATED = "2026-01-01T00:00:00Z"
PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}


def fixed(entry: tarfile.TarInfo) -> tarfile.TarInfo:
    """Own an entry by root, at the fixed time, readable by everyone."""
    entry.uid = entry.gid = 0
    entry.uname = entry.gname = ""
    entry.mtime = EPOCH
    entry.mode = 0o755 if entry.isdir() or entry.mode & 0o100 else 0o644
    return entry


def write_layer(folder: Path, layer: Path) -> None:
    """Write a folder as a layer, in sorted order."""
    with tarfile.open(layer, "w", format=tarfile.GNU_FORMAT) as tar:
        for path in sorted(folder.rglob("*")):
            tar.add(path, str(path.relative_to(folder)), recursive=False, filter=fixed)


def digest(path: Path) -> str:
    """Return the sha256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def config(args: argparse.Namespace, digests: list[str]) -> dict[str, Any]:
    """Return the image configuration."""
    return {
        "architecture": ARCHITECTURES.get(platform.machine(), platform.machine()),
        "os": "linux",
        "created": CREATED,
        "config": {
            "User": args.user,
            "WorkingDir": args.workdir,
            "Env": [PATH, *args.env],
            "Entrypoint": args.entrypoint,
            "Cmd": args.command,
        },
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{d}" for d in digests]},
        "history": [{"created": CREATED, "created_by": "images/build-without-docker.sh"} for _ in digests],
    }


def write_image(args: argparse.Namespace, layers: list[Path]) -> None:
    """Write the archive aside and rename it."""
    digests = [digest(layer) for layer in layers]
    text = json.dumps(config(args, digests), sort_keys=True).encode()
    config_name = f"{hashlib.sha256(text).hexdigest()}.json"
    manifest = [{"Config": config_name, "RepoTags": [args.name], "Layers": [f"{d}/layer.tar" for d in digests]}]
    aside = args.out.with_name(args.out.name + ".new")
    with tarfile.open(aside, "w", format=tarfile.GNU_FORMAT) as tar:
        for name, raw in ((config_name, text), ("manifest.json", json.dumps(manifest).encode())):
            entry = tarfile.TarInfo(name)
            entry.size = len(raw)
            tar.addfile(fixed(entry), io.BytesIO(raw))
        for layer, name in zip(layers, digests, strict=True):
            tar.add(layer, f"{name}/layer.tar", filter=fixed)
    os.replace(aside, args.out)


def main() -> None:
    """Parse, pack."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", help="NAME:TAG")
    parser.add_argument("out", type=Path)
    parser.add_argument("--layer", type=Path, action="append", default=[], help="a tar, taken as it is; may be repeated")
    parser.add_argument("--folder", type=Path, help="becomes the last layer")
    parser.add_argument("--user", default="")
    parser.add_argument("--workdir", default="/")
    parser.add_argument("--env", action="append", default=[], metavar="K=V")
    parser.add_argument("--entrypoint", nargs=argparse.REMAINDER)
    parser.add_argument("--command", nargs=argparse.REMAINDER)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=args.out.parent) as scratch:
        layers = list(args.layer)
        if args.folder is not None:
            layers.append(Path(scratch) / "layer.tar")
            write_layer(args.folder, layers[-1])
        write_image(args, layers)


if __name__ == "__main__":
    main()
