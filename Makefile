# The commands of README.md. Everything is installed into .venv from the hash-pinned locks in requirements/.
PYTHON ?= python3
VENV := .venv
PY := $(VENV)/bin/python
INSTALL := $(PY) -m pip install --quiet --disable-pip-version-check --require-hashes --requirement

# The image: its variant, what it starts from (pin it: python:3.11-slim-bookworm@sha256:…) and what it is called.
VARIANT ?= cpu
BASE ?= python:3.11-slim-bookworm
IMAGE ?= cytotrain
VERSION = $(shell sed -n 's/^__version__ = "\(.*\)"/\1/p' data_pipeline/__init__.py)
TAG ?= $(VERSION)$(if $(filter gpu,$(VARIANT)),-gpu)
ifeq ($(filter cpu gpu,$(VARIANT)),)
$(error Invalid value for VARIANT. Expected cpu or gpu. Received: $(VARIANT))
endif
PROCESSES = $(shell $(PYTHON) -c 'import os; print(min(os.cpu_count() + 1, 4))')
IN_PARALLEL = --numprocesses=$(PROCESSES) --dist=loadfile
LOCK = $(if $(filter gpu,$(VARIANT)),gpu,runtime)

.PHONY: demo test test-long test-faults test-container lint bench peers image sbom lock clean

demo: $(VENV)/.runtime
	$(PY) -m data_pipeline.synthesize --output=demo/images
	$(PY) -m data_pipeline --organ=salivary_gland --images=demo/images --tfrecords=demo/tfrecords --image_size=96
	$(PY) -m data_pipeline.verify demo/tfrecords
	$(PY) -m trainer --organ=salivary_gland --tfrecords=demo/tfrecords --runs=demo/runs \
		--epochs=20 --batch_size=32 --precision=auto

# Files of tests are shared by a process more than there are processors, since tests wait too, but four at most.
test: $(VENV)/.test
	$(PY) -m pytest -m "not container and not long" $(IN_PARALLEL)

# Tests that take minutes each: runs that are interrupted at many moments, and several machines at once.
test-long: $(VENV)/.test
	$(PY) -m pytest -m long $(IN_PARALLEL)

# Interrupts training at every moment, on one device, two replicas and several workers: a hundred runs.
# A part of it: make test-faults ARGS=--only='single/*,*/validation/TERM'; ARGS=--list shows the names.
test-faults: $(VENV)/.test
	$(PY) -m tests.faults.training $(ARGS)

# Builds the image with a real Docker engine and runs convert → train → predict in it. Needs root and some minutes.
test-container: $(VENV)/.test
	$(PY) -m pytest -m container

lint: $(VENV)/.test
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy

# Without the peers, say where 7 GB are too many, their rows are left out.
bench: $(VENV)/.bench
	@$(MAKE) peers || echo "Without peers: their rows will be missing. To fix it: make peers"
	$(PY) -m tests.benchmarks

# What benchmarks compare with (PyTorch, albumentations, DALI), in an environment that nothing else uses. Some 7 GB.
peers: $(VENV)-peers/.peers

$(VENV)-peers/.peers: requirements/peers.txt
	$(MAKE) VENV=$(VENV)-peers VARIANT=cpu $@

# make image VARIANT=gpu IMAGE=registry.example/cytotrain DOCKER_ARGS=--pull
# Labels say what it was made of; `-dirty` means files that are in no commit. Ends with the size of each layer.
image: export TZ = UTC
image:
	docker build --tag $(IMAGE):$(TAG) --build-arg VARIANT=$(VARIANT) --build-arg BASE=$(BASE) \
		--build-arg VERSION=$(VERSION) \
		--build-arg REVISION=$$(git describe --always --abbrev=40 --exclude='*' --dirty || echo unknown) \
		--build-arg CREATED=$$(git log -1 --format=%cd --date=format-local:%Y-%m-%dT%H:%M:%SZ || echo unknown) \
		$(if $(findstring @,$(BASE)),--label org.opencontainers.image.base.digest=$(lastword $(subst @, ,$(BASE)))) \
		$(if $(SOURCE),--label org.opencontainers.image.source=$(SOURCE)) $(DOCKER_ARGS) .
	@docker history --human --format '{{.Size}}\t{{.CreatedBy}}' $(IMAGE):$(TAG) | grep -v '^0B' | cut -c 1-100
	@docker image ls --format '{{.Size}}\t{{.Repository}}:{{.Tag}}' $(IMAGE):$(TAG)

# The bill of materials of an image: what its lock installs. For VARIANT=gpu that is installed first, some 7 GB.
sbom: $(VENV)/.sbom $(if $(filter gpu,$(VARIANT)),$(VENV)-gpu/.gpu)
	$(PY) requirements/sbom.py --lock=requirements/$(LOCK).txt --base=$(BASE) \
		--environment=$(VENV)$(if $(filter gpu,$(VARIANT)),-gpu) --output=sbom-$(VARIANT).cdx.json

$(VENV)-gpu/.gpu: requirements/gpu.txt
	$(MAKE) VENV=$(VENV)-gpu VARIANT=cpu $@

# Resolve the locks anew; needs uv (pip install uv).
lock:
	for lock in runtime gpu test bench sbom; do \
		case $$lock in \
			runtime) extras= ;; \
			test) extras="--extra test --extra sbom" ;; \
			bench) extras="--extra test --extra sbom --extra bench" ;; \
			*) extras="--extra $$lock" ;; \
		esac; \
		uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header --no-annotate --upgrade \
			setup.py $$extras --output-file requirements/$$lock.txt || exit 1; \
	done
	uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header --no-annotate --upgrade \
		requirements/peers.in --output-file requirements/peers.txt

clean:
	rm -rf demo build dist *.egg-info sbom-*.cdx.json .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -not -path './$(VENV)/*' -prune -exec rm -rf {} +

$(PY):
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "Python 3.11 or newer is needed. To fix it: make PYTHON=python3.11"; exit 2; }
	$(PYTHON) -m venv $(VENV)

# One stamp a lock: what is installed already is not installed again.
$(VENV)/.%: requirements/%.txt | $(PY)
	@echo "Installing requirements/$*.txt (a minute or two)"
	@$(INSTALL) requirements/$*.txt
	@touch $@
