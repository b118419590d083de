"""The live state: typed, cached tables over a state store, which the fold writes and decisions read."""
