# make demo     set up, show what the shipped weights do, then pretrain, evaluate, embed and probe on the simulated
#               sample, to one report (some minutes)
# make studies  the same with five seeds and all studies, in outputs/reproduce_sample (up to an hour)
# make quick    tests of every package in under a minute, for the inner loop
# make test     set up, then run the tests
# make test-runs, test-docs, test-faults, test-programs  the heavier ones: whole studies and several processes; notebooks
#               and examples; kills, full disks, damaged files (MOEMAE_FAULTS=release: at release length); generated code
#               and exported programs
# make test-adapters  the installed package, torch.hub, transformers, the page in a browser: installs them in an environment of their own
# make test-lowest  all of these but for the slow ones, with the lowest versions that the requirements allow
# make docs     the texts and the API reference as a website, in outputs/site
# make coverage  wants every line and branch tested of the modules that must not lose anybody's work
# make fault-counts  what MOEMAE_FAULTS=release make test-faults has counted so far
# make lint     check style; make types checks types; make clean removes what the demo wrote

PYTHON ?= python3
VENV := .venv
RUN := $(VENV)/bin/python
# Tensors this small gain a third from a second thread on a quiet machine and lose far more on a busy one.
export OMP_NUM_THREADS ?= 1
DEMO := outputs/demo

.PHONY: demo docs studies quick test test-runs test-docs test-faults test-programs test-adapters test-lowest fault-counts coverage lint types clean setup

PYTEST_OPTIONS ?=
LOWEST := .venv-lowest
ADAPTERS := .venv-adapters
DOCS := .venv-docs
QUICK := benchmarks/test_benchmark_reference.py classification_models/test_scores.py configs datasets/test_readers.py \
	datasets/test_geotiff.py utils/test_when_where.py eval/test_bootstrap.py eval/test_block_permutation.py \
	explorer/test_explore.py models/test_moe.py models/test_checkpoint.py release/test_model_card.py \
	repository/test_repository.py scenes/test_scene_product.py studies/test_claims.py training/test_step.py \
	training/test_collapse.py utils/test_metadata.py

setup: $(VENV)/.installed

# The machine's own pip installs into the environment, so that a Python without ensurepip will do.
$(VENV)/.installed: requirements.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python 3.11 or newer is needed: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 2; }
	@echo "setting up $(VENV) (PyTorch is a large download)"
	@test -x $(RUN) || $(PYTHON) -m venv $(VENV) >/dev/null 2>&1 || $(PYTHON) -m venv --clear --without-pip $(VENV)
	@$(PYTHON) -m pip --python $(RUN) install --quiet --disable-pip-version-check -r requirements.txt
	@touch $@

$(VENV)/.installed-dev: requirements-dev.txt $(VENV)/.installed
	@$(PYTHON) -m pip --python $(RUN) install --quiet --disable-pip-version-check -r requirements-dev.txt
	@touch $@

demo: $(VENV)/.installed
	@$(RUN) -m docs.demo --out $(DEMO)

studies: $(VENV)/.installed
	@$(RUN) reproduce.py --config_yaml configs/reproduce_sample.yaml --set 'pretraining_seeds=[0,1,2,3,4]'

PYTEST := -m pytest -n 2 --dist loadfile $(PYTEST_OPTIONS)

test: $(VENV)/.installed-dev
	@$(RUN) $(PYTEST) -m "not runs and not docs and not faults and not programs and not adapters"

test-runs test-docs test-faults test-programs: $(VENV)/.installed-dev
	@$(RUN) $(PYTEST) -m $(subst test-,,$@)

# Of the modules that pyproject.toml lists; by the tests that are about them.
COVERED := faults utils datasets/test_packed.py datasets/test_pack_writing.py models/test_checkpoint.py \
	training/test_run_folder.py training/test_pretrain_resume.py
coverage: $(VENV)/.installed-dev
	@$(RUN) $(PYTEST) -q --cov --cov-config=pyproject.toml --cov-report=term $(addprefix tests/,$(COVERED))

# What `MOEMAE_FAULTS=release make test-faults` has counted so far.
fault-counts: $(VENV)/.installed-dev
	@PYTHONPATH=.:tests:tests/support $(RUN) -m faults

quick: $(VENV)/.installed-dev
	@$(RUN) $(PYTEST) -m "not slow and not faults" $(addprefix tests/,$(QUICK))

# Beside the packages of $(VENV), which it sees; what it adds (among them one named datasets) stays out of that.
$(ADAPTERS)/.installed: requirements-adapters.txt $(VENV)/.installed-dev
	@test -x $(ADAPTERS)/bin/python || $(RUN) -m venv --without-pip $(ADAPTERS)
	@$(RUN) -c 'import sysconfig; print(sysconfig.get_path("purelib"))' > \
		$$($(ADAPTERS)/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/beside.pth
	@$(PYTHON) -m pip --python $(ADAPTERS)/bin/python install --quiet --disable-pip-version-check -r $<
	@touch $@

# For the page that embeds in the browser, where the machine has none.
$(ADAPTERS)/browser: tests/support/npm_browser.py | $(ADAPTERS)/.installed
	@$(RUN) $< $@

test-adapters: $(ADAPTERS)/.installed $(ADAPTERS)/browser
	@$(RUN) $(PYTEST) -m adapters

# The lower bounds become the versions: `>=` is read as `==`. The tools that run the tests need no lowest version.
$(LOWEST)/constraints.txt: requirements.txt requirements-export.txt
	@test -x $(LOWEST)/bin/python || $(PYTHON) -m venv $(LOWEST) >/dev/null 2>&1 || $(PYTHON) -m venv --clear --without-pip $(LOWEST)
	@sed -e 's/#.*//' -e '/^ *$$/d' -e 's/>=/==/' $^ > $@

$(LOWEST)/.installed: $(LOWEST)/constraints.txt requirements-dev.txt
	@echo "setting up $(LOWEST) with the lowest versions (PyTorch is a large download)"
	@$(PYTHON) -m pip --python $(LOWEST)/bin/python install --quiet --disable-pip-version-check -c $< -r requirements-dev.txt
	@touch $@

test-lowest: $(LOWEST)/.installed
	@$(LOWEST)/bin/python $(PYTEST) -m "not slow and not adapters"

# The website, in an environment of its own: the texts, and the reference made from the sources' docstrings.
$(DOCS)/.installed: requirements-docs.txt
	@test -x $(DOCS)/bin/python || $(PYTHON) -m venv $(DOCS) >/dev/null 2>&1 || $(PYTHON) -m venv --clear --without-pip $(DOCS)
	@$(PYTHON) -m pip --python $(DOCS)/bin/python install --quiet --disable-pip-version-check -r $<
	@touch $@

docs: $(DOCS)/.installed
	@$(DOCS)/bin/python -m docs.site
	@NO_MKDOCS_2_WARNING=1 $(DOCS)/bin/python -m mkdocs build --strict --quiet
	@echo "  website          outputs/site/index.html"

lint: $(VENV)/.installed-dev
	@$(RUN) -m ruff check . && $(RUN) -m ruff format --check .

types: $(VENV)/.installed-dev
	@$(VENV)/bin/pyright

clean:
	rm -rf $(DEMO) outputs/reproduce_sample
