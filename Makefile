# Start with make run and make test; `make help` lists all targets.
# make itself ends with exit code 2 after any failure and prints the command's own: "Error 3" means not promoted.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
BIN := .venv/bin
STAMP := .venv/.installed
DEV_STAMP := .venv/.installed-dev
UV_VERSION := 0.13.9

# What to run on: movielens (fetched), or amazon2014 / custom with DATA_DIR. RUN adds options of `car run`.
DATA ?= movielens
DATA_DIR ?=
RUN ?=
export DATA_DIR
CAR_RUN = $(BIN)/car run --bootstrap --data $(DATA) $(if $(DATA_DIR),--data-dir "$$DATA_DIR")

# What to mutate: a file or folder (or several), how many mutants of each, and which ones.
ROOM ?=
SAMPLE ?= 20
SEED ?= 1

# The image: its name, what it is built on, which torch (cpu, cu126, ...), extras of the project (spark ann), an
# encoder of a model hub to bake in.
IMAGE ?= car-on-kubeflow:0.1.0
BASE ?= python:3.11-slim-bookworm
TORCH ?= cpu
EXTRAS ?=
ENCODER ?=
ENCODER_REVISION ?= main
BUILD ?= --network host

# uv does not read pip's PIP_FIND_LINKS, and fails on a folder that is not there. Without local wheels, torch
# comes from PyTorch's own CPU index.
ifneq ($(wildcard $(PIP_FIND_LINKS)),)
export UV_FIND_LINKS := $(PIP_FIND_LINKS)
else
export UV_TORCH_BACKEND ?= cpu
endif
export UV_LINK_MODE ?= copy

.DEFAULT_GOAL := help
.PHONY: help install dev run stop compile image image-size run-containers ci-containers manifests test test-fast month mutants lint format types golden reference lock clean

help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

install: $(STAMP) ## create .venv with what `car` needs; make run does so itself

dev: $(DEV_STAMP) ## add what tests, checks and benchmarks need; make test does so itself

# What `make run` needs, in .venv. If the packages of the tests are there already, they stay.
$(STAMP): requirements/run.lock pyproject.toml
	@test ! -s $@ || test "$$(cat $@)" = "$$(pwd -P)" || { echo "this checkout was moved from $$(cat $@)"; rm -rf .venv; }
	@test -n "$(PYTHON)" || { echo "Python 3.11 is needed: install it, or say where it is with PYTHON=..."; exit 1; }
	@echo "installing into .venv"
	@test -x $(BIN)/python || "$(PYTHON)" -m venv .venv
	@$(BIN)/python -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' || { echo "$(PYTHON) is not Python 3.11: say where it is with PYTHON=..."; rm -rf .venv; exit 1; }
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check uv==$(UV_VERSION)
	@test -e $(DEV_STAMP) || $(BIN)/uv pip sync --quiet --python $(BIN)/python requirements/run.lock
	@$(BIN)/uv pip install --quiet --python $(BIN)/python --requirements requirements/run.lock # what a CUDA torch brings
	@$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation --editable .
	@pwd -P > $@

# The programs in .venv name the folder that they were installed in: after a move they are installed again.
ifneq ($(shell test ! -s $(STAMP) || test "$$(cat $(STAMP))" = "$$(pwd -P)" || echo moved),)
.PHONY: moved
$(STAMP): moved
endif

# What tests and checks need on top: servers, linters, and pyspark, which is built from source once.
$(DEV_STAMP): $(STAMP) requirements/dev.lock requirements/bare.lock
	@echo "installing what tests and checks need"
	@$(BIN)/uv pip sync --quiet --python $(BIN)/python requirements/dev.lock
	@$(BIN)/uv pip install --quiet --python $(BIN)/python --requirements requirements/dev.lock
	@$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --require-hashes --requirements requirements/bare.lock
	@$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation --editable .
	@touch $@

run: $(STAMP) ## the whole pipeline on real data; "Error 3" means the gate did not promote (DATA=, DATA_DIR=, RUN=)
	@$(CAR_RUN) $(RUN)

