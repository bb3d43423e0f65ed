"""Fixtures: the functions with their services, as in tests/functions."""

from tests.functions.conftest import api, dynamodb, functions, moto, providers  # noqa: F401 (fixtures)
