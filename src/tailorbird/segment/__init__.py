"""Segments: who belongs together, by declared rules and as found in the data."""
