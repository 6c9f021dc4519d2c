"""Measured claims: one module a claim (`python -m benchmarks.events`), all of them by `make bench`. See README.md."""
