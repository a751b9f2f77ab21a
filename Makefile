# Run `make` for a list of the targets. CI uses the same targets.
.DEFAULT_GOAL := help
SHELL := bash
.SHELLFLAGS := -eu -o pipefail -c

JOBS := $(patsubst containers/%/image.yml,%,$(wildcard containers/*/image.yml))
PACKAGES := $(wildcard $(foreach job,$(JOBS),containers/$(job)/microjobs_$(subst -,_,$(job))))
# If uv is not installed, `make setup` installs it into .venv.
export PATH := $(PATH):$(CURDIR)/.venv/bin
# With attestations, an engine that keeps images in containerd builds OCI indexes, which SageMaker refuses.
export BUILDX_NO_DEFAULT_ATTESTATIONS := 1

help: ## list the targets
	@grep -hE '^[a-z%/-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 22

# --- run ---

run: run/housing ## run the housing workflow in containers, or as processes if there is no Docker engine

run/%: setup ## run another workflow, such as run/straight-line
	@microjobs run $* --build $(OPTIONS)

compose: build ## run the jobs of the housing workflow with docker compose alone; the endpoint keeps running
	@scripts/run-compose

compose/%: build ## run the same jobs with a second Compose file, such as compose/four-hosts
	@scripts/run-compose --file docker-compose.yml --file docker-compose.$*.yml

down: ## stop the containers of `make compose`; results stay in ./artifacts
	docker compose --file docker-compose.yml --file docker-compose.four-hosts.yml down --remove-orphans --volumes

# --- build ---

build: $(JOBS:%=build/%) build/local ## build all images

build/local: ## build the image of the local server
	@docker compose --file orchestrator/image.yml config | docker buildx bake --file - --load --set local.platform=linux/amd64 --progress $${PROGRESS:-auto} local
	@docker image ls --format '{{.Repository}}:{{.Tag}}  {{.Size}}' --filter reference='*/local:*'

build/%: ## build one image, such as build/serve; with VARIANT=cuda, the GPU variant of a trainer
	@if command -v python3 >/dev/null; then python3 -I shared/microjobs/locks.py check shared/requirements.in containers/$*/$(or $(VARIANT),cpu).in; fi
	@export REVISION="$${REVISION:-$$(python3 -I scripts/revision.py $* $(VARIANT) || echo unknown)}"; docker compose --file containers/$*/image.yml $(if $(filter cuda,$(VARIANT)),--file docker-compose.cuda.yml) config | docker buildx bake --file - --load --set $*.platform=linux/amd64 --progress $${PROGRESS:-auto} $* || { docker version >/dev/null 2>&1 || echo 'build: no Docker engine answers: start it (`microjobs doctor` prints a remedy), or use `microjobs run`, which runs jobs as processes without an engine' >&2; exit 1; }
	@docker image ls --format '{{.Repository}}:{{.Tag}}  {{.Size}}' --filter reference='*/$*:*'

base-image: ## build the base image from Debian packages (see docs/maintaining/building.md, Air-gapped)
	scripts/base-image

lock: ## write all locks from their .in files
	uv lock
	scripts/lock

lock/%: ## write the locks of one job, such as lock/my-job
	scripts/lock $*

labels: ## write the hyperparameters of each job into its image.yml
	python3 scripts/labels.py

parity: setup ## write docs/maintaining/parity.md: what the local server does with each member of a request
	uv run python -m scripts.parity

console-libraries: ## write the console's JavaScript libraries (needs npm)
	python3 scripts/vendor_console.py

screenshots: setup ## take the screenshots of docs/using/console.md (needs Chromium)
	uv run python -m tests.local.console.screenshots

# --- develop ---

setup: ## install the tools into .venv (needs Python 3.11, or uv)
	@scripts/setup

new-resource/%: setup ## create a resource family of SageMaker's API, such as new-resource/auto-ml-job
	@uv run python -m scripts.new_resource $*

new/%: ## create a job of your own, such as new/my-job; it can be built and run, and passes the tests of all images
	@scripts/new-job $*

format: setup ## format the code and apply automatic fixes
	uv run ruff format .
	uv run ruff check --fix .

lint: setup ## check the code and the tests with ruff, mypy and import-linter (the import layers)
	uv run ruff format --check .
	uv run ruff check .
	uv run lint-imports --no-cache --no-logo
	uv run mypy shared microjobs_orchestrator tests bench scripts/*.py $(PACKAGES)

# --- test ---

# Most tests wait for processes and containers, so more workers than cores are faster.
test: setup ## run all tests except slow ones, in WORKERS processes (default: 4); print why tests are skipped
	uv run pytest --numprocesses $(or $(WORKERS),4) --dist loadfile --no-loadscope-reorder $(OPTIONS)

test/%: setup ## run the tests of one image, such as test/serve
	uv run pytest --slow -k '$*'

test/engines: setup ## run the tests of containers on Podman, rootless engines and a remote engine (root, Debian)
	uv run python scripts/test_engines.py $(OPTIONS)

mutate/%: setup ## change a module in small ways, and list the changes that no test in TESTS notices; options: COUNT, SEED
	@uv run --group mutate python scripts/mutate.py '$*' --tests "$$TESTS" $(if $(COUNT),--count $(COUNT)) $(if $(SEED),--seed $(SEED))

image-registry: ## install an image registry for the tests of `microjobs push` (Debian, Ubuntu)
	command -v docker-registry >/dev/null || { sudo apt-get update -qq && sudo apt-get install -yqq --no-install-recommends docker-registry; }

check: lint build ## run all checks of CI
	$(MAKE) test OPTIONS=--slow

BENCHMARKS := overhead serve trainers preprocess dask_start batch_score rebuild channel search pipelines invocations console

bench: $(BENCHMARKS:%=bench/%) ## run the benchmarks except tables and gpu (takes an hour); they compare Microjobs with other tools

bench/%: setup ## run one benchmark, such as bench/serve; bench/serve.py describes its options
	uv run python bench/$*.py

clean: down ## stop the containers of `make compose`, and remove results and caches
	find artifacts -mindepth 1 ! -name .gitignore -delete
	rm -rf .mypy_cache .pytest_cache .ruff_cache

.PHONY: help image-registry console-libraries screenshots run compose down build base-image lock labels parity setup format lint test check bench clean
