PYTHON ?= .venv/bin/python
# Cases a campaign.
FUZZ ?= 1000

.PHONY: demo test fuzz lint docs docs-site bench

demo:
	$(PYTHON) -m clipaudit demo

test:
	$(PYTHON) -m pytest -n 2

fuzz:
	rm -f build/fuzz.jsonl && mkdir -p build
	CLIPAUDIT_FUZZ=$(FUZZ) CLIPAUDIT_FUZZ_REPORT=$(CURDIR)/build/fuzz.jsonl $(PYTHON) -m pytest -n 2 $(wildcard tests/test_fuzz_*.py)
	$(PYTHON) docs/reliability.py build/fuzz.jsonl

lint:
	$(PYTHON) -m ruff check .
	$(PYTHON) -m ruff format --check .
	$(PYTHON) -m mypy

docs:
	$(PYTHON) docs/commands.py
	$(PYTHON) docs/options.py
	$(PYTHON) docs/consistency.py

docs-site:
	NO_MKDOCS_2_WARNING=1 $(PYTHON) -m mkdocs build

bench:
	$(PYTHON) -m benchmarks.select_speed
	$(PYTHON) -m benchmarks.embed_speed
	$(PYTHON) -m benchmarks.human_noise
