"""Policies: pure functions from sums of what was seen to probabilities over arms."""
