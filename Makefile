# make run   set up and execute the default notebook; results under outputs/
# make lab   set up and open JupyterLab
# make test  set up, then formatter, linter and tests: two processes of one thread each
# make quick the same without the tests that need a kernel or a browser
# make figures measure the figures of README.md again, beside those it shows; about half an hour on two cores
# make pictures draw the pictures of the READMEs again; needs Chromium, takes some 5 minutes on two cores
PYTHON ?= python3
export GOMP_SPINCOUNT ?= 5000
BIN := .venv/bin

.PHONY: run lab test quick figures pictures clean

run: .venv/installed
	touch .venv/started
	$(BIN)/python -m support.desk.terminal neural_style_audio_pretrained.ipynb outputs/neural_style_audio_pretrained.ipynb
	@echo "Done. The executed notebook, the sound (wav), the pictures (png) and the settings (json):"
	@find outputs -maxdepth 1 -type f -newer .venv/started | sort

lab: .venv/installed
	$(BIN)/jupyter lab

test: .venv/tested
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses 2 --dist worksteal

quick: .venv/tested
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses 2 --dist worksteal -m "not slow"

figures: .venv/tested
	$(BIN)/python benchmarks/figures.py

pictures: .venv/tested
	$(BIN)/python benchmarks/quality.py pictures
	$(BIN)/python benchmarks/race.py
	$(BIN)/python benchmarks/screenshot.py

.venv/installed: requirements.txt
	@echo "Installing the packages of requirements.txt into .venv; this takes some minutes, once."
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --requirement requirements.txt
	@echo "Compiling functions of librosa and of this project; this takes about half a minute, once."
	$(BIN)/python -m support.desk.terminal
	touch $@

.venv/tested: .venv/installed tests/requirements.txt benchmarks/requirements.txt
	$(BIN)/pip install --quiet --requirement tests/requirements.txt
	$(BIN)/pip install --quiet --no-deps --requirement benchmarks/requirements.txt
	touch $@

clean:
	rm -rf .venv outputs
