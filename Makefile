# make demo   set up, then pretrain, evaluate, embed and probe on the simulated sample (a few minutes on two cores)
# make test   set up, then run the tests
# make lint   check style; make clean removes what the demo wrote

PYTHON ?= python3
VENV := .venv
RUN := $(VENV)/bin/python
# Tensors this small gain a third from a second thread on a quiet machine and lose far more on a busy one.
export OMP_NUM_THREADS ?= 1
DEMO := outputs/demo
WEIGHTS := $(DEMO)/weights/pretrained_XXS_best.pth

.PHONY: demo test lint clean setup

setup: $(VENV)/.installed

# The machine's own pip installs into the environment, so that a Python without ensurepip will do.
$(VENV)/.installed: requirements.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python 3.11 or newer is needed: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 2; }
	@echo "setting up $(VENV) (PyTorch is a large download)"
	@$(PYTHON) -m venv $(VENV) >/dev/null 2>&1 || $(PYTHON) -m venv --clear --without-pip $(VENV)
	@$(PYTHON) -m pip --python $(RUN) install --quiet --disable-pip-version-check -r requirements.txt
	@touch $@

$(VENV)/.installed-dev: requirements-dev.txt $(VENV)/.installed
	@$(PYTHON) -m pip --python $(RUN) install --quiet --disable-pip-version-check -r requirements-dev.txt
	@touch $@

demo: $(VENV)/.installed
	@rm -rf $(DEMO)
	@echo "== 1/4 pretrain on 192 simulated patches"
	@$(RUN) pretrain_mae.py --config_yaml configs/sample_pretrain.yaml
	@echo "== 2/4 evaluate the reconstruction on 64 others: this short run, then the weights in weights/ (8,000 patches, half an hour)"
	@$(RUN) eval_mae.py --config_yaml configs/sample_eval.yaml --set model.checkpoint_path=$(WEIGHTS) --set eval.reconstructions_dir=$(DEMO)/reconstructions
	@$(RUN) eval_mae.py --config_yaml configs/sample_eval.yaml --set eval.reconstructions_dir=$(DEMO)/reconstructions_of_weights
	@echo "== 3/4 embed the three splits"
	@$(RUN) -m embed.compute_embed --config_yaml configs/sample_embed.yaml --set model.checkpoint_path=$(WEIGHTS) --set embed.out_dir=$(DEMO)/embeddings
	@echo "== 4/4 fit a linear probe and score it on the test split"
	@$(RUN) train_logistic_regression.py --train $(DEMO)/embeddings/sample_train.npz --val $(DEMO)/embeddings/sample_val.npz --test $(DEMO)/embeddings/sample_test.npz --out $(DEMO)/probe --name sample --multilabel true --scale true --C 0.1
	@echo
	@echo "The patches are simulated: the scores show that the pipeline works, nothing about the Earth."
	@echo "  loss curve       $(DEMO)/weights/loss_curve_XXS.png"
	@echo "  reconstructions  $(DEMO)/reconstructions/reconstructions_masked.png"
	@echo "  of weights/      $(DEMO)/reconstructions_of_weights/reconstructions_masked.png"
	@echo "  metrics          $(DEMO)/reconstructions/metrics.json"
	@echo "  embeddings       $(DEMO)/embeddings"
	@echo "  probe            $(DEMO)/probe"

test: $(VENV)/.installed-dev
	@$(RUN) -m pytest

lint: $(VENV)/.installed-dev
	@$(RUN) -m ruff check . && $(RUN) -m ruff format --check .

clean:
	rm -rf $(DEMO)
