"""Write docs/openapi.json, the API reference, and the tables of routes in pages, from the functions: `make openapi`.

Routes and their errors are what the handlers declare, schemas are pydantic's, descriptions are docstrings. Examples
are the bodies in events/ and the responses in docs/responses/, which responses.py writes. Client generators need no
special flags: each schema that becomes a class has a name, requests hold no `default`, and all errors share one schema.
"""

import base64
import importlib
import inspect
import json
import os
import re
import sys
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path
from types import NoneType
from typing import Any, Final, Generic, NotRequired, TypeVar, get_type_hints

from pydantic import BaseModel, ConfigDict, with_config
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaMode, models_json_schema
from typing_extensions import TypedDict

from events.samples import IDS

ROOT: Final = Path(__file__).parents[1]
TARGET: Final = ROOT / "docs" / "openapi.json"
README: Final = ROOT / "README.md"
WEBHOOKS: Final = ROOT / "docs" / "webhooks.md"
BASE: Final = "/api/v1/voice"
VERSION: Final = "0.1.0"

_SETTINGS: Final = {
    "AWS_ACCESS_KEY_ID": "placeholder",
    "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_SECRET_ACCESS_KEY": "placeholder",
    "CLIENT_TOKEN_SECRET": "placeholder-of-thirty-two-letters",
    "DELIVERY_QUEUE_URL": "https://placeholder",
    "EVENT_QUEUE_URL": "https://placeholder",
    "EXTRACTION_QUEUE_URL": "https://placeholder",
    "GEMINI_API_KEY": "placeholder",
    "GEMINI_EXTRACTION_MODEL": "placeholder",
    "GEMINI_LIVE_MODEL": "placeholder",
    "LIVEKIT_API_KEY": "placeholder",
    "LIVEKIT_API_SECRET": "placeholder",
    "LIVEKIT_URL": "wss://placeholder",
    "VOICE_AGENTS_TABLE": "placeholder",
    "VOICE_API_KEYS_TABLE": "placeholder",
    "VOICE_WEBHOOK_ENDPOINTS_TABLE": "placeholder",
    "VOICE_WEBHOOK_DELIVERIES_TABLE": "placeholder",
    "VOICE_IDEMPOTENCY_TABLE": "placeholder",
    "VOICE_SESSIONS_TABLE": "placeholder",
    "VOICE_TRANSCRIPTS_TABLE": "placeholder",
}

# Functions read their settings at import, and pydantic reads a model's configuration when its class is created. Both
# are set here: in the layer, reading docstrings from source files would slow down cold starts.
os.environ.update(_SETTINGS)
BaseModel.model_config.update({"use_attribute_docstrings": True, "json_schema_serialization_defaults_required": True})

# ruff: disable[E402]
from pi_voice.domain import errors, idempotency
from pi_voice.domain.errors import ErrorDetail
from pi_voice.domain.pagination import Page
from pi_voice.domain.preconditions import IF_MATCH
from pi_voice.domain.tool_call_events import ToolCallEvent
from pi_voice.domain.transcripts import TranscriptTurn
from pi_voice.domain.webhook_bodies import EndpointTestEvent, SessionEvent
from pi_voice.domain.webhook_events import TEST, TOOL_CALL

# ruff: enable[E402]

for _each in (ErrorDetail, TranscriptTurn):  # not BaseModels, so they have their own configuration
    vars(_each)["__pydantic_config__"]["use_attribute_docstrings"] = True

Json = dict[str, Any]

