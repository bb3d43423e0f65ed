"""Hypothesis profile of the unit tests: 60 examples per test and no deadline."""

from hypothesis import HealthCheck, settings

settings.register_profile("unit", deadline=None, max_examples=60, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("unit")
