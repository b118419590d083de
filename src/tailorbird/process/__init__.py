"""Process: the fold of the log into profiles, links, posteriors and readouts."""
