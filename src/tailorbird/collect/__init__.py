"""Collect: the event door; HTTP in the Segment protocol to the log, and nothing lost in silence."""
