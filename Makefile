# Every target makes its own virtual environment first; nothing but Python >= 3.11 and make is needed.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check install --quiet
RUN := runs/demo
FAST := tests/ops tests/models tests/tasks tests/training tests/data/test_pipeline.py tests/runs/test_hosts.py

.PHONY: demo test test-long test-newest parity compile-tpu lint clean
.DELETE_ON_ERROR:

demo: $(VENV)/.run  ## Prepare the embedded data set, train, evaluate, predict and draw on this machine's CPU.
	$(BIN)/python -m swin_jax.train --config=experiments/shapes.py:classification --workdir=$(RUN)
	$(BIN)/python -m swin_jax.evaluate --workdir=$(RUN)
	$(BIN)/python -m swin_jax.predict --workdir=$(RUN) --split=val
	@echo "Pictures and curves: $(RUN)/curves.png and $(RUN)/pictures/"

test: $(VENV)/.test  ## All tests but the long ones and the live comparison with PyTorch; needs no torch.
	$(BIN)/python -m pytest --numprocesses=2 --dist=loadgroup --ignore=tests/parity -m "not long"

test-long: $(VENV)/.test  ## The long ones: runs killed at random, moved to other devices, stopped on several hosts.
	$(BIN)/python -m pytest --numprocesses=2 --dist=loadgroup --ignore=tests/parity -m long

test-newest:  ## The fast tests with the newest jax, in a venv of their own; wants make PYTHON=python3.12 or later.
	@$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 12) else \
	  "the newest jax needs Python 3.12 or later, $(PYTHON) is " + sys.version.split()[0])'
	$(MAKE) VENV=.venv-newest .venv-newest/.test
	.venv-newest/bin/python -m pytest --numprocesses=2 --dist=loadgroup -m "not long" $(FAST)

parity: $(VENV)/.parity  ## The same weights in PyTorch implementations, compared live.
	$(BIN)/python -m pytest tests/parity

compile-tpu: $(VENV)/.tpu  ## The first stage's block compiled for TPU v5e, against ceilings of what it moves; needs no TPU.
	$(BIN)/python -m swin_jax.benchmark --suite=tpu-compile --part=block

lint: $(VENV)/.test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright

$(VENV)/.created:
	@$(PYTHON) -c 'import sys; sys.exit(0 if (3, 11) <= sys.version_info < (3, 14) else \
	  "swin_jax needs Python 3.11 to 3.13, $(PYTHON) is " + sys.version.split()[0] + "; name another: make PYTHON=python3.12 ...")'
	$(PYTHON) -m venv $(VENV)
	$(PIP) --upgrade pip
	@touch $@

$(VENV)/.run: $(VENV)/.created requirements.txt
	$(PIP) -r requirements.txt
	@touch $@

$(VENV)/.test: $(VENV)/.run requirements-test.txt
	$(PIP) -r requirements-test.txt
	@touch $@

$(VENV)/.parity: $(VENV)/.test requirements-parity.txt Makefile
	$(PIP) -r requirements-parity.txt
	$(PIP) --no-deps timm==1.0.31 torchvision==0.28.0 jax2onnx==0.17.1
	@touch $@

$(VENV)/.tpu: $(VENV)/.run requirements.txt
	$(PIP) "jax[tpu]"
	@touch $@

clean:
	rm -rf $(VENV) .venv-newest .cache .pytest_cache .ruff_cache
