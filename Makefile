# The menu: `make` lists it. CI orders from the same menu.
.DEFAULT_GOAL := help
SHELL := bash
.SHELLFLAGS := -eu -o pipefail -c

JOBS := $(patsubst containers/%/image.yml,%,$(wildcard containers/*/image.yml))
PACKAGES := $(wildcard $(foreach job,$(JOBS),containers/$(job)/microjobs_$(subst -,_,$(job))))
# Where there is no uv, `make setup` puts it into .venv.
export PATH := $(PATH):$(CURDIR)/.venv/bin
# Attestations make an image an OCI index where the engine keeps images in containerd, and SageMaker refuses those.
export BUILDX_NO_DEFAULT_ATTESTATIONS := 1

help: ## list what can be made
	@grep -hE '^[a-z%/-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 22

# --- run ---

run: run/housing ## the housing workflow to its report: in containers, or without Docker as processes

run/%: setup ## another workflow, such as run/straight-line
	@microjobs run $* --build $(OPTIONS)

compose: build ## the pipeline by docker compose alone; the endpoint stays up
	@scripts/run-pipeline

compose/%: build ## the same with docker-compose.%.yml on top, such as compose/four-hosts
	@scripts/run-pipeline --file docker-compose.yml --file docker-compose.$*.yml

down: ## end what `make compose` left up; results stay in ./artifacts
	docker compose --file docker-compose.yml --file docker-compose.four-hosts.yml down --remove-orphans --volumes

# --- build ---

build: $(JOBS:%=build/%) ## build all images

build/%: ## build one image, such as build/serve; a trainer for GPUs with VARIANT=cuda
	@if command -v python3 >/dev/null; then python3 -I shared/microjobs/locks.py check shared/requirements.in containers/$*/$(or $(VARIANT),cpu).in; fi
	@export REVISION="$${REVISION:-$$(python3 -I scripts/revision.py $* $(VARIANT) || echo unknown)}"; docker compose --file containers/$*/image.yml $(if $(filter cuda,$(VARIANT)),--file docker-compose.cuda.yml) config | docker buildx bake --file - --load --set $*.platform=linux/amd64 --progress $${PROGRESS:-auto} $* || { docker version >/dev/null 2>&1 || echo 'build: no Docker engine answers: start it (`microjobs doctor` says more), or use `microjobs run`, which needs no images then' >&2; exit 1; }
	@docker image ls --format '{{.Repository}}:{{.Tag}}  {{.Size}}' --filter reference='*/$*:*'

base-image: ## make the base image from Debian packages (air-gapped; see docs/maintaining/building.md)
	scripts/base-image

lock: ## write all locks again from their .in files
	uv lock
	scripts/lock

lock/%: ## write the locks of one job again, such as lock/my-job
	scripts/lock $*

labels: ## write the hyperparameters of each job into its image.yml
	python3 scripts/labels.py

parity: setup ## write docs/maintaining/parity.md: what the local server does with each member of a request
	uv run python -m scripts.parity

# --- develop ---

setup: ## the host's tools, in .venv (needs Python 3.11, or uv)
	@scripts/setup

new/%: ## a folder for a job of your own that builds, runs and passes the inherited tests
	@scripts/new-job $*

format: setup ## format and mend what can be mended
	uv run ruff format .
	uv run ruff check --fix .

lint: setup ## ruff, the import layers, and mypy in strict mode, tests too
	uv run ruff format --check .
	uv run ruff check .
	uv run lint-imports --no-cache --no-logo
	uv run mypy shared microjobs_orchestrator tests bench scripts/*.py $(PACKAGES)

# --- test ---

# Most tests wait for processes and containers, so more workers than cores are faster.
test: setup ## all tests that this machine can run, in WORKERS processes (4), and a reason for each skipped one
	uv run pytest --numprocesses $(or $(WORKERS),4) --dist loadfile --no-loadscope-reorder $(OPTIONS)

test/%: setup ## the tests of one image, such as test/serve
	uv run pytest -k '$*'

mutate/%: setup ## change a module in small ways and list what TESTS do not notice (COUNT=40 SEED=0)
	@uv run --group mutate python scripts/mutate.py '$*' --tests "$$TESTS" $(if $(COUNT),--count $(COUNT)) $(if $(SEED),--seed $(SEED))

registry: ## install the registry that `microjobs push` is tried on (Debian, Ubuntu)
	command -v docker-registry >/dev/null || { sudo apt-get update -qq && sudo apt-get install -yqq --no-install-recommends docker-registry; }

check: lint build test ## all that CI does

BENCHMARKS := overhead serve trainers preprocess batch_score rebuild channel

bench: $(BENCHMARKS:%=bench/%) ## measure everything beside its peers; prints ratios (an hour; gpu has no part in it)

bench/%: setup ## one of them, such as bench/serve; each says at its top what it takes
	uv run python bench/$*.py

clean: down ## also remove results and caches
	find artifacts -mindepth 1 ! -name .gitignore -delete
	rm -rf .mypy_cache .pytest_cache .ruff_cache

.PHONY: help registry run compose down build base-image lock labels parity setup format lint test check bench clean