stop: ## stop every server that make run started
	@test ! -x $(BIN)/python || $(BIN)/python pipeline.py stop --all

compile: $(STAMP) ## the pipeline as IR YAML, for Kubeflow
	@$(BIN)/car compile --output build/pipeline.yaml

image: ## the image of all steps (IMAGE=, BASE=, TORCH=, EXTRAS=, ENCODER=), for Docker
	@rm -rf build/image && mkdir -p build/image/wheels
	@test ! -d "$(PIP_FIND_LINKS)" || cp "$(PIP_FIND_LINKS)"/*.whl build/image/wheels
	docker build $(BUILD) --tag $(IMAGE) --build-arg BASE=$(BASE) --build-arg TORCH=$(TORCH) \
		--build-arg EXTRAS="$(EXTRAS)" --build-arg ENCODER=$(ENCODER) --build-arg ENCODER_REVISION=$(ENCODER_REVISION) \
		--build-arg COMMIT=$$(git describe --always --abbrev=40 --dirty --exclude='*' || echo unknown) \
		--build-arg CODE=$$("$(PYTHON)" -m common.code_digest) .

image-size: ## the largest layers and packages of the image
	@docker history --format '{{.Size}}\t{{.CreatedBy}}' $(IMAGE) | grep -v '^0B' | cut -c1-100
	@docker run --rm --interactive --network none $(IMAGE) python - < scripts/image_size.py

run-containers: $(STAMP) ## make run with every step in a container of IMAGE (make image first)
	@$(CAR_RUN) --containers --image "$(IMAGE)" $(RUN)

ci-containers: ## with Docker: build the image and run the tests that need it
	@.ci/containers

manifests: $(DEV_STAMP) ## render the overlays of deploy/kserve into build/manifests
	@mkdir -p build/manifests
	@for overlay in deploy/kserve/overlays/*; do $(BIN)/kubectl kustomize $$overlay > build/manifests/$$(basename $$overlay).yaml || exit 1; done
	@ls build/manifests/*.yaml

test: $(DEV_STAMP) ## everything: unit, property, integration (TorchServe, GCS server, KFP local)
	@$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

test-fast: $(DEV_STAMP) ## unit and property tests only, a few minutes
	@$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder -m "not integration"

month: $(DEV_STAMP) ## a user's first month, step by step, in about ten minutes (DATA=, DATA_DIR=); no part of CI
	@$(BIN)/python -m scripts.month --data $(DATA) $(if $(DATA_DIR),--data-dir "$$DATA_DIR")

mutants: $(DEV_STAMP) ## change the code of ROOM in small ways, and count what the fast tests notice (SAMPLE=, SEED=)
	@test -n "$(ROOM)" || { echo "Name a file or folder: make mutants ROOM=car_model/metrics"; exit 1; }
	@OMP_NUM_THREADS=1 nice -n 10 $(BIN)/python -m scripts.mutants $(ROOM) --sample $(SAMPLE) --seed $(SEED)

lint: $(DEV_STAMP) ## style, import directions, Dockerfile
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/lint-imports --no-logo
	@$(BIN)/hadolint Dockerfile

types: $(DEV_STAMP) ## mypy
	@$(BIN)/mypy

format: $(DEV_STAMP) ## format the code
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

golden: $(DEV_STAMP) ## write the golden files again, after an intended change
	@$(BIN)/car compile --output tests/pipeline/golden/pipeline.yaml
	@REGENERATE_GOLDEN=1 $(BIN)/python -m pytest -q tests/car_model -k golden

reference: $(DEV_STAMP) ## write docs/reference and docs/schemas from the typed models
	@$(BIN)/python -m scripts.reference

lock: $(DEV_STAMP) ## resolve requirements/*.in into the lock files
	@$(BIN)/python requirements/lock.py

clean: stop ## remove what runs left behind (releases and the cache of sources too)
	rm -rf .car .cache build .pytest_cache .mypy_cache .ruff_cache .hypothesis
