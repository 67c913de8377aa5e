PYTHON ?= python

.PHONY: install test lint figures

install:
	$(PYTHON) -m pip install -e '.[dev]'

test:
	pytest -n 2 --dist worksteal

lint:
	ruff check . && ruff format --check . && mypy masterkey cli banks benchmarks

figures:  # those that need no training, one after the other; about an hour on two cores
	$(PYTHON) -m masterkey.benchmarks.scripts.cosines
	$(PYTHON) -m masterkey.benchmarks.scripts.start
	$(PYTHON) -m masterkey.benchmarks.scripts.overhead
	$(PYTHON) -m masterkey.benchmarks.scripts.step_time
	$(PYTHON) -m masterkey.benchmarks.scripts.coverage