_ABOUT: Final = """\
Create voice calls with AI agents. A session is one call: a LiveKit room and a Gemini Live connection, then a \
transcript and results in the agent's output schema.

Times are Unix seconds, and ids are UUIDs of version 7. Unknown fields of a body or a query are rejected, and an \
empty body is read as `{}`. An API key gives access to its workspace, a client token to one session on the routes that \
list it.

API Gateway's own errors are `{"message": "..."}`: 404 for an unknown route, 413 for a body over API Gateway's 10 MB \
or Lambda's 6 MB, 429 for a throttled request, 500 if a function crashed or could not start, and 503 after 30 seconds \
without a response.
"""
_REQUEST_ID: Final = {"X-Request-Id": {"$ref": "#/components/headers/X-Request-Id"}}
_SCHEMAS: Final = "#/components/schemas/"
_TAGS: Final = {
    "agents": "Agents and their versions.",
    "webhook-endpoints": "URLs that receive events of sessions.",
    "voices": "Prebuilt voices.",
    "sessions": "Calls.",
    "extractions": "Previews of extractions.",
    "webhooks": "Webhooks that Pi Voice receives.",
}
_PAGES: Final = {"webhook-endpoints": "docs/webhooks.md"}
"""Tags whose routes are in a table of a page of their own."""
_PATH_PARAMETERS: Final[dict[str, Json]] = {
    "delivery_id": {
        "description": "Delivery id: the event's id, a dot, and the endpoint's id.",
        "schema": {"type": "string"},
        "example": IDS["delivery_id"],
    },
    "agent_id": {"description": "Agent id.", "schema": {"type": "string"}, "example": IDS["agent_id"]},
    "endpoint_id": {
        "description": "Webhook endpoint id.",
        "schema": {"type": "string"},
        "example": IDS["endpoint_id"],
    },
    "session_id": {"description": "Session id.", "schema": {"type": "string"}, "example": IDS["session_id"]},
    "version": {
        "description": "Version number, counted from 1.",
        "schema": {"type": "integer", "minimum": 1},
        "example": int(IDS["version"]),
    },
}
_TABLE: Final = "| route | what it does |\n"
_END_OF_TABLE: Final = "\n\n"
_WIDTH: Final = 116
_NULL: Final = {"type": "null"}

Data = TypeVar("Data", bound=BaseModel)


class Envelope(BaseModel, Generic[Data]):
    """A response with its content under `data`."""

    data: Data


@with_config(use_attribute_docstrings=True)
class Error(TypedDict):
    """Why a request failed, for programs and for people."""

    code: str
    """Error code, for programs."""
    message: str
    """Explanation and next step, for people."""
    request_id: str
    """Id of this request, as in the header `X-Request-Id`."""
    retryable: bool
    """Whether the same request may succeed later."""
    next: NotRequired[int]
    """Index of the turn to send next, for transcript errors."""
    details: NotRequired[list[ErrorDetail]]
    """Each error with its place in the request."""


class ErrorResponse(BaseModel):
    """Why a request failed, and what to do next."""

    model_config = ConfigDict(json_schema_serialization_defaults_required=False)  # else `next` is required

    error: Error


def document() -> Json:
    """Describe the whole API as an OpenAPI 3.1 document."""
    routes = list(_routes())
    queries = _schemas({route.query_model for _, route in routes}, "validation")
    requests = _schemas({route.request_model[1] for _, route in routes if route.method != "GET"}, "validation")
    answered = {_response_model(route) for _, route in routes} | {ErrorResponse}
    responses = _schemas(answered | {SessionEvent, EndpointTestEvent, ToolCallEvent}, "serialization")
    _move_defaults(requests)
    _open(responses)
    paths: dict[str, Json] = {}
    for folder, route in routes:
        paths.setdefault(route.path, {})[route.method.lower()] = _operation(folder, route, queries, requests)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Pi Voice",
            "version": VERSION,
            "description": _ABOUT,
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/"}],
        "tags": [{"name": name, "description": text} for name, text in _TAGS.items()],
        "paths": paths,
        "webhooks": {name: {"post": _webhook(name)} for name in _EVENTS},
        "components": {
            # What is in requests and responses has one schema, the requests': callers may leave defaults out.
            "schemas": responses | requests,
            "headers": {
                "Idempotent-Replayed": {
                    "description": "Present if an earlier request with this key was processed; "
                    "the response describes its resource.",
                    "schema": {"type": "string", "const": "true"},
                },
                "X-Request-Id": {"description": "Id of this request.", "schema": {"type": "string"}},
            },
            "securitySchemes": {
                "api_key": {"type": "http", "scheme": "bearer", "description": "An API key, `pi_live_...`."},
                "client_token": {
                    "type": "http",
                    "scheme": "bearer",
                    "description": "A session's client token, `pi_sess_...`, for a browser; returned when a session is "
                    "created or renewed.",
                },
                "livekit_signature": {
                    "type": "apiKey",
                    "in": "header",
                    "name": "Authorization",
                    "description": "LiveKit's JWT (HS256), without the `Bearer` scheme; its claim `sha256` is the hash "
                    "of the raw body.",
                },
            },
        },
    }


