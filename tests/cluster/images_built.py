"""The images as files, built once per content of what goes into them."""

import hashlib
import os
import shutil
import subprocess
from pathlib import Path

ROOT = Path(__file__).parents[2]
SOURCES = (
    "api/lprl_api",
    "operator/lprl_operator",
    "workload/lprl_workload",
    "workload/lprl_fixtures",
    "images",
    "pyproject.toml",
    "constraints.txt",
)
BUILD_TIMEOUT_S = 1500
NAMES = ("operator", "workload-cpu")


def cache_folder() -> Path:
    """Return where built images are kept between runs: $XDG_CACHE_HOME, else /var/tmp, which survives the session and is large."""
    return Path(os.environ.get("XDG_CACHE_HOME") or "/var/tmp") / "lprl-test-images"


def content() -> str:
    """Return a hash of everything the images are made from."""
    digest = hashlib.sha256()
    for source in SOURCES:
        path = ROOT / source
        files = [path] if path.is_file() else sorted(p for p in path.rglob("*") if p.is_file() and "__pycache__" not in p.parts)
        for file in files:
            digest.update(f"{file.relative_to(ROOT)}\0{file.stat().st_mode & 0o100}\0".encode() + file.read_bytes())
    return digest.hexdigest()[:16]


def missing() -> str:
    """Return what the build lacks on this machine, empty when nothing."""
    lacking = [tool for tool in ("mmdebstrap", "g++") if shutil.which(tool) is None]
    return f"{' and '.join(lacking)} to build images without Docker" if lacking else ""


def built() -> list[Path]:
    """Return the image files of this checkout's content, building them where they are not there yet."""
    cache = cache_folder()
    folder = cache / content()
    files = [folder / f"{name}.tar" for name in NAMES]
    if not all(file.exists() for file in files):
        for old in cache.glob("*/operator.tar"):  # an older checkout's; its layers of packages stay
            shutil.rmtree(old.parent)
        environment = {**os.environ, "LPRL_IMAGE_CACHE": str(cache / "layers")}
        script = ROOT / "images" / "build-without-docker.sh"
        made = subprocess.run(
            [str(script), str(folder), *NAMES], env=environment, capture_output=True, text=True, timeout=BUILD_TIMEOUT_S, check=False
        )
        assert made.returncode == 0, made.stderr[-4000:]
    return files
