# Two commands: `make run` (the whole series on the offline default) and `make test` (all tests, notebooks included).
# Both set up .venv first; set-up is skipped when it is there and newer than the files that decide it.
PYTHON ?= python3
VENV := .venv
PY := $(VENV)/bin/python
RUN_DIR ?= runs/offline
TARGET_NOTEBOOKS := notebooks/*.ipynb

.PHONY: run real test-real test survive check notebooks standin advisories clean

$(VENV)/.ready: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "Python >= 3.11 is needed, got " + sys.version.split()[0] + ": pass one with make PYTHON=python3.12")'
	$(PYTHON) -m venv $(VENV)
	$(PY) -m pip install --quiet --upgrade pip
	$(PY) -m pip install --quiet -c constraints.txt -e ".[dev]"
	@touch $@

run: $(VENV)/.ready  ## the six notebooks, end to end, on the offline default
	$(PY) -m fgtools run --out $(RUN_DIR)

real: $(VENV)/.ready  ## the same on real weights and real rows, then test-real: Gemma 3 270M, fetched once; see docs/real.md
	$(PY) -m fgtools run --model real
	$(MAKE) test-real

test-real: $(VENV)/.ready  ## exactness on the tuned model and rows of `make real`, about six minutes
	$(PY) -m pytest -p no:randomly -s tests/real --real runs/real

test: $(VENV)/.ready check  ## style, then all tests in two processes: units, the papermill chains, strict nbval; the slowest are named
	OMP_NUM_THREADS=1 $(PY) -m pytest -p no:randomly -n 2 --dist loadfile --no-loadscope-reorder --durations 25

survive: $(VENV)/.ready  ## 30 kills at random moments over all stages, results equal to an unbroken run: about a quarter of an hour
	$(PY) -m tests.survive

check: $(VENV)/.ready
	$(VENV)/bin/ruff check --no-cache .
	$(VENV)/bin/ruff format --check --no-cache .

notebooks: $(VENV)/.ready  ## execute the committed notebooks in place and put them in normal form
	$(PY) -m tests.normal_form --execute

standin: $(VENV)/.ready  ## make the offline stand-in again (two to three hours of a CPU)
	$(PY) -m fgtools.offline.standin

advisories: $(VENV)/.ready  ## known security advisories of the tested versions; asks the package index for each
	$(PY) -m pip install --quiet pip-audit
	$(PY) -m pip_audit --requirement constraints.txt --no-deps --disable-pip --strict --progress-spinner off

clean:
	rm -rf $(VENV) runs build *.egg-info .pytest_cache .ruff_cache
