# make demo: install, train on the shipped images, detect, draw.   make test: install what tests need, and run them.
PYTHON ?= python3
VENV ?= .venv
BROWSER ?= tests/browser
BIN = $(VENV)/bin
READY = $(VENV)/.ready
READY_DEV = $(VENV)/.ready-dev

.PHONY: demo test test-slow test-comfyui test-browser bench lint clean

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

$(READY): pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --editable ".[torch]"
	touch $@

$(READY_DEV): requirements-dev.txt requirements.txt | $(BIN)/python
	$(BIN)/python -m pip install --quiet -r requirements-dev.txt
	touch $@

demo: $(READY)
	HF_HUB_OFFLINE=1 $(BIN)/python -m stablekp_core demo --output demo_output $(DEMO_FLAGS)

test: $(READY_DEV)
	HF_HUB_OFFLINE=1 $(BIN)/python -m pytest -q --durations=20 -m "not slow and not comfyui and not browser" tests

test-slow: $(READY_DEV)
	HF_HUB_OFFLINE=1 $(BIN)/python -m pytest -q -m slow tests

test-comfyui: $(READY_DEV)
	COMFYUI_DIR=$(COMFYUI_DIR) $(BIN)/python -m pytest -q -m comfyui tests/comfyui

# The editor in a real page: needs COMFYUI_DIR, and Chromium at /usr/bin/chromium or where CHROMIUM says.
test-browser: $(READY_DEV)
	$(BIN)/python -m pip install --quiet playwright
	COMFYUI_DIR=$(COMFYUI_DIR) $(BIN)/python -m pytest -q -m browser $(BROWSER)

bench: $(READY_DEV)
	$(BIN)/python benchmarks/speed.py --short

# ruff knows the grammar of Python 3.10 but not when a function of the library appeared; vermin does.
lint: $(READY_DEV)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/vermin --target=3.10- --no-tips --violations --exclude long stablekp_core nodes tests benchmarks tools __init__.py

clean:
	rm -rf demo_output build
