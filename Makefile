# The commands of README.md. Everything is installed into .venv from the hash-pinned locks in requirements/.
PYTHON ?= python3
VENV := .venv
PY := $(VENV)/bin/python
INSTALL := $(PY) -m pip install --quiet --disable-pip-version-check --require-hashes --requirement

.PHONY: demo test test-faults test-container lint bench lock clean

demo: $(VENV)/.runtime
	$(PY) -m data_pipeline.synthesize --output=demo/images
	$(PY) -m data_pipeline --organ=salivary_gland --images=demo/images --tfrecords=demo/tfrecords --image_size=96
	$(PY) -m data_pipeline.verify demo/tfrecords
	$(PY) -m trainer --organ=salivary_gland --tfrecords=demo/tfrecords --runs=demo/runs \
		--epochs=20 --batch_size=32 --precision=auto

# Files of tests are shared by as many processes as there are processors, four at most.
test: $(VENV)/.test
	$(PY) -m pytest -m "not container" --numprocesses=auto --maxprocesses=4 --dist=loadfile

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

bench: $(VENV)/.bench
	$(PY) -m tests.benchmarks

# Resolve the locks anew; needs uv (pip install uv).
lock:
	for extra in runtime gpu test bench; do \
		uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header --no-annotate --upgrade \
			setup.py $$(case $$extra in gpu) echo --extra gpu;; test) echo --extra test;; bench) echo --extra test --extra bench;; esac) \
			--output-file requirements/$$extra.txt || exit 1; \
	done

clean:
	rm -rf demo build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
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
