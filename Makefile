# make demo     set up, then pretrain, evaluate, embed and probe on the simulated sample, to one report (about two minutes)
# make studies  the same with five seeds and all studies, in outputs/reproduce_sample (up to an hour)
# make test     set up, then run the tests
# make lint     check style; make clean removes what the demo wrote

PYTHON ?= python3
VENV := .venv
RUN := $(VENV)/bin/python
# Tensors this small gain a third from a second thread on a quiet machine and lose far more on a busy one.
export OMP_NUM_THREADS ?= 1
DEMO := outputs/demo

.PHONY: demo studies test lint clean setup

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
	@$(RUN) reproduce.py --config_yaml configs/reproduce_sample.yaml --set 'studies=[]' --set out_dir=$(DEMO)
	@echo
	@echo "The patches are simulated: the scores show that the pipeline works, nothing about the Earth."
	@echo "  everything       $(DEMO)/report.html"
	@echo "  figures          $(DEMO)/figures"
	@echo "  tables           $(DEMO)/tables"
	@echo "  pretraining      $(DEMO)/stages/pretrain/main/seed0/run"

studies: $(VENV)/.installed
	@$(RUN) reproduce.py --config_yaml configs/reproduce_sample.yaml --set 'pretraining_seeds=[0,1,2,3,4]'

test: $(VENV)/.installed-dev
	@$(RUN) -m pytest -n 2 --dist loadfile

lint: $(VENV)/.installed-dev
	@$(RUN) -m ruff check . && $(RUN) -m ruff format --check .

clean:
	rm -rf $(DEMO) outputs/reproduce_sample
