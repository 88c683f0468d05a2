"""Settings every test shares."""

from hypothesis import settings

# The same examples on every machine and no time limit per example: a slow CI core must not fail a property.
settings.register_profile("fgtools", deadline=None, max_examples=60, derandomize=True)
settings.load_profile("fgtools")
