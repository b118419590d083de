"""Features: state from events, float32 slots from state; the same code online and offline."""
