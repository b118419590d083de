"""From history to training data: features as of any past time."""
