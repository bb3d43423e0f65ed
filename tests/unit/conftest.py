"""What the unit tests have in common: how many examples hypothesis tries, and no clock that it holds them to."""

from hypothesis import HealthCheck, settings

settings.register_profile("unit", deadline=None, max_examples=60, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("unit")
