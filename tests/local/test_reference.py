"""The API reference of the local stack."""

import json
from pathlib import Path

from local.gateway import http_api
from local.http_server import serving
from local.reference import DOCUMENT, reference
from local.workers import Workers
from tests.local.conftest import Background, Site


def test_the_reference_loads_nothing_from_other_hosts(background: Background) -> None:
    site = Site(background.enter(serving(http_api((), Workers((), {}), pages=reference()))))

    document, page = site.get("/openapi.json"), site.get("/docs")
    script, style = site.get("/docs/swagger-ui-bundle.min.js"), site.get("/docs/swagger-ui.min.css")

    assert json.loads(document.body) == json.loads(Path(DOCUMENT).read_text())
    assert document.header("content-type") == "application/json"
    assert page.header("content-type").startswith("text/html")
    assert b"//" not in page.body.replace(b'"/', b"")  # no URL of another host
    assert b"SwaggerUIBundle" in script.body
    assert b".swagger-ui" in style.body
    assert site.get("/docs/nothing.js").json == {"message": "Not Found"}
