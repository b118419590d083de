"""Statistics: mergeable moments in, intervals out."""
