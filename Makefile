# Two commands for a fresh machine with Python 3.11 or later, make and a C compiler:
#   make run    sets up .venv on first use and runs the quickstart campaign
#   make test   sets up .venv on first use and runs linter, type checker and all tests
# and some that neither needs:
#   make quick  runs the tests that are quick and start no process
#   make docs   builds the documentation in docs/_build/html
#   make notebook   opens the notebooks in a browser
#   make benchmarks runs what the page docs/benchmarks.md shows, and writes it (twenty minutes)
#   make benchopt   runs benchopt's own test command on benchopt_bridge
#   make rivals sets up the environments of the solvers rival_* in .rivals (2 GB)
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
OUT ?= results/quickstart
RIVALS ?= .rivals
RECORDS ?= results/benchmarks

.PHONY: run test quick check dev docs notebook benchmarks benchopt rivals clean

run: $(VENV)/.installed
	$(BIN)/convexnn-bench run quickstart --out $(OUT)

# Bytecode is kept even where PYTHONDONTWRITEBYTECODE is set: hundreds of processes load the same modules.
test: $(VENV)/.installed-test check
	PYTHONDONTWRITEBYTECODE= OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 3 --dist worksteal

# all tests but those marked as slow, as starting processes, or as building documentation; none of them waits, so that
# a third process would only collect them once more
quick: $(VENV)/.installed-test
	PYTHONDONTWRITEBYTECODE= OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist worksteal -m "not slow and not process and not docs"

check: $(VENV)/.installed-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

docs: $(VENV)/.installed-test
	$(BIN)/python -m sphinx -W --keep-going -b html docs docs/_build/html

# opens the notebooks in a browser; the sources beside them open as notebooks too, by jupytext
notebook: $(VENV)/.installed-test
	$(BIN)/python -m pip install --constraint constraints.txt jupyterlab
	cd notebooks && $(abspath $(BIN))/python -m jupyter lab

# runs the cells that have no record of this code in RECORDS, then writes docs/benchmarks.md and its picture from them
benchmarks: $(VENV)/.installed-test
	CONVEXNN_RIVALS=$(abspath $(RIVALS)) $(BIN)/python benchmarks/page.py $(RECORDS) --run

# without conda there is nothing that it could install into; `python` has to be the environment's
benchopt: $(VENV)/.installed-test
	PATH="$(abspath $(BIN)):$$PATH" $(BIN)/benchopt test benchopt_bridge --skip-install

dev: $(VENV)/.installed-test
	$(BIN)/python -m pip install --constraint constraints.txt -e ".[test,dev]"
	$(BIN)/pre-commit install

$(VENV)/bin/python:
	$(PYTHON) -c 'import sys; v = sys.version_info; sys.exit(0 if v >= (3, 11) else "Python 3.11 or later is needed, this is %d.%d: make PYTHON=python3.11" % v[:2])'
	$(PYTHON) -m venv $(VENV)

# constraints.txt pins the versions that the tests were run with; torch there is one that has CPU builds
$(VENV)/.installed: pyproject.toml constraints.txt | $(VENV)/bin/python
	$(BIN)/python -m pip install --constraint constraints.txt -e .
	touch $@

$(VENV)/.installed-test: pyproject.toml constraints.txt | $(VENV)/bin/python
	$(BIN)/python -m pip install --constraint constraints.txt -e ".[test]"
	touch $@ $(VENV)/.installed

rivals: $(RIVALS)/adelie/.installed $(RIVALS)/scnn/.installed $(RIVALS)/celer/.installed $(RIVALS)/skglm/.installed

# adelie needs numpy 1, which constraints.txt excludes; its file pins what matters
$(RIVALS)/adelie/.installed: CONSTRAINT =
$(RIVALS)/scnn/.installed: CONSTRAINT = --constraint constraints.txt
$(RIVALS)/scnn/.installed: constraints.txt
$(RIVALS)/%/.installed: rivals/%.txt
	$(PYTHON) -m venv $(RIVALS)/$*
	$(RIVALS)/$*/bin/python -m pip install $(CONSTRAINT) --requirement $<
	touch $@

clean:
	rm -rf $(VENV) $(RIVALS) .mypy_cache .ruff_cache .pytest_cache .hypothesis
