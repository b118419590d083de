"""For all tests: what Hypothesis tries is the same in every run, so that a run says something of the code alone."""

from hypothesis import settings

settings.register_profile("seeded", derandomize=True)
settings.load_profile("seeded")
