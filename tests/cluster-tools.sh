#!/usr/bin/env bash
# usage: tests/cluster-tools.sh FOLDER      puts kubectl, helm (with unittest), kwok, kubeconform and kind into FOLDER; needs Go 1.25 or newer and curl
# The programs are built from pinned modules, which Go verifies; kubectl is the official release, verified by its published checksum.
# Then, for the tests that want a cluster:
#   PATH=FOLDER:$PATH kind create cluster
#   helm repo add kuberay https://ray-project.github.io/kuberay-helm && helm install kuberay-operator kuberay/kuberay-operator --version $KUBERAY
#   KUBECONFIG=~/.kube/config make test-cluster      or, with the images loaded into the cluster: make e2e KUBECONFIG=~/.kube/config
set -euo pipefail
KUBECTL=v1.35.4 HELM=v3.19.5 KWOK=v0.8.0 KUBECONFORM=v0.7.0 KIND=v0.32.0 KUBERAY=1.6.2 HELM_UNITTEST=v1.0.3
[ $# = 1 ] || { sed -n '2,7s/^# //p' "$0"; exit 2; }
mkdir -p "$1"
folder=$(cd "$1" && pwd)
command -v go >/dev/null || { echo "Go is needed: https://go.dev/doc/install" >&2; exit 1; }
for module in "helm.sh/helm/v3/cmd/helm@$HELM" "sigs.k8s.io/kwok/cmd/kwok@$KWOK" \
  "github.com/yannh/kubeconform/cmd/kubeconform@$KUBECONFORM" "sigs.k8s.io/kind@$KIND"; do
  echo "$module" >&2
  GOBIN=$folder go install "$module"
done
if [ ! -x "$folder/kubectl" ]; then
  system=$(go env GOOS) machine=$(go env GOARCH) part=$folder/kubectl.part
  trap 'rm -f "$part"' EXIT
  base=https://dl.k8s.io/release/$KUBECTL/bin/$system/$machine/kubectl
  echo "$base" >&2
  curl -fsSL -o "$part" "$base"
  echo "$(curl -fsSL "$base.sha256")  $part" | { sha256sum --check --quiet 2>/dev/null || shasum -a 256 --check --quiet; }
  chmod +x "$part" && mv "$part" "$folder/kubectl"
fi
"$folder/helm" plugin list 2>/dev/null | grep -q unittest \
  || "$folder/helm" plugin install https://github.com/helm-unittest/helm-unittest --version "$HELM_UNITTEST"
echo "export PATH=$folder:\$PATH    # kind create cluster, then KubeRay $KUBERAY: see the head of $0"
