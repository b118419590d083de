"""Decide: one cascade from a request to an answer; every exit has a reason."""
