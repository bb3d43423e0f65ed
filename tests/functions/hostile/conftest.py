"""Fixtures: the functions with their services, as in tests/functions."""

from tests.functions.conftest import api, dynamodb, front, functions, moto, providers, work  # noqa: F401 (fixtures)
