"""Measure: from sums over visitors to what personalization earned against the holdout."""
