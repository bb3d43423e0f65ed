"""Lambda's Invoke API, for functions without a route: `aws lambda invoke --endpoint-url ...` and boto3 use it."""

import asyncio
import json
from collections.abc import Iterable

from aiohttp import web

from local.http_server import check_site
from local.template import Function
from local.workers import MAX_EVENT_BYTES, EventTooLarge, FunctionError, Workers


def invoke_api(functions: Iterable[Function], workers: Workers) -> web.Application:
    """Serve synchronous Invoke for all functions, by name, ARN or logical id."""
    logical_ids = {
        name: function.logical_id
        for function in functions
        for name in (function.logical_id, function.name, function.arn)
    }

    async def invoke(request: web.Request) -> web.Response:
        check_site(request)
        name = request.match_info["name"]
        if name not in logical_ids:
            return _refusal(404, "ResourceNotFoundException", f"Function not found: {name}")
        try:
            event = json.loads(await request.read() or b"{}")
            answer = await asyncio.shield(workers.invoke(logical_ids[name], event))
        except ValueError:
            return _refusal(400, "InvalidRequestContentException", "Could not parse request body into json")
        except (EventTooLarge, web.HTTPRequestEntityTooLarge):
            return _refusal(413, "RequestTooLargeException", f"Request must be smaller than {MAX_EVENT_BYTES} bytes")
        except FunctionError as error:
            return _answer(error.details, {"X-Amz-Function-Error": "Unhandled"})
        return _answer(answer, {})

    app = web.Application(client_max_size=MAX_EVENT_BYTES + 1)
    app.router.add_post("/2015-03-31/functions/{name}/invocations", invoke)
    return app


def _answer(answer: object, headers: dict[str, str]) -> web.Response:
    text = json.dumps(answer, ensure_ascii=False)
    headers = {"X-Amz-Executed-Version": "$LATEST", **headers}
    return web.Response(text=text, content_type="application/json", headers=headers)


def _refusal(status: int, kind: str, message: str) -> web.Response:
    body = json.dumps({"Type": "User", "Message": message})
    return web.Response(status=status, text=body, content_type="application/json", headers={"x-amzn-ErrorType": kind})
