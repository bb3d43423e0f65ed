"""What the tests of the demo share."""

import pytest


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"
