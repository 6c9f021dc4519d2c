# The same targets for people and CI.
.PHONY: help check test soak fuzz bench docs console fmt

LINT = uv run --quiet --group lint
SOAK = tests/sdk/test_cuts.py tests/e2e/test_kill_rounds.py tests/e2e/test_many_processes.py \
	tests/attacks/test_schemathesis.py tests/attacks/test_ownership_model.py

help:  ## this list
	@awk -F ':  ## ' '/^[a-z-]+:  ## / { printf "make %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

check:  ## format, lint, imports, types, known flaws
	$(LINT) ruff format --check .
	$(LINT) ruff check .
	$(LINT) lint-imports
	$(LINT) mypy
	$(LINT) bandit --quiet --configfile pyproject.toml --recursive beray
	$(LINT) python .ci/audit.py

fmt:  ## put the code in form
	$(LINT) ruff format .
	$(LINT) ruff check --fix .

test:  ## every test
	uv run pytest

soak:  ## the long forms of the tests of faults and attacks
	BERAY_TEST_ROUNDS=50 uv run pytest --timeout 1800 $(SOAK)

fuzz:  ## FUZZ_SECONDS=60 for each property of what comes from outside, guided by coverage
	uv run --quiet --group fuzz python -m tests.fuzz

bench:  ## measure every claim about speed; results in benchmarks/results/
	uv run --quiet --group bench python -m benchmarks

docs:  ## build the documentation of both languages into site/
	uv run --quiet --group docs python docs/build.py

console:  ## build the web console (web/) into the package; needs Node
	uv run --quiet python web/openapi.py
	@command -v npm >/dev/null || { echo "notice: npm is not here (Node 20.19 or newer), so the console is left as it was built"; exit 0; }; \
		set -ex; cd web; npm ci; npm run types; npm run build; cd ..; uv run --quiet python web/manifest.py

console-check:  ## the console's own checks: types, unit tests, and that a build gives what is committed; needs Node
	@command -v npm >/dev/null || { echo "notice: npm is not here, so the console's source is not checked"; exit 0; }; \
		cd web; npm ci || { npm ping || { echo "notice: no packages from here, so the console's source is not checked"; exit 0; }; exit 1; }; \
		set -ex; npm run check; npm test; npm run build -- --outDir ../.cache/console --emptyOutDir --logLevel warn; \
		diff -r --exclude manifest.json ../.cache/console ../beray/server/console

screenshots:  ## take the pictures of the console for the documents anew; needs chromium
	uv run --quiet python docs/screenshots.py
