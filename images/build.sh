#!/bin/sh
# Builds the images with docker, podman or buildah (the first one that works, or $BUILDER).
# usage: images/build.sh [operator] [workload-cpu] [workload-gpu]      default: operator workload-cpu
#   TAG=...            another tag than versions.env's (workload-gpu gets -gpu appended)
#   BUILD_FLAGS="..."  further flags, e.g. --platform=linux/arm64 or --network=host
set -eu
here=$(cd "$(dirname "$0")" && pwd)
root=$(dirname "$here")
[ $# -gt 0 ] || set -- operator workload-cpu
builder=${BUILDER:-}
silent=
for tool in docker podman buildah; do
  [ -z "$builder" ] && command -v "$tool" >/dev/null || continue
  # A docker client alone builds nothing: its daemon must answer.
  if "$tool" info >/dev/null 2>&1; then builder=$tool; else silent="$silent $tool"; fi
done
if [ -z "$builder" ]; then
  [ -z "$silent" ] || echo "found, but not working (is the daemon running?):$silent" >&2
  echo "docker, podman or buildah is needed; without any: images/build-without-docker.sh OUT" >&2
  exit 1
fi
. "$here/versions.env"

# Only what the images copy goes to the builder: no environment, no caches, nothing git ignores.
context=$(mktemp -d)
trap 'rm -rf "$context"' EXIT
(cd "$root" && tar -c --exclude=__pycache__ --exclude='*.egg-info' pyproject.toml constraints.txt images api operator workload) | tar -x -C "$context"

arguments=$(sed -n 's/^\([A-Z_]*\)=\(.*\)$/--build-arg \1=\2/p' "$here/versions.env" | grep -v -E -- ' (VERSION|OPERATOR_IMAGE|WORKLOAD_IMAGE|DEBIAN_SUITE)=')
for image in "$@"; do
  case $image in
    operator) name=$OPERATOR_IMAGE:${TAG:-$VERSION} ;;
    workload-cpu) name=$WORKLOAD_IMAGE:${TAG:-$VERSION} ;;
    workload-gpu) name=$WORKLOAD_IMAGE:${TAG:-$VERSION}-gpu ;;
    *) echo "no image $image: operator, workload-cpu or workload-gpu" >&2; exit 2 ;;
  esac
  case $builder in buildah) build="buildah build --layers" ;; *) build="$builder build" ;; esac
  # shellcheck disable=SC2086  # arguments and flags are words
  $build ${BUILD_FLAGS:-} $arguments -f "$context/images/Dockerfile.$image" -t "$name" "$context"
  echo "built $name"
done
