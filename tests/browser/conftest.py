"""The web site on which the browser client runs."""

import threading
from collections.abc import Iterator

import pytest

from tests.browser.site import Site


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    site = Site()
    with site.server:
        threading.Thread(target=site.server.serve_forever).start()
        yield site
        site.server.shutdown()
