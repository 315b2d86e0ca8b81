# `make run` runs the course, `make test` tests it, `make lab` opens it. Each makes the environment first.

PYTHON ?= python3
VENV   := .venv
READY  := $(VENV)/ready

# An operation that Apple's MPS lacks runs on the CPU, with a warning, in place of an error.
export PYTORCH_ENABLE_MPS_FALLBACK ?= 1

.PHONY: run test test-browser lab bench notebooks publish clean

run: $(READY)           ## run both notebooks; copies with their outputs go to runs/
	$(VENV)/bin/python run.py

test: $(READY)          ## style, unit tests, then notebooks and solutions with little data
	$(VENV)/bin/python -m ruff check .
	$(VENV)/bin/python -m ruff format --check .
	$(VENV)/bin/python -m pytest tests
	SMOKE_TEST=1 TQDM_DISABLE=1 $(VENV)/bin/python -m pytest --nbval-lax --nbval-current-env S5.ipynb S6.ipynb solutions

test-browser: $(READY)  ## open both notebooks in JupyterLab and Notebook 7, run them, draw on the pad
	$(VENV)/bin/python -m pytest -rs tests_browser

lab: $(READY)           ## open the course in JupyterLab
	$(VENV)/bin/python -m jupyter lab

bench: $(READY)         ## a quick version of the benchmarks behind the README's figures; keeps them in runs/bench
	rm -rf runs/bench
	EPOCHS=1 $(VENV)/bin/python benchmarks/accuracy.py --net NetMini --seeds 2 --out runs/bench
	$(VENV)/bin/python benchmarks/speed.py --net NetGAP --rounds 1 --batches 60 --out runs/bench

notebooks: $(READY)     ## for maintainers: run the notebooks in place, renewing outputs and pictures
	$(VENV)/bin/python run.py --in-place

publish: $(READY)       ## make all links lead to your copy: make publish REPO=owner/name
	$(VENV)/bin/python publish.py $(REPO)

clean:                  ## remove all that the other commands made, but keep the data
	rm -rf $(VENV) runs .pytest_cache .ruff_cache .hypothesis

# Touched last: an installation that was interrupted is taken up again.
$(READY): requirements.txt
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python -m pip install --disable-pip-version-check -r requirements.txt
	touch $@
