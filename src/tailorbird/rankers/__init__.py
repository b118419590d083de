"""Rankers: what tends to be wanted, from counts; each scores plain arrays of item indices."""
