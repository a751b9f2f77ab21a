# The menu: `make` lists it. CI orders from the same menu.
.DEFAULT_GOAL := help
SHELL := bash
.SHELLFLAGS := -eu -o pipefail -c

JOBS := $(patsubst containers/%/image.yml,%,$(wildcard containers/*/image.yml))
export REVISION ?= $(shell git rev-parse HEAD 2>/dev/null || echo unknown)$(shell git diff --quiet HEAD 2>/dev/null || echo -dirty)

help: ## list what can be made
	@grep -hE '^[a-z%/-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 22

setup: ## the host's tools, in .venv (needs uv)
	uv sync --quiet --locked

build: $(JOBS:%=build/%) ## build all images

build/%: ## build one image, such as build/serve
	docker compose --progress plain --file containers/$*/image.yml build --quiet
	@docker image ls --format '{{.Repository}}:{{.Tag}}  {{.Size}}' --filter reference='*/$*:*'

.PHONY: help setup build
