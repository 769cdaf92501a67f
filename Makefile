PYTHON ?= .venv/bin/python

.PHONY: demo test lint docs bench

demo:
	$(PYTHON) -m clipaudit demo

test:
	$(PYTHON) -m pytest -n 2

lint:
	$(PYTHON) -m ruff check .
	$(PYTHON) -m ruff format --check .
	$(PYTHON) -m mypy

docs:
	$(PYTHON) docs/commands.py

bench:
	$(PYTHON) -m benchmarks.select_speed
	$(PYTHON) -m benchmarks.embed_speed
	$(PYTHON) -m benchmarks.human_noise