# ---- Webhooks ----

_EVENTS: Final = {
    "session.started": "A session has its first sign of life: a person joined, a turn was saved, or a tool was called.",
    "session.completed": "A session was completed, by the client or after it was abandoned.",
    "session.failed": "A session failed: its room could not be created, or it expired without a word.",
    "extraction.succeeded": "The results of a session were extracted.",
    "extraction.failed": "The results of a session could not be extracted.",
    TEST: "You asked for a test of the endpoint.",
    TOOL_CALL: "An agent called a tool that runs on your server. The response is the tool's answer.",
}
"""Summaries of the requests to webhook endpoints."""

_RECEIVED: Final = {
    "2XX": {"description": "Received. Respond within 15 seconds."},
    "410": {"description": "The endpoint is gone: it is disabled at once."},
    "default": {"description": "Not received. The event is sent again, eight times in about a day."},
}
_JSON_OBJECT: Final = {"application/json": {"schema": {"type": "object"}, "example": {"free": ["18:30", "20:00"]}}}
_ANSWERED: Final = {
    "2XX": {
        "description": "The answer that the agent gets: a JSON object of up to 64 KB, or nothing. Respond within the "
        "tool's `timeout_seconds`.",
        "content": _JSON_OBJECT,
    },
    "4XX": {
        "description": 'The call is refused. The agent gets the object, such as `{"error": "The table is taken."}`.',
        "content": _JSON_OBJECT,
    },
    "default": {"description": "The agent gets an error. The call is not sent again."},
}

_EVENT_AT: Final = 1795338960


def _webhook(name: str) -> Json:
    """Describe a request to a webhook endpoint."""
    model = {TEST: EndpointTestEvent, TOOL_CALL: ToolCallEvent}.get(name, SessionEvent)
    headers = {
        "webhook-id": "Id of the event or tool call, the same at each try. Process an id once.",
        "webhook-timestamp": "When the request was sent. Refuse a request that is older than five minutes.",
        "webhook-signature": "Signatures of id, timestamp and body as in Standard Webhooks, `v1,...`: one for each of "
        "the endpoint's secrets, separated by spaces.",
    }
    event, what = name.split(".")
    return {
        "operationId": f"on{event.title()}{what.title()}",
        "tags": ["webhook-endpoints"],
        "summary": name,
        "description": _EVENTS[name],
        "security": [],
        "parameters": [
            {"name": header, "in": "header", "required": True, "description": text, "schema": {"type": "string"}}
            for header, text in headers.items()
        ],
        "requestBody": {
            "required": True,
            "content": {
                "application/json": {"schema": {"$ref": _SCHEMAS + model.__name__}, "example": _event_example(name)}
            },
        },
        "responses": _ANSWERED if name == TOOL_CALL else _RECEIVED,
    }


def _event_example(name: str) -> Json:
    """Return an event as it is sent to an endpoint that includes neither transcript nor results."""
    if name == TEST:
        data: Json = {"endpoint_id": IDS["endpoint_id"]}
    elif name == TOOL_CALL:
        data = _tool_call_example()
    else:
        folder = "stop_session" if name in ("session.started", "session.failed") else "get_session"
        data = json.loads((ROOT / "docs" / "responses" / f"{folder}.json").read_text())["data"]
        data = {key: value for key, value in data.items() if key not in ("transcript", "tool_calls", "results")}
        if name == "session.started":
            data |= {"hung_up_at": None}
        if name == "session.failed":
            failure = {"code": "expired", "message": "The session was never completed.", "details": []}
            data |= {"status": "failed", "failed_at": _EVENT_AT, "failure": failure, "end_reason": "expired"}
        if name == "extraction.failed":
            error = {"code": "gemini_unavailable", "message": errors.GeminiUnavailable.default_message, "details": []}
            data |= {"extraction": data["extraction"] | {"status": "failed", "error": error}}
    return {"type": name, "timestamp": _EVENT_AT, "data": data}


