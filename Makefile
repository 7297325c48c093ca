# make demo      set up, drive in the embedded world once with the profiler on, say where the results are
# make test      the quick tests, on all cores
# make test-all  the slow tests too
# make coverage  the quick tests with a line-by-line coverage report
# make check     ruff and mypy, and Biome over the scripts of the pages
# make docs      the documentation as a site in outputs/site
# make bench     how fast this machine plays the maze, against the committed baseline
PYTHON ?= python3
TORCH ?= torch==2.13.0
BIN := .venv/bin

.PHONY: demo test test-all coverage check docs bench clean

.venv/ready: pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check "$(TORCH)"
	$(BIN)/pip install --quiet --disable-pip-version-check -e ".[play,train,dev]"
	touch $@

# Twenty seconds on the road.
DEMO := --actions examples/drive.txt --img_path glassworld/worlds/drive/pictures/drive-4.png

demo: .venv/ready
	$(BIN)/python inference.py --enable_profile $(DEMO)

# The tests start many processes, which would all compile the package anew if this were set.
export PYTHONDONTWRITEBYTECODE :=

# One process a core and one thread a process; a file's tests share what they set up.
PYTEST := $(BIN)/python -m pytest --numprocesses auto --maxprocesses 8 --dist loadfile

test: .venv/ready
	$(PYTEST) -m "not slow"

test-all: .venv/ready
	$(PYTEST)

coverage: .venv/ready
	$(PYTEST) -m "not slow" --cov glassworld --cov-report term --cov-report html:outputs/coverage

check: .venv/ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	test ! -x $(BIN)/biome || $(BIN)/biome check --error-on-warnings .

.venv/docs-ready: .venv/ready
	$(BIN)/pip install --quiet --disable-pip-version-check -e ".[docs]"
	touch $@

docs: .venv/docs-ready
	$(BIN)/python -m mkdocs build --strict

bench: .venv/ready
	$(BIN)/glassworld bench run --device cpu --compare

clean:
	rm -rf .venv outputs
