"""The API reference: /openapi.json, and /docs as a web page.

The page is Swagger UI with the files that Powertools ships, so nothing is loaded from other hosts. It keeps the
credential over a reload.
"""

import json
from importlib.resources import files
from pathlib import Path
from typing import Any, Final

from aiohttp import web

DOCUMENT: Final = Path(__file__).parent.parent / "docs" / "openapi.json"
_RENDERER: Final = files("aws_lambda_powertools.event_handler.openapi.swagger_ui")
_TYPES: Final = {"swagger-ui-bundle.min.js": "text/javascript", "swagger-ui.min.css": "text/css"}
_PAGE: Final = """\
<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Pi Voice API</title>
<link rel="icon" href="data:,">
<link rel="stylesheet" href="/docs/swagger-ui.min.css">
</head>
<body>
<div id="reference"></div>
<script src="/docs/swagger-ui-bundle.min.js"></script>
<script>
SwaggerUIBundle({
  url: "/docs/openapi.json",
  dom_id: "#reference",
  deepLinking: true,
  defaultModelsExpandDepth: 0,
  persistAuthorization: true,
});
</script>
</body>
</html>
"""


def reference() -> list[web.RouteDef]:
    """Return the routes of the API reference."""
    return [
        web.get("/openapi.json", _document),
        web.get("/docs", _page),
        web.get("/docs/openapi.json", _document_of_page),
        web.get(f"/docs/{{name:{'|'.join(_TYPES)}}}", _asset),
    ]


async def _document(_: web.Request) -> web.StreamResponse:
    return web.FileResponse(DOCUMENT)


async def _document_of_page(_: web.Request) -> web.StreamResponse:
    return web.json_response(with_one_credential(json.loads(DOCUMENT.read_text(encoding="utf-8"))))


def with_one_credential(document: dict[str, Any]) -> dict[str, Any]:
    """Return the document with one security scheme: Swagger UI shows a field for each, though all use one header.

    LiveKit's webhook has none, because each of its signatures is that of one body.
    """
    for methods in document["paths"].values():
        for operation in methods.values():
            operation["security"] = [] if {"livekit_signature": []} in operation["security"] else [{"credential": []}]
    description = "An API key, `pi_live_...`, or a session's client token, `pi_sess_...`, on the routes that accept it."
    document["components"]["securitySchemes"] = {
        "credential": {"type": "http", "scheme": "bearer", "description": description}
    }
    return document


async def _page(_: web.Request) -> web.StreamResponse:
    return web.Response(text=_PAGE, content_type="text/html")


async def _asset(request: web.Request) -> web.StreamResponse:
    name = request.match_info["name"]
    return web.Response(body=_RENDERER.joinpath(name).read_bytes(), content_type=_TYPES[name], charset="utf-8")
