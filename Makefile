# Two commands do all the set-up: `make demo` and `make test`.
PYTHON ?= $(or $(firstword $(foreach v,11 12 13,$(shell command -v python3.$(v)))),python3.11)
VENV ?= .venv
BIN = $(VENV)/bin
READY = $(VENV)/.ready
# More than cores, because integration tests mostly wait. Each process starts its own servers.
TEST_PROCESSES ?= 3
DEMO_FLAGS ?= --report demo-report.json --chart demo-report.png

.PHONY: install demo test test-unit test-browser test-deploy test-dist test-faults check schemas s3-server lock audit licences sbom dist clean help

help:  ## show the commands
	@grep -E '^[a-z0-9-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

install: $(READY)  ## the virtual environment, with everything in it

demo: $(READY)  ## the whole loop on this machine: scripted agents, Kafka, training, Milvus
	$(BIN)/retrail demo $(DEMO_FLAGS)

# The slowest are listed: one that takes more than 60 seconds on a quiet machine is marked faults.
test: $(READY) s3-server  ## unit and integration tests, and the smoke tests of the other kinds
	$(BIN)/python -m pytest -n $(TEST_PROCESSES) --dist loadfile --durations 10 --durations-min 30 \
		-m "smoke or not (browser or deploy or dist or faults)"

test-unit: $(READY)  ## the tests that need no server
	$(BIN)/python -m pytest -n $(TEST_PROCESSES) --dist loadfile \
		-m "not (integration or browser or deploy or dist or faults)"

# Run by hand: see CONTRIBUTING.md.
test-browser test-deploy test-dist test-faults: test-%: $(READY) s3-server
	$(BIN)/python -m pytest -m $*

check: $(READY)  ## lint, format, types and the size of the source tree
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python .ci/size.py

schemas: $(READY)  ## write schemas/generated from the contracts
	$(BIN)/python -m schemas.generated

# Building takes longer than the timeout of a test. Without Go its tests are skipped.
s3-server: $(READY)  ## build the S3 server of the tests, once, if Go is installed
	-@! command -v go >/dev/null || $(BIN)/python -m tests.servers.s3_gateway

# Hash-checked files: `make audit` and `make install` read the same versions.
LOCKED = requirements/locked.txt requirements/torch.txt

lock:  ## write the files of hashes from constraints.txt (asks the package registry)
	$(BIN)/python .ci/lock.py

# Ends with an error where a vulnerability is known, and where no advisories can be had.
audit: $(READY)  ## known vulnerabilities of the locked packages (pip-audit)
	$(BIN)/python -m uv tool run pip-audit --strict --require-hashes --disable-pip \
		$(LOCKED:%=--requirement %)

licences: $(READY)  ## the licence of every installed package
	$(BIN)/python -m uv tool run pip-licenses --python $(BIN)/python --format markdown

sbom: $(READY)  ## a bill of materials of the virtual environment (CycloneDX), sbom.json
	$(BIN)/python -m uv tool run --from cyclonedx-bom cyclonedx-py environment $(BIN)/python \
		--output-file sbom.json

dist: $(READY)  ## wheels and source distributions of client and server
	rm -rf dist
	$(BIN)/python -m uv build --quiet --out-dir dist retrail
	$(BIN)/python -m uv build --quiet --out-dir dist

clean:  ## remove the virtual environment and the reports
	rm -rf $(VENV) demo-report.json demo-report.png

# An index with other wheels of torch, such as https://download.pytorch.org/whl/cpu (without CUDA).
# Those of the package registry, which are locked with their hashes, bring CUDA on Linux.
TORCH_INDEX ?=
ifeq ($(TORCH_INDEX),)
INSTALLED = $(LOCKED)
else
INSTALLED = $(filter-out %torch.txt,$(LOCKED))
endif
UV_INSTALL = $(BIN)/python -m uv pip install --quiet --compile-bytecode --python $(BIN)/python

# uv installs the same wheels as pip in a fifth of the time. Commands start faster once compiled.
$(READY): pyproject.toml retrail/pyproject.toml requirements/locked.txt requirements/torch.txt
	@command -v $(PYTHON) >/dev/null || { echo "Python 3.11, 3.12 or 3.13 is needed: set PYTHON=/path/to/python"; exit 1; }
	@test -n "$(TORCH_INDEX)" || ls -d $(VENV)/lib/python*/site-packages/torch >/dev/null 2>&1 || echo \
		"Fetching torch with CUDA: 6 GB once installed, on Linux. Without a GPU stop this and run" \
		"make install TORCH_INDEX=https://download.pytorch.org/whl/cpu"
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet uv
	$(UV_INSTALL) --require-hashes $(INSTALLED:%=--requirement %)
ifneq ($(TORCH_INDEX),)
	$(UV_INSTALL) --no-deps --index-url $(TORCH_INDEX) --constraint constraints.txt torch
endif
	$(UV_INSTALL) --no-deps --editable ./retrail --editable .
	$(BIN)/python -m compileall -q retrail schemas retrail_runtime streams trainer consumers serving \
		deploy simulation retrail_cli
	touch $@
