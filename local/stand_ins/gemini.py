"""The Gemini stand-in: auth_tokens, models, generateContent and the Live API, which refuse what Google refuses."""

import json
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from aiohttp import web

from local.http_server import loopback_host, serving
from local.services import Gemini
from local.stand_ins.example_scripts import EXAMPLES, example_scripts
from local.stand_ins.gemini_answers import Answers, add_plan
from local.stand_ins.gemini_errors import GeminiError
from local.stand_ins.gemini_live import AS_GOOGLE, LiveTimes, add_live_api
from local.stand_ins.gemini_live_faults import NO_FAULTS, Faults
from local.stand_ins.gemini_messages import InvalidRequest, Message, read
from local.stand_ins.gemini_models import thinking_fault
from local.stand_ins.gemini_tokens import Tokens

API_KEY: Final = "the-key-of-the-stand-in-opens-nothing"
_MAX_BODY_BYTES: Final = 20 * 1024 * 1024
_MAX_ITEMS_IN_ALL: Final = 960
_DEEPEST: Final = 200
_MODELS: Final = [
    {"name": f"models/{name}", "supportedGenerationMethods": [method]}
    for name, method in {
        "gemini-3.1-flash-live-preview": "bidiGenerateContent",
        "gemini-3.8-live": "bidiGenerateContent",
        "gemini-3.8-live-extended-thinking": "bidiGenerateContent",
        "gemini-3.5-flash-lite": "generateContent",
    }.items()
]
_NO_PAGE: Final = "<!DOCTYPE html><title>Error 404 (Not Found)!!1</title>"
_NO_KEY: Final = (
    "Method doesn't allow unregistered callers (callers without established identity). Please use API Key or other "
    "form of API consumer identity to call this API."
)
_NO_MODEL: Final = (
    "models/{model} is not found for API version {version}, or is not supported for generateContent. Call "
    "ModelService.ListModels to see the list of available models and their supported methods."
)
_TOO_MANY_STATES: Final = (
    "The specified schema produces a constraint that has too many states for serving. Typical causes of this error "
    "are schemas with lots of text, schemas with long array length limits, or schemas using complex value matchers."
)


@asynccontextmanager
async def gemini_stand_in(
    times: LiveTimes = AS_GOOGLE, answers: Answers | None = None, faults: Faults = NO_FAULTS
) -> AsyncIterator[Gemini]:
    """Serve the stand-in."""
    async with serving(gemini_app(Tokens(), API_KEY, times, answers, faults)) as url:
        yield Gemini(API_KEY, url)


Method = Callable[[str, Any, web.Request], Message]


def gemini_app(
    tokens: Tokens,
    api_key: str,
    times: LiveTimes = AS_GOOGLE,
    planned: Answers | None = None,
    faults: Faults = NO_FAULTS,
    examples: Path = EXAMPLES,
) -> web.Application:
    """Build the stand-in's application for one API key, its tokens, its planned answers and the Live API's faults.

    Agents of the folder `examples` call functions as their scripts say. Raises CannotStart.
    """
    answers = planned or Answers()

    def mint(version: str, body: Any, _: web.Request) -> Message:
        auth_token = read("AuthToken", version, body, at="auth_token")
        return {"name": tokens.mint(auth_token, version, datetime.now(UTC)).name}

    def generate(version: str, body: Any, request: web.Request) -> Message:
        model = request.match_info["model"]
        if not model.startswith("gemini-"):
            raise GeminiError(404, _NO_MODEL.format(model=model, version=version))
        # Google publishes no definition of v1, so v1 requests are read as v1beta.
        content_request = read("GenerateContentRequest", "v1beta" if version == "v1" else version, body)
        if fault := thinking_fault(model, content_request.get("generationConfig", {})):
            raise GeminiError(400, fault)
        return _generated(content_request, answers)

    def answering(method: Method) -> Callable[[web.Request], Awaitable[web.Response]]:
        async def answer(request: web.Request) -> web.Response:
            try:
                _check_key(request, api_key)
                body = _parsed(await request.read())
                return web.json_response(method(request.match_info["version"], body, request))
            except InvalidRequest as fault:
                error = GeminiError(400, str(fault), _bad_request(fault))
            except GeminiError as refusal:
                error = refusal
            return web.json_response(error.body, status=error.code)

        return answer

    async def nothing(_: web.Request) -> web.Response:
        return web.Response(status=404, text=_NO_PAGE, content_type="text/html")

    app = web.Application(middlewares=[loopback_host], client_max_size=_MAX_BODY_BYTES)
    app.router.add_post("/{version:v1alpha|v1beta}/auth_tokens", answering(mint))
    app.router.add_post("/{version:v1|v1alpha|v1beta}/models/{model:[^/:]+}:generateContent", answering(generate))
    _add_models(app, api_key)
    add_live_api(app, tokens, times, faults, example_scripts(examples))
    add_plan(app, answers)
    app.router.add_route("*", "/{path:.*}", nothing)
    return app


