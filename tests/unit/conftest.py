"""What the unit tests have in common: how many examples hypothesis tries, and no clock that it holds them to."""

from hypothesis import settings

settings.register_profile("unit", deadline=None, max_examples=60)
settings.load_profile("unit")
