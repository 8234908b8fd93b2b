# make train   train a network on the bundled digits; make train ARGS="data=mnist model=mlp"
# make sweep   the geometry sweep; make sweep ARGS="data=mnist"
# make bench   how fast it is, compared with other ways to train the same network (about 20 minutes)
# make test    lint, types and all tests that need neither long time nor other machines
# make test-long   the tests that take ten seconds or more each
# make test-clusters   the tests on SLURM, Ray and PostgreSQL, which they start; as root on Debian
# make soak    break trainings and sweeps at random for 10 minutes, and count what was lost;
#              make soak ARGS="--seconds 600 --seed 1"
# Each does its own set-up, once: a .venv in this folder with the locked versions. On Linux those are
# built for NVIDIA's GPUs, and large. For the CPU only, name an index with such builds of torch:
# make train TORCH=cpu TORCH_INDEX=<address>

PYTHON ?= python3
PIP := .venv/bin/python -m pip --disable-pip-version-check install $(if $(CI),--quiet)
# the sizes of the locked wheels for Linux on x86-64 and Python 3.11; other systems need less
ifeq ($(TORCH),cpu)
DOWNLOAD := 150 MB and torch
# the lock without torch and its GPU libraries, which that index has in other builds
locked = awk '/^[a-z]/ { skip = /^(torch|torchvision|triton|(nvidia|cuda)-[a-z0-9-]+)==/ } !skip' \
    $(1) > .venv/$(1) && $(PIP) --require-hashes --requirement .venv/$(1)
torch = $(PIP) --no-deps --index-url '$(TORCH_INDEX)' \
    $$(awk '/^torch(vision)?==/ { print $$1 }' requirements.lock)
else
DOWNLOAD := up to 3,150 MB
locked = $(PIP) --require-hashes --requirement $(1)
torch = @:
endif
PYTEST := .venv/bin/python -m pytest --numprocesses auto --dist worksteal
.PHONY: train sweep test test-long test-clusters lint pytest bench soak lock
.DELETE_ON_ERROR:

train: .venv/.train
	.venv/bin/python scripts/train.py $(ARGS)

sweep: .venv/.train
	.venv/bin/python scripts/train.py --multirun sweep=geometry $(ARGS)

# mypy keeps one core busy for a minute: side by side they end sooner
test: .venv/.test
	@$(MAKE) --no-print-directory --jobs=2 lint pytest

pytest: .venv/.test
	$(PYTEST) --durations=10 $(ARGS)

test-long: .venv/.test
	$(PYTEST) -m long --durations=10 $(ARGS)

lint: .venv/.test
	.venv/bin/ruff check
	.venv/bin/ruff format --check
	.venv/bin/mypy

test-clusters: .venv/.clusters
	PYTHONPATH=$(CURDIR)/src .venv/clusters/bin/python -m pytest -m "slurm or ray or postgres" -ra --durations=10 $(ARGS)

bench: .venv/.bench
	.venv/bin/python benchmarks/startup.py
	.venv/bin/python benchmarks/sweeps.py
	.venv/bin/python benchmarks/layers.py
	.venv/bin/python benchmarks/speed.py $(ARGS)
	.venv/bin/python benchmarks/publish.py

soak: .venv/.test
	.venv/bin/python tests/soak.py $(ARGS)

.venv/bin/python:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Convscape needs Python 3.11 or newer")'
	$(PYTHON) -m venv .venv

.venv/.train: requirements.lock pyproject.toml | .venv/bin/python
	$(if $(TORCH_INDEX),,$(if $(TORCH),$(error TORCH=$(TORCH) needs TORCH_INDEX=<address>)))
	@echo "Installing the locked versions into .venv, once: $(DOWNLOAD) to download, some 2 minutes ..."
	$(call locked,requirements.lock)
	$(torch)
	$(PIP) --no-deps --no-build-isolation --editable .
	@touch $@

.venv/.test: requirements-dev.lock .venv/.train
	$(call locked,requirements-dev.lock)
	@touch $@

.venv/.bench: pyproject.toml .venv/.train
	$(PIP) --editable '.[parallel,bench]'
	@touch $@

# on top of .venv: Ray's launcher wants an older cloudpickle than joblib
.venv/.clusters: pyproject.toml .venv/.test
	ls /usr/sbin/slurmctld /usr/sbin/munged /usr/lib/postgresql/*/bin/pg_ctl || { apt-get update -q && \
	    DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends \
	    slurm-wlm munge postgresql; }
	$(PYTHON) -m venv .venv/clusters
	.venv/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))' \
	    >"$$(echo .venv/clusters/lib/python*/site-packages)/libraries.pth"
	.venv/clusters/bin/python -m pip install --quiet 'hydra-ray-launcher>=1.2.2' 'ray>=2.50' \
	    'psycopg[binary]>=3.2'
	@touch $@

# New versions: needs uv (https://docs.astral.sh/uv).
lock:
	uv pip compile --universal --generate-hashes --no-header --no-annotate --quiet \
	    pyproject.toml --output-file requirements.lock
	uv pip compile --universal --generate-hashes --no-header --no-annotate --quiet \
	    --extra parallel --extra slurm --extra search --extra wandb --extra mlflow --extra onnx \
	    --extra safetensors --group dev --constraint requirements.lock \
	    pyproject.toml --output-file requirements-dev.lock