def _tool_call_example() -> Json:
    session = json.loads((ROOT / "docs" / "responses" / "get_session.json").read_text())["data"]
    names = ("session_id", "agent_id", "agent_version", "participant", "metadata")
    return {
        **{name: session[name] for name in names},
        "variables": {"restaurant": "Linden"},
        "call_id": "function-call-1284",
        "name": "find_table",
        "arguments": {"day": "2026-12-04", "guests": 6},
    }


# ---- Operations ----


def _routes() -> Iterator[tuple[str, Any]]:
    """Yield every documented route with its function's folder, in the order of the paths."""
    found = []
    for folder in sorted(path.parent.name for path in (ROOT / "functions").glob("*/app.py")):
        module = importlib.import_module(f"functions.{folder}.app")
        found += [(folder, route) for route in getattr(getattr(module, "app", None), "routes", [])]
    order = ("get", "post", "patch", "delete")
    yield from sorted(found, key=lambda each: (each[1].path, order.index(each[1].method.lower())))


def _operation(folder: str, route: Any, queries: dict[str, Json], requests: dict[str, Json]) -> Json:
    parameters = [
        {"name": name, "in": "path", "required": True, **_PATH_PARAMETERS[name]}
        for name in re.findall(r"{(\w+)}", route.path)
    ]
    if route.query_model:
        parameters += _query_parameters(queries[route.query_model.__name__])
    if route.idempotent:
        parameters.append(_idempotency_key())
    if route.accepts_if_match:
        parameters.append(_if_match())
    body = _request_body(folder, route, requests)
    first, *others = folder.split("_")
    return {
        "operationId": first + "".join(map(str.capitalize, others)),
        "tags": [route.path.split("/")[4]],
        "summary": route.summary,
        "description": inspect.getdoc(route.endpoint),
        "security": _security(route),
        **({"parameters": parameters} if parameters else {}),
        **({"requestBody": body} if body else {}),
        "responses": {str(route.status_code): _success(folder, route), **_failures(route)},
    }


def _security(route: Any) -> list[Json]:
    """List the credentials that a route accepts, as alternatives."""
    if not route.requires_credential:
        return [{"livekit_signature": []}]
    return [{"api_key": []}, *([{"client_token": []}] if route.accepts_client_token else [])]


def _idempotency_key() -> Json:
    return {
        "name": "Idempotency-Key",
        "in": "header",
        "required": False,
        "description": "Unique key of this request, such as a UUID. A request repeated with the same key within a "
        "day takes effect once. The response describes the same resource; its tokens are new.",
        "schema": {"type": "string", "pattern": f"^{idempotency.KEY.pattern}$"},
    }


def _if_match() -> Json:
    return {
        "name": IF_MATCH,
        "in": "header",
        "required": False,
        "description": "The version that you have seen, in double quotes. The agent is changed only if this is its "
        "current version; otherwise the response is 409. `*` matches any version, and a weak tag none.",
        "schema": {"type": "string"},
        "example": '"3"',
    }


def _query_parameters(model: Json) -> list[Json]:
    return [
        {
            "name": name,
            "in": "query",
            "required": name in model.get("required", []),
            "description": schema["description"],
            "schema": _without_null(schema),
        }
        for name, schema in model["properties"].items()
    ]


def _without_null(schema: Json) -> Json:
    """Remove null: a query parameter is present or absent."""
    if "anyOf" not in schema:
        return {key: value for key, value in schema.items() if key != "description"}
    [kind] = [kind for kind in schema["anyOf"] if kind != _NULL]
    return dict(kind)


