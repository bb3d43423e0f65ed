"""The API reference: /openapi.json, and /docs as a web page.

The page is Swagger UI with the files that Powertools ships, so nothing is loaded from other hosts.
"""

from importlib.resources import files
from pathlib import Path
from typing import Final

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
SwaggerUIBundle({url: "/openapi.json", dom_id: "#reference", deepLinking: true, defaultModelsExpandDepth: 0});
</script>
</body>
</html>
"""


def reference() -> list[web.RouteDef]:
    """Return the routes of the API reference."""
    return [
        web.get("/openapi.json", _document),
        web.get("/docs", _page),
        web.get(f"/docs/{{name:{'|'.join(_TYPES)}}}", _asset),
    ]


async def _document(_: web.Request) -> web.StreamResponse:
    return web.FileResponse(DOCUMENT)


async def _page(_: web.Request) -> web.StreamResponse:
    return web.Response(text=_PAGE, content_type="text/html")


async def _asset(request: web.Request) -> web.StreamResponse:
    name = request.match_info["name"]
    return web.Response(body=_RENDERER.joinpath(name).read_bytes(), content_type=_TYPES[name], charset="utf-8")
