PYTHON ?= python

.PHONY: install test lint figures

install:
	$(PYTHON) -m pip install -e '.[dev]'

test:
	pytest -n 2 --dist worksteal

lint:
	ruff check . && ruff format --check . && mypy masterkey cli banks benchmarks

figures:  # those that need no training, one after the other; about an hour on two cores
	$(PYTHON) -m masterkey.benchmarks.cosines
	$(PYTHON) -m masterkey.benchmarks.start
	$(PYTHON) -m masterkey.benchmarks.overhead
	$(PYTHON) -m masterkey.benchmarks.step_time
	$(PYTHON) -m masterkey.benchmarks.coverage