def _request_body(folder: str, route: Any, requests: dict[str, Json]) -> Json | None:
    if not route.requires_credential:
        content = {"schema": {"type": "object"}, "example": _sample(folder)}
        return {"required": True, "content": {"application/webhook+json": content}}
    _, model = route.request_model
    if not model or route.method == "GET":
        return None
    name = _merge_patch(folder, requests) if route.method == "PATCH" else model.__name__
    content = {"schema": {"$ref": _SCHEMAS + name}, "example": _sample(folder)}
    is_required = "required" in requests[name] or "minProperties" in requests[name]
    return {"required": is_required, "content": {"application/json": content}}


def _sample(folder: str) -> Json:
    event = json.loads((ROOT / "events" / f"{folder}.json").read_text())
    body = base64.b64decode(event["body"]) if event["isBase64Encoded"] else event["body"]
    return dict(json.loads(body))


def _response_model(route: Any) -> Any:
    """Return the model of a route's response, its envelope included; None for a response without a body."""
    model = get_type_hints(route.endpoint)["return"]
    if model is NoneType:
        return None
    if not route.enveloped or issubclass(model, Page):
        return model
    return Envelope[model]  # type: ignore[valid-type]  # known at run time only


def _success(folder: str, route: Any) -> Json:
    headers: Json = dict(_REQUEST_ID)
    if route.idempotent:
        headers["Idempotent-Replayed"] = {"$ref": "#/components/headers/Idempotent-Replayed"}
    model = _response_model(route)
    if model is None:
        return {"description": "Deleted.", "headers": headers}
    content = {
        "schema": {"$ref": _SCHEMAS + _plain(model.__name__)},
        "example": json.loads((ROOT / "docs" / "responses" / f"{folder}.json").read_text()),
    }
    description = inspect.getdoc(get_type_hints(route.endpoint)["return"])
    return {"description": description, "headers": headers, "content": {"application/json": content}}


def _failures(route: Any) -> dict[str, Json]:
    """Describe the errors of a route, one response per status."""
    raised = {*route.raises, errors.InternalError}
    if route.requires_credential:
        raised |= {errors.MissingApiKey, errors.InvalidApiKey, errors.InvalidRequest}
    if route.request_model[0] and route.method != "GET":
        raised |= {errors.UnsupportedMediaType, errors.RequestTooLarge}
    if route.idempotent:
        raised |= {errors.IdempotencyInProgress, errors.IdempotencyKeyReused, errors.RequestTooLarge}
    ordered = sorted(raised, key=lambda error: (error.status, error.code, error.__name__))
    return {
        str(status): _failure(status, list(group)) for status, group in groupby(ordered, key=lambda error: error.status)
    }


def _failure(status: int, raised: list[Any]) -> Json:
    headers: Json = dict(_REQUEST_ID)
    if status == 401 and len(raised) > 1:  # noqa: PLR2004 (its name in HTTP says no more)
        headers["WWW-Authenticate"] = {
            "description": "The authentication scheme to use.",
            "schema": {"type": "string", "const": "Bearer"},
        }
    if status == 503:  # noqa: PLR2004 (its name in HTTP says no more)
        headers["Retry-After"] = {"description": "Seconds to wait.", "schema": {"type": "integer"}}
    codes = [error.code for error in raised]
    return {
        "description": "; ".join(f"`{error.code}`: {inspect.getdoc(error)}" for error in raised),
        "headers": headers,
        "content": {
            "application/json": {
                # Validators check the codes beside the reference. Generators follow the reference only, so clients
                # have one class for all errors.
                "schema": {
                    "$ref": f"{_SCHEMAS}ErrorResponse",
                    "properties": {"error": {"properties": {"code": {"enum": codes}}}},
                }
            }
        },
    }


# ---- Schemas ----

