# make demo: install, train on the shipped pictures, detect, draw.   make test: install and run the tests.
PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin
READY = $(VENV)/.ready

.PHONY: demo test test-slow test-comfyui test-browser bench lint clean

$(READY): requirements-dev.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet -r requirements-dev.txt
	touch $@

demo: $(READY)
	HF_HUB_OFFLINE=1 $(BIN)/python -m stablekp_core demo --output demo_output $(DEMO_FLAGS)

test: $(READY)
	HF_HUB_OFFLINE=1 $(BIN)/python -m pytest -q -m "not slow and not comfyui and not browser" tests

test-slow: $(READY)
	HF_HUB_OFFLINE=1 $(BIN)/python -m pytest -q -m slow tests

test-comfyui: $(READY)
	COMFYUI_DIR=$(COMFYUI_DIR) $(BIN)/python -m pytest -q -m comfyui tests/comfyui

# The editor in a real page: needs COMFYUI_DIR, and Chromium at /usr/bin/chromium or where CHROMIUM says.
test-browser: $(READY)
	$(BIN)/python -m pip install --quiet playwright
	COMFYUI_DIR=$(COMFYUI_DIR) $(BIN)/python -m pytest -q -m browser tests/browser

bench: $(READY)
	$(BIN)/python benchmarks/speed.py --short

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

clean:
	rm -rf demo_output build
