# Everything a newcomer needs: make run, make test. `make help` lists the rest.
PYTHON ?= python3.11
BIN := .venv/bin
STAMP := .venv/.installed
UV_VERSION := 0.13.9

# uv does not read pip's PIP_FIND_LINKS; it fails on a folder that is not there. Without local wheels,
# torch comes from PyTorch's own CPU index.
ifneq ($(wildcard $(PIP_FIND_LINKS)),)
export UV_FIND_LINKS := $(PIP_FIND_LINKS)
else
export UV_TORCH_BACKEND ?= cpu
endif
export UV_LINK_MODE ?= copy

.DEFAULT_GOAL := help
.PHONY: help run stop compile test test-fast lint format lock clean install

help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

install: $(STAMP) ## create .venv from the lock file

$(STAMP): requirements/dev.lock pyproject.toml
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check uv==$(UV_VERSION)
	@$(BIN)/uv pip sync --quiet --python $(BIN)/python requirements/dev.lock
	@$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation --editable .
	@touch $@

lock: ## resolve requirements/*.in into the lock files
	$(BIN)/uv pip compile --quiet --no-annotate --generate-hashes --python-version 3.11 --no-emit-find-links requirements/run.in -o requirements/run.lock
	$(BIN)/uv pip compile --quiet --no-annotate --generate-hashes --python-version 3.11 --no-emit-find-links -c requirements/run.lock requirements/dev.in -o requirements/dev.lock