_ALIASES: Final = {
    "DeliveryStatus": (
        "Status of a delivery. `cancelled`: its session was deleted, or its endpoint was deleted or disabled."
    ),
    "EvidenceByPath": "Evidence of each value of the results, by its path.",
    "JsonObject": "Any JSON object with finite numbers.",
    "JsonValue": "Any JSON value.",
    "Medium": "Track that a participant may publish.",
    "Metadata": "Key-value pairs for your own use: up to 16, keys of 1 to 40 characters, values of up to 500.",
    "ResponseLength": "Length of an agent's answers.",
    "SessionEventType": (
        "Type of an event of a session. `session.started` is the first sign of life: a person joined, a turn was "
        "saved, or a tool was called."
    ),
    "SessionStatus": "Status of a session.",
    "SpeakingPace": "Speaking rate of an agent.",
    "TokensByModality": (
        "Numbers of tokens by modality: `text`, `audio`, `image`, `video`, `document`; other names are added up under "
        "`other`. A modality that is absent is unknown, not zero."
    ),
    "Variables": "Variables of an agent by name, up to 50. A name is a letter, then letters, digits and underscores.",
    "VoiceName": "Name of a prebuilt voice.",
    "WebhookDisabledReason": (
        "Why a webhook endpoint was disabled. `gone`: it responded 410. `failing`: its events failed for three days."
    ),
    "WebhookInclude": (
        "Part of a session that events contain on request. `transcript`: turns and tool calls. `results`: the "
        "extracted results, with their evidence."
    ),
}
"""Descriptions of the named types that are not models; docstrings of type aliases exist in the source only."""


class _Generator(GenerateJsonSchema):
    """pydantic's generator without titles, which repeat the names of fields."""

    def field_title_should_be_set(self, schema: Any) -> bool:  # noqa: ARG002 (a hook of pydantic's)
        return False


def _schemas(hints: set[Any], mode: JsonSchemaMode) -> dict[str, Json]:
    """Return the schemas of models and of what they refer to, by name."""
    models = [(hint, mode) for hint in hints if inspect.isclass(hint) and issubclass(hint, BaseModel)]
    ordered = sorted(models, key=lambda each: each[0].__name__)
    _, schema = models_json_schema(ordered, ref_template=f"{_SCHEMAS}{{model}}", schema_generator=_Generator)
    schemas: dict[str, Json] = json.loads(_plain(json.dumps(schema["$defs"])))
    for name, each in schemas.items():
        each.pop("title", None)
        generic = next((generic for generic in (Envelope, Page) if name.endswith(generic.__name__)), None)
        description = inspect.getdoc(generic) if generic else _ALIASES.get(name)
        if description:
            each.setdefault("description", description)
    return schemas


def _plain(text: str) -> str:
    """Write AgentPage for what pydantic calls Page[Agent] or Page_Agent_."""
    return re.sub(r"\b(Envelope|Page)[\[_](\w+?)[\]_]", r"\2\1", text)


def _open(responses: dict[str, Json]) -> None:
    """Allow more fields in later responses, and leave out defaults, since a response holds every field."""
    for schema in responses.values():
        if schema.get("additionalProperties") is False:
            del schema["additionalProperties"]
        for field in schema.get("properties", {}).values():
            field.pop("default", None)


def _move_defaults(requests: dict[str, Json]) -> None:
    """Move defaults to the descriptions, because openapi-typescript requires a field that has a `default`."""
    for schema in requests.values():
        for field in schema.get("properties", {}).values():
            default = field.pop("default", None)
            if default not in (None, "", [], {}) and not isinstance(default, dict):
                field["description"] += f" Default: {json.dumps(default)}."


def _merge_patch(folder: str, requests: dict[str, Json]) -> str:
    """Add the schema of a merge patch (RFC 7396) of what the create route takes, and return its name."""
    noun = folder.removeprefix("update_").title().replace("_", "")
    name = f"Update{noun}Request"
    requests[name] = {
        **_patch_of(requests[f"Create{noun}Request"], requests),
        "description": "A JSON merge patch (RFC 7396): absent fields do not change, null resets a field.",
    }
    return name


def _patch_of(schema: Json, requests: dict[str, Json]) -> Json:
    """Make every field of an object optional, and nullable unless it is required, in the objects inside it as well."""
    if "properties" in schema:
        patches = {name: _patch_of(field, requests) for name, field in schema["properties"].items()}
        required = schema.get("required", ())
        fields = {name: patch if name in required else _nullable(patch) for name, patch in patches.items()}
        return {key: value for key, value in schema.items() if key != "required"} | {"properties": fields}
    if _NULL in schema.get("anyOf", []):
        return {**schema, "anyOf": [_patch_of(kind, requests) for kind in schema["anyOf"]]}
    if isinstance(schema.get("additionalProperties"), dict):  # metadata and variables: null removes a key
        values = _nullable(_patch_of(schema["additionalProperties"], requests))
        return {"type": "object", "description": schema["description"], "additionalProperties": values}
    name = schema.get("$ref", "").removeprefix(_SCHEMAS)
    patch = _patch_of(requests[name], requests) if name else {}
    if not name or patch == requests[name]:
        return schema
    requests[f"{name}Patch"] = patch
    return {**schema, "$ref": f"{_SCHEMAS}{name}Patch"}


