# make run   installs Weft into .venv and classifies handwritten digits on the simulated accelerator
# make test  runs every check that CI runs
# make prove proves what takes minutes, and what make test proves again
# make check formats, lints, types and the direction between the rooms
# make docs  writes the generated pages again
# make bench prints the measured figures of docs/measurements.md again

PYTHON ?= python3
BIN := .venv/bin
# pip's own chatter is noise to a newcomer; its errors are not.
PIP := $(BIN)/python -m pip --quiet --disable-pip-version-check

.PHONY: run test prove check docs bench clean
.DELETE_ON_ERROR:

run: .venv/.installed
	@$(BIN)/python examples/digits/classify.py

test: .venv/.installed-dev
	$(BIN)/python -m pytest -n 2 --dist worksteal

prove: .venv/.installed-dev
	$(BIN)/python -m pytest --deep --durations=0 -rs tests/test_formal.py tests/hw/test_formal*.py tests/hw/test_fpga.py tests/cocotb/test_pins.py

check: .venv/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright
	$(BIN)/lint-imports

docs: .venv/.installed-dev
	$(BIN)/python -m weft.isa.manual docs/isa.md
	$(BIN)/python -m weft.compiler.onnx.manual docs/onnx.md

bench: .venv/.installed-dev
	$(BIN)/python benchmarks/simulation_speed.py
	$(BIN)/python benchmarks/networks.py
	$(BIN)/python benchmarks/microarchitecture.py
	$(BIN)/python benchmarks/bus.py
	$(BIN)/python benchmarks/host.py
	$(BIN)/python benchmarks/quantize.py
	$(BIN)/python benchmarks/compile_time.py

.venv/.created:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "weft needs Python 3.11 or newer; found $$($(PYTHON) --version)"; exit 3; }
	@echo "setting up .venv (once) ..."
	@$(PYTHON) -m venv .venv
	@touch $@

.venv/.installed: .venv/.created pyproject.toml
	@echo "installing Weft and its packages (once) ..."
	@$(PIP) install --editable .
	@touch $@

.venv/.installed-dev: .venv/.installed
	@$(PIP) install --editable '.[dev]'
	@touch $@

clean:
	rm -rf .venv build dist *.egg-info
