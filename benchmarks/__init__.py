"""Benchmarks: one file a claim; promises in `budgets.toml`."""