def _add_models(app: web.Application, api_key: str) -> None:
    """Serve the list of models."""

    async def models(request: web.Request) -> web.Response:
        try:
            _check_key(request, api_key)
        except GeminiError as refusal:
            return web.json_response(refusal.body, status=refusal.code)
        return web.json_response({"models": _MODELS})

    app.router.add_get("/{version:v1|v1alpha|v1beta}/models", models)


def _check_key(request: web.Request, api_key: str) -> None:
    given = request.headers.get("x-goog-api-key")
    if given is None:
        raise GeminiError(403, _NO_KEY)
    if not secrets.compare_digest(given.encode(), api_key.encode()):
        info = {
            "@type": "type.googleapis.com/google.rpc.ErrorInfo",
            "reason": "API_KEY_INVALID",
            "domain": "googleapis.com",
            "metadata": {"service": "generativelanguage.googleapis.com"},
        }
        raise GeminiError(400, "API key not valid. Please pass a valid API key.", info)


def _parsed(body: bytes) -> Any:
    try:
        return json.loads(body)
    except ValueError:
        raise GeminiError(400, "Invalid JSON payload received. Expected a value.") from None


def _bad_request(fault: InvalidRequest) -> Message:
    violations = [{"field": field, "description": description} for field, description in fault.violations]
    return {"@type": "type.googleapis.com/google.rpc.BadRequest", "fieldViolations": violations}


# ---- generateContent ----


def _generated(request: Message, answers: Answers) -> Message:
    """Answer a well-formed request; raises GeminiError."""
    contents, config = request.get("contents", []), request.get("generationConfig", {})
    _check_contents(contents)
    schema = _schema(config)
    prompt = "\n".join(part.get("text", "") for content in contents for part in content["parts"])
    is_json = config.get("responseMimeType") == "application/json"
    return answers.answer(prompt, schema, is_json=is_json)


def _check_contents(contents: list[Message]) -> None:
    if not contents:
        raise GeminiError(400, "* GenerateContentRequest.contents: contents is not specified\n")
    for number, content in enumerate(contents):
        if content.get("role", "user") not in {"user", "model"}:
            raise GeminiError(400, "Please use a valid role: user, model.")
        if not content.get("parts"):
            where = f"* GenerateContentRequest.contents[{number}].parts"
            raise GeminiError(400, f"{where}: contents.parts must not be empty.\n")
    if contents[-1].get("role") == "model":
        raise GeminiError(400, "Requests ending with a model turn are not supported.")


def _schema(config: Message) -> Message | None:
    """Return the response schema, if any; raises GeminiError for a configuration that Google refuses."""
    if config.keys() & {"presencePenalty", "frequencyPenalty"}:
        raise GeminiError(400, "Penalty is not enabled for this model")
    schemas = [config[name] for name in ("responseSchema", "responseJsonSchema") if name in config]
    if not schemas:
        return None
    if len(schemas) > 1:
        raise GeminiError(400, "response_schema must be omitted if response_json_schema is set.")
    if config.get("responseMimeType") != "application/json":
        raise GeminiError(400, "A response schema needs the response_mime_type application/json.")
    if not isinstance(schemas[0], dict):
        raise GeminiError(400, "response_json_schema must be an object.")
    if _max_items(schemas[0]) > _MAX_ITEMS_IN_ALL:
        raise GeminiError(400, _TOO_MANY_STATES)
    return schemas[0]


def _max_items(schema: Any, depth: int = 0) -> int:
    """Return the sum of all maxItems at any depth; raises GeminiError if the schema is nested too deeply."""
    if depth > _DEEPEST:
        raise GeminiError(400, "The specified schema exceeds the maximum allowed nesting depth.")
    match schema:
        case {"maxItems": int(most), **rest}:
            return most + _max_items(rest, depth)
        case {}:
            return sum(_max_items(inner, depth + 1) for inner in schema.values())
        case list():
            return sum(_max_items(inner, depth + 1) for inner in schema)
    return 0