def _nullable(schema: Json) -> Json:
    if _NULL in schema.get("anyOf", []):
        return schema
    beside = {"description": schema["description"]} if "description" in schema else {}
    return {"anyOf": [{key: schema[key] for key in schema if key != "description"}, _NULL], **beside}


def _readme_table(described: Json) -> list[str]:
    """Return the rows of the README's table, in which the routes of a page of their own share a row."""
    rows = []
    for tag, text in _TAGS.items():
        own = _routes_of(described, tag)
        page = _PAGES.get(tag)
        rows += [f"| `/{tag}` | {text.rstrip('.')}: [{len(own)} routes]({page}#routes) |\n"] if page else own
    return rows


def _routes_of(described: Json, tag: str) -> list[str]:
    """Return a row for each route of a tag, with the first sentence of its description."""
    rows = []
    for path, methods in described["paths"].items():
        for method, operation in methods.items():
            if operation["tags"] == [tag]:
                first, _, _ = operation["description"].replace("\n", " ").partition(". ")
                client = "*client*: " if {"client_token": []} in operation["security"] else ""
                rows.append(f"| `{method.upper()} {path.removeprefix(BASE)}` | {client}{first.rstrip('.')} |\n")
    return rows


def _with_table(text: str, rows: list[str]) -> str:
    """Replace the rows of the table of routes."""
    before, _, rest = text.partition(_TABLE)
    return f"{before}{_TABLE}|---|---|\n{''.join(rows)}{rest[rest.index(_END_OF_TABLE) + 1 :]}"


def _with_events(text: str, described: Json) -> str:
    """Replace the blocks that have the name of an event beside their language by the event's example."""
    for name, operations in described["webhooks"].items():
        body = operations["post"]["requestBody"]["content"]["application/json"]["example"]
        block = f"```json {name}\n{_compact(body)}\n```"
        pattern = rf"```json {re.escape(name)}\n.*?```"
        text = re.sub(pattern, block.replace("\\", r"\\"), text, flags=re.DOTALL)
    return text


def _compact(value: Any, indent: str = "", used: int = 0) -> str:
    """Write JSON with each object on one line where it fits, unless it has objects of its own."""
    text = json.dumps(value, ensure_ascii=False)
    inner = value.values() if isinstance(value, dict) else ()
    if len(indent) + used + len(text) < _WIDTH and not any(isinstance(each, dict) for each in inner):
        return text
    if isinstance(value, list):
        return f"[{', '.join(_compact(each, indent) for each in value)}]"
    deeper = f"{indent}  "
    lines = [f"{deeper}{json.dumps(key)}: {_compact(each, deeper, len(key) + 4)}" for key, each in value.items()]
    return "{\n" + ",\n".join(lines) + f"\n{indent}}}"


def main() -> None:
    """Write the document, and what pages show of it; with --check, fail if they are not what the functions declare."""
    described, readme, webhooks = document(), README.read_text(encoding="utf-8"), WEBHOOKS.read_text(encoding="utf-8")
    texts = {
        TARGET: json.dumps(described, indent=1, ensure_ascii=False) + "\n",
        README: _with_table(readme, _readme_table(described)),
        WEBHOOKS: _with_events(_with_table(webhooks, _routes_of(described, "webhook-endpoints")), described),
    }
    for path, text in texts.items():
        if path.read_text(encoding="utf-8") == text:
            continue
        if "--check" in sys.argv:
            sys.exit(f"{path.relative_to(ROOT)} does not match the functions. Run `make openapi` and commit it.")
        path.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
