# The same targets for people and CI.
.PHONY: help check test bench docs fmt

LINT = uv run --quiet --group lint

help:  ## this list
	@awk -F ':  ## ' '/^[a-z]+:  ## / { printf "make %-6s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

check:  ## format, lint, imports, types
	$(LINT) ruff format --check .
	$(LINT) ruff check .
	$(LINT) lint-imports
	$(LINT) mypy

fmt:  ## put the code in form
	$(LINT) ruff format .
	$(LINT) ruff check --fix .

test:  ## every test
	uv run pytest

bench:  ## measure every claim about speed; results in benchmarks/results/
	uv run --quiet --group bench python -m benchmarks

docs:  ## build the documentation of both languages into site/
	uv run --quiet --group docs python docs/build.py
