#!/bin/bash
# Builds the operator and workload-cpu images as files that `docker load`, `ctr images import` and `kind load image-archive` take,
# on a Debian or Ubuntu machine without a Docker daemon: mmdebstrap makes the root file system, pip fills it.
# usage: images/build-without-docker.sh OUT_FOLDER [operator] [workload-cpu]
# needs: mmdebstrap, g++, Python 3.11 or newer with pip; root, or user namespaces
#   LPRL_IMAGE_CACHE   kept between builds: layers of third-party packages (by content of their pins), default ~/.cache/lprl/images
#   DEBIAN_MIRROR      default http://deb.debian.org/debian
#   PYTHON             interpreter whose pip downloads the packages, default python3
set -euo pipefail
shopt -s inherit_errexit
here=$(cd "$(dirname "$0")" && pwd)
root=$(dirname "$here")
[ $# -gt 0 ] || { sed -n '2,8s/^# //p' "$0"; exit 2; }
mkdir -p "$1" && out=$(cd "$1" && pwd)
shift
[ $# -gt 0 ] || set -- operator workload-cpu
# shellcheck source=versions.env
. "$here/versions.env"
python=${PYTHON:-python3}
cache=${LPRL_IMAGE_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/lprl/images}
mirror=${DEBIAN_MIRROR:-http://deb.debian.org/debian}
for tool in mmdebstrap g++ "$python"; do
  command -v "$tool" >/dev/null || { echo "$tool is needed (apt-get install mmdebstrap g++ python3-pip)" >&2; exit 1; }
done
mkdir -p "$cache"
work=$(mktemp -d "$cache/build.XXXXXX")
chmod 755 "$work"
trap 'rm -rf --one-file-system "$work"' EXIT

requirements() { # requirements IMAGE: one a line
  case $1 in
    operator) (cd "$root" && "$python" "$here/requirements.py" operator) ;;
    workload-cpu) echo "torch==$TORCH_CPU"; (cd "$root" && "$python" "$here/requirements.py" cpu s3 tracking --without torch) ;;
  esac
}

download() { # download REQUIREMENTS FOLDER: wheels for the image's Python, whatever this machine's is
  local minor wheels=("$python" -m pip download -q -d "$2" --only-binary=:all: --implementation cp --python-version "$PYTHON_VERSION")
  for minor in $(seq 36 -1 5); do wheels+=(--platform "manylinux_2_${minor}_$(uname -m)"); done
  for minor in 2014 2010 1; do wheels+=(--platform "manylinux${minor}_$(uname -m)"); done
  # Only torch comes from an index of its own, and only where the usual one (or a local folder of wheels) lacks the CPU build.
  if grep -q '^torch==' "$1"; then
    "${wheels[@]}" --no-deps "torch==$TORCH_CPU" 2>/dev/null || "${wheels[@]}" --no-deps --extra-index-url "$TORCH_CPU_INDEX" "torch==$TORCH_CPU"
  fi
  "${wheels[@]}" --find-links "$2" -r "$1" pip
}

base_layer() { # base_layer IMAGE UID MODULES: prints the tar of Debian, Python and third-party packages, made once per set of pins
  local image=$1 uid=$2 probe=$3 key tar
  requirements "$image" >"$work/$image.txt"
  key=$(cat "$work/$image.txt" <(declare -f download base_layer) <(echo "$DEBIAN_SUITE $PYTHON_VERSION $uid $(uname -m)") | sha256sum | cut -c1-16)
  tar=$cache/$image-$key.tar
  if [ ! -e "$tar" ]; then
    echo "$image: packages" >&2
    download "$work/$image.txt" "$work/wheels-$image"
    cp "$work/$image.txt" "$work/wheels-$image/requirements.txt"
    echo "$image: root file system" >&2
    # pip runs out of its own wheel, so that the image holds none. kubernetes.aio is a second copy of the client that nothing imports.
    # Nothing of this machine's package sources may stay.
    SOURCE_DATE_EPOCH=1767225600 mmdebstrap -q --variant=essential --include=python3,ca-certificates,libstdc++6,libgomp1 \
      --dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-exclude=/usr/share/man/*' \
      --dpkgopt='path-exclude=/usr/share/locale/*' --dpkgopt='path-exclude=/usr/share/info/*' \
      --customize-hook="copy-in $work/wheels-$image /opt" \
      --customize-hook="chroot \"\$1\" env -i PATH=/usr/local/bin:/usr/bin:/bin sh -c 'python3 \$(ls /opt/wheels-$image/pip-*.whl)/pip install -q --no-index --find-links /opt/wheels-$image \
        --break-system-packages --no-cache-dir --root-user-action=ignore --disable-pip-version-check -r /opt/wheels-$image/requirements.txt'" \
      --customize-hook="chroot \"\$1\" env -i PATH=/usr/local/bin:/usr/bin:/bin HOME=/tmp PYTHONDONTWRITEBYTECODE=1 python3 -c 'import $probe'" \
      --customize-hook="rm -rf \"\$1/opt/wheels-$image\" \"\$1\"/usr/local/lib/python*/dist-packages/kubernetes/aio" \
      --customize-hook='ln -s /usr/bin/python3 "$1/usr/local/bin/python"' \
      --customize-hook="echo lprl:x:$uid:$uid:lprl:/tmp:/bin/bash >>\"\$1/etc/passwd\"; echo lprl:x:$uid: >>\"\$1/etc/group\"" \
      --customize-hook='rm -rf "$1"/etc/apt/sources.list* "$1"/var/lib/apt/lists/* "$1"/var/cache/* "$1"/var/log/* "$1"/etc/resolv.conf "$1"/etc/hostname' \
      --skip=output/dev,output/mknod \
      "$DEBIAN_SUITE" "$work/$image-base.tar" \
      "deb $mirror $DEBIAN_SUITE main" "deb $mirror $DEBIAN_SUITE-updates main" "deb $mirror-security $DEBIAN_SUITE-security main" >&2
    mv "$work/$image-base.tar" "$tar"
  fi
  echo "$tar"
}

code() { # code FOLDER PACKAGE...: our packages where Debian's Python looks for them
  local site=$1/usr/local/lib/python$PYTHON_VERSION/dist-packages
  mkdir -p "$site"
  shift
  (cd "$root" && tar -c --exclude=__pycache__ "$@") | tar -x -C "$site" --strip-components=1
  # Compiled here, since the root file system is read-only later; only this interpreter's version fits the image.
  if [ "$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')" = "$PYTHON_VERSION" ]; then
    "$python" -m compileall -q --invalidation-mode unchecked-hash -s "$site" -p "/usr/local/lib/python$PYTHON_VERSION/dist-packages" "$site"
  else
    echo "note: $python is not $PYTHON_VERSION, so the image's code is not compiled ahead and starts a second later" >&2
  fi
}

for image in "$@"; do
  started=$SECONDS
  case $image in
    operator)
      base=$(base_layer operator "$OPERATOR_UID" "kopf, kubernetes, pydantic")
      code "$work/operator" api/lprl_api operator/lprl_operator
      "$python" "$here/pack_image.py" "$OPERATOR_IMAGE:$VERSION" "$out/operator.tar" --layer "$base" --folder "$work/operator" \
        --user "$OPERATOR_UID:$OPERATOR_UID" --workdir /tmp --env PYTHONUNBUFFERED=1 --env PYTHONDONTWRITEBYTECODE=1 --env HOME=/tmp \
        --entrypoint python -m lprl_operator
      ;;
    workload-cpu)
      base=$(base_layer workload-cpu "$WORKLOAD_UID" "ray, torch, transformers, tokenizers, pyarrow.parquet, boto3")
      code "$work/workload" api/lprl_api workload/lprl_workload workload/lprl_fixtures
      "$python" -P "$root/workload/lprl_workload/quant/prebuilt.py" "$work/workload/usr/local/lib/lprl/kernels" >/dev/null
      "$python" "$here/pack_image.py" "$WORKLOAD_IMAGE:$VERSION" "$out/workload-cpu.tar" --layer "$base" --folder "$work/workload" \
        --user "$WORKLOAD_UID:$WORKLOAD_UID" --workdir /tmp --env PYTHONUNBUFFERED=1 --env PYTHONDONTWRITEBYTECODE=1 --env HOME=/tmp \
        --env MPLBACKEND=Agg --env RAY_USAGE_STATS_ENABLED=0 --env LPRL_KERNELS=/usr/local/lib/lprl/kernels \
        --command python -m lprl_workload doctor
      ;;
    *) echo "no image $image: operator or workload-cpu" >&2; exit 2 ;;
  esac
  echo "$image: $(($(stat -c %s "$out/$image.tar") >> 20)) MiB in $((SECONDS - started)) s"
done
