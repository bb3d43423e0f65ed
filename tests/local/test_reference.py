"""The API reference of the local stack."""

import json
from pathlib import Path

from local.gateway import http_api
from local.http_server import serving
from local.reference import DOCUMENT, reference, with_one_credential
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


def test_the_page_has_one_field_for_the_credential_and_keeps_it_over_a_reload(background: Background) -> None:
    site = Site(background.enter(serving(http_api((), Workers((), {}), pages=reference()))))

    shown = site.get("/docs/openapi.json").json
    page = site.get("/docs").body

    [scheme] = shown["components"]["securitySchemes"].values()
    assert (scheme["type"], scheme["scheme"]) == ("http", "bearer")
    assert shown["paths"]["/api/v1/voice/agents"]["get"]["security"] == [{"credential": []}]
    assert shown["paths"]["/api/v1/voice/webhooks/livekit"]["post"]["security"] == []
    assert b'url: "/docs/openapi.json"' in page
    assert b"persistAuthorization: true" in page


def test_the_page_shows_every_route_of_the_document() -> None:
    document = json.loads(DOCUMENT.read_text())

    shown = with_one_credential(json.loads(DOCUMENT.read_text()))

    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            assert shown["paths"][path][method] == operation | {"security": shown["paths"][path][method]["security"]}
    assert shown["components"]["schemas"] == document["components"]["schemas"]
