# make demo   set up, play the embedded world once with the profiler on, say where the results are
# make test   the tests
# make check  ruff and mypy; biome for the pages' scripts, where there is a wheel of it
# make bench  how fast this machine plays the embedded world, against the committed baseline
PYTHON ?= python3
TORCH ?= torch==2.13.0
BIN := .venv/bin

.PHONY: demo test check bench clean

.venv/ready: pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check "$(TORCH)"
	$(BIN)/pip install --quiet --disable-pip-version-check -e ".[play,train,dev]"
	touch $@

demo: .venv/ready
	$(BIN)/python inference.py --enable_profile --num_output_frames 60

test: .venv/ready
	$(BIN)/python -m pytest

check: .venv/ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	test ! -x $(BIN)/biome || $(BIN)/biome ci --error-on-warnings .

bench: .venv/ready
	$(BIN)/glassworld bench run --compare

clean:
	rm -rf .venv outputs
