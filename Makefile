# Everything runs in $(VENV), which the first target that needs it makes. Only python3 and make must be there.
PYTHON ?= python3
VENV ?= .venv
ARGS ?=
PYTEST_ARGS ?=

BIN = $(VENV)/bin
STAMP = $(VENV)/.installed
# command lines that tests and notebooks start are the ones of $(VENV)
RUN = PATH="$(abspath $(BIN)):$$PATH" MPLBACKEND=Agg
# two processes share the machine, so each keeps to one thread
TEST = $(RUN) OMP_NUM_THREADS=1

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

compare: $(STAMP) ## compare normalizations; options go in ARGS, for example ARGS=--help
	@$(RUN) $(BIN)/specnorm-compare $(ARGS)

test: $(STAMP) ## all checks: generated files, notebooks, pytest
	@echo "== Generated files: modules, notebooks, README.md"
	@$(TEST) $(BIN)/python tools/check.py
	@echo "== Notebooks: nbdev-test"
	@$(TEST) $(BIN)/nbdev-test --n-workers 2
	@echo "== Tests: pytest"
	@$(TEST) $(BIN)/pytest -q -n 2 --dist loadfile $(PYTEST_ARGS)

install: $(STAMP) ## make the virtual environment, or bring it up to date
	@:

export: $(STAMP) ## notebooks to modules
	@$(RUN) $(BIN)/nbdev-export
	@$(RUN) $(BIN)/python -c 'from nbdev.quarto import refresh_quarto_yml as f; f()'

bench: $(STAMP) ## how fast it is beside other programs, 10 minutes; ARGS='--only recorder --quick'
	@$(RUN) OMP_WAIT_POLICY=passive $(BIN)/python -m benchmarks $(ARGS)

results: $(STAMP) ## the experiments of experiments/, many hours: ARGS='ESC10=DIR FSDD=DIR', one: ARGS='ESC10=DIR esc10-floor'; goes on where it was
	@$(RUN) $(BIN)/python tools/results.py run $(ARGS)

reliability: $(STAMP) ## thousands of bad inputs, faults and a long day, 40 minutes; ARGS='--fuzz 500'
	@$(TEST) $(BIN)/python -m tests.reliability $(ARGS)

clean-nbs: $(STAMP) ## strip the notebooks of what changes from run to run (outputs stay)
	@$(RUN) $(BIN)/nbdev-clean

docs: $(STAMP) ## the site, into _docs/, half a minute; ARGS=--serve shows it on http://127.0.0.1:8000
	@$(TEST) $(BIN)/python tools/docs.py $(ARGS)

readme: $(STAMP) ## nbs/index.ipynb to README.md
	@$(RUN) $(BIN)/python tools/readme.py

$(STAMP): constraints.txt settings.ini setup.py pyproject.toml
	@echo "Installing into $(VENV), with the versions of constraints.txt: 2 to 4 minutes and about 6 GB the first time"
	@rm -f $@
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv --clear $(VENV)
	@PIP_DISABLE_PIP_VERSION_CHECK=1 $(BIN)/python -m pip install -qq -c constraints.txt -e '.[demo,dev,docs,torchaudio]'
	@touch $@

.PHONY: help compare test install bench results reliability export clean-nbs docs readme
