"""Fixtures for the tests of the demo."""

from typing import Any

import pytest

from tests.support.moving_clock import MovableLoop


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, Any]]:
    return "asyncio", {"loop_factory": MovableLoop}
