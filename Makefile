# The same targets for people and CI.
.PHONY: check test bench soak docs fmt

LINT = uv run --quiet --group lint

check:  ## format, lint, imports, types
	$(LINT) ruff format --check .
	$(LINT) ruff check .
	$(LINT) lint-imports
	$(LINT) mypy

fmt:  ## put the code in form
	$(LINT) ruff format .
	$(LINT) ruff check --fix .

test:
	uv run pytest

docs:  ## build the documentation of both languages into site/
	uv run --quiet --group docs python docs/build.py
