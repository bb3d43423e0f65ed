"""Writes docs/openapi.json, the API's reference, from the functions themselves: `make openapi`.

Routes, their errors and their documents are what the handlers declare; the schemas are pydantic's. Descriptions are
docstrings, a field's among them. Examples are the bodies of events/ and the answers in docs/answers/.
"""

import ast
import base64
import importlib
import inspect
import json
import os
import re
import sys
from collections.abc import Iterator
from itertools import groupby, pairwise
from pathlib import Path
from typing import Any, Final, get_type_hints

from pydantic import BaseModel, TypeAdapter

ROOT: Final = Path(__file__).parents[1]
TARGET: Final = ROOT / "docs" / "openapi.json"
VERSION: Final = "0.1.0"

_ABOUT: Final = """\
Starts voice calls: each session is a LiveKit room and a Gemini Live connection, and, when it is over, a transcript \
and results in the agent's own schema.

All instants are Unix seconds, all ids UUIDs of version 7. A field that is not documented is refused, and an empty \
body is read as `{}`. An API key opens all of its workspace; a client token opens one session, by the routes that take \
it. What API Gateway answers by itself has its own shape, `{"message": "..."}`: 404 for no route, 413 for a body over \
10 MB, 429 when throttled, 500 when a function cannot start, 503 when it is not done after 30 seconds.
"""
_PLACEHOLDERS: Final = {
    "AWS_ACCESS_KEY_ID": "placeholder",
    "AWS_REGION": "us-east-1",
    "AWS_SECRET_ACCESS_KEY": "placeholder",
    "CLIENT_TOKEN_SECRET": "placeholder-of-thirty-two-letters",
    "EXTRACTION_QUEUE_URL": "https://placeholder",
    "GEMINI_API_KEY": "placeholder",
    "GEMINI_EXTRACTION_MODEL": "placeholder",
    "GEMINI_LIVE_MODEL": "placeholder",
    "LIVEKIT_API_KEY": "placeholder",
    "LIVEKIT_API_SECRET": "placeholder",
    "LIVEKIT_URL": "wss://placeholder",
    "VOICE_AGENTS_TABLE": "placeholder",
    "VOICE_API_KEYS_TABLE": "placeholder",
    "VOICE_IDEMPOTENCY_TABLE": "placeholder",
    "VOICE_SESSIONS_TABLE": "placeholder",
    "VOICE_TRANSCRIPTS_TABLE": "placeholder",
}
_REQUEST_ID: Final = {"X-Request-Id": {"$ref": "#/components/headers/X-Request-Id"}}
_ERROR: Final = {
    "type": "object",
    "description": "Why a request failed, and what to do next.",
    "required": ["error"],
    "additionalProperties": False,
    "properties": {
        "error": {
            "type": "object",
            "required": ["code", "message", "request_id", "retryable"],
            "additionalProperties": False,
            "properties": {
                "code": {"type": "string", "description": "What went wrong, for programs."},
                "message": {"type": "string", "description": "What to do next, for people."},
                "request_id": {"type": "string", "description": "Tells us which request this was."},
                "retryable": {"type": "boolean", "description": "Whether the same request may succeed later."},
                "next": {
                    "type": "integer",
                    "description": "Which turn to send next, where turns are missing or are kept with other words.",
                },
                "details": {
                    "type": "array",
                    "description": "Every fault with its place in the request.",
                    "items": {
                        "type": "object",
                        "required": ["path", "message"],
                        "additionalProperties": False,
                        "properties": {"path": {"type": "string"}, "message": {"type": "string"}},
                    },
                },
            },
        }
    },
}

Json = dict[str, Any]


def document() -> Json:
    """Describe the whole API as an OpenAPI 3.1 document."""
    schemas = _Schemas()
    paths: dict[str, Json] = {}
    for folder, route in _routes():
        paths.setdefault(route.path, {})[route.method.lower()] = _operation(folder, route, schemas)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Pi Voice",
            "version": VERSION,
            "description": _ABOUT,
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/"}],
        "tags": [{"name": name} for name in ("agents", "voices", "sessions", "webhooks")],
        "paths": paths,
        "components": {
            "schemas": {**_opened(schemas.components, paths), "Error": _ERROR},
            "headers": {
                "Idempotent-Replayed": {
                    "description": "There if the request was carried out before, and its answer given once more.",
                    "schema": {"const": "true"},
                },
                "X-Request-Id": {"description": "Tells us which request this was.", "schema": {"type": "string"}},
            },
            "securitySchemes": {
                "api_key": {"type": "http", "scheme": "bearer", "description": "An API key, `pi_live_...`."},
                "client_token": {
                    "type": "http",
                    "scheme": "bearer",
                    "description": "A session's client token, `pi_sess_...`, for a browser: session create and renew "
                    "return it.",
                },
                "livekit_signature": {
                    "type": "apiKey",
                    "in": "header",
                    "name": "Authorization",
                    "description": "LiveKit's JWT (HS256, bare), whose claim `sha256` is the hash of the raw body.",
                },
            },
        },
    }


def _routes() -> Iterator[tuple[str, Any]]:
    """Yield every documented route with its function's folder, in the order of the paths."""
    os.environ.update(_PLACEHOLDERS)
    found = []
    for folder in sorted(path.parent.name for path in (ROOT / "functions").glob("*/app.py")):
        module = importlib.import_module(f"functions.{folder}.app")
        found += [(folder, route) for route in getattr(getattr(module, "app", None), "routes", [])]
    order = ("get", "post", "patch", "delete")
    yield from sorted(found, key=lambda each: (each[1].path, order.index(each[1].method.lower())))


def _operation(folder: str, route: Any, schemas: "_Schemas") -> Json:
    name, hint = route.document
    parameters = [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
        for name in re.findall(r"{(\w+)}", route.path)
    ]
    operation: Json = {
        "operationId": folder,
        "tags": [route.path.split("/")[4]],
        "summary": route.summary,
        "description": inspect.getdoc(route.endpoint),
        "security": _security(route),
    }
    if name and route.method == "GET":
        parameters += _query_parameters(schemas.of(hint, "validation"), schemas)
    elif name:
        content = {"schema": schemas.of(hint, "validation"), "example": _sample(folder)}
        media_types = ["application/json", *(["application/merge-patch+json"] if route.method == "PATCH" else [])]
        operation["requestBody"] = {
            "required": schemas.has_required_fields(content["schema"]),
            "content": dict.fromkeys(media_types, content),
        }
    elif not route.wants_key:
        content = {"schema": {"type": "object"}, "example": _sample(folder)}
        operation["requestBody"] = {"required": True, "content": {"application/webhook+json": content}}
    if route.once:
        parameters.append(_idempotency_key())
    if parameters:
        operation["parameters"] = parameters
    operation["responses"] = {str(route.status_code): _success(folder, route, schemas), **_failures(route)}
    return operation


def _security(route: Any) -> list[Json]:
    """Name what may stand in the Authorization header, one alternative each."""
    if not route.wants_key:
        return [{"livekit_signature": []}]
    return [{"api_key": []}, *([{"client_token": []}] if route.takes_client_token else [])]


def _idempotency_key() -> Json:
    from pi_voice.adapters import idempotency  # noqa: PLC0415 (the environment comes first)

    return {
        "name": "Idempotency-Key",
        "in": "header",
        "required": False,
        "description": "A name of your own for this request, such as a UUID. A request that is sent again with it "
        "within a day is not carried out again: what the first one made is answered once more.",
        "schema": {"type": "string", "pattern": f"^{idempotency.KEY.pattern}$"},
    }


def _query_parameters(reference: Json, schemas: "_Schemas") -> list[Json]:
    """Turn the document of a query into parameters, and drop it from the components."""
    model = schemas.components.pop(reference["$ref"].rpartition("/")[2])
    return [
        {
            "name": name,
            "in": "query",
            "required": name in model.get("required", []),
            "description": schema.pop("description", ""),
            "schema": _without_null(schema),
        }
        for name, schema in model["properties"].items()
    ]


def _without_null(schema: Json) -> Json:
    """A query has no null: a parameter is there or not."""
    if "anyOf" not in schema:
        return schema
    [kind] = [kind for kind in schema["anyOf"] if kind != {"type": "null"}]
    return dict(kind)


def _success(folder: str, route: Any, schemas: "_Schemas") -> Json:
    answer = get_type_hints(route.endpoint)["return"]
    headers: Json = dict(_REQUEST_ID)
    if route.once:
        headers["Idempotent-Replayed"] = {"$ref": "#/components/headers/Idempotent-Replayed"}
    if answer is type(None):
        return {"description": "Done.", "headers": headers}
    schema = schemas.of(answer, "serialization")
    if route.enveloped and not answer.__name__.startswith("Page["):
        schema = {"type": "object", "required": ["data"], "properties": {"data": schema}}
    content = {"schema": schema, "example": json.loads((ROOT / "docs" / "answers" / f"{folder}.json").read_text())}
    return {"description": "Done.", "headers": headers, "content": {"application/json": content}}


def _failures(route: Any) -> dict[str, Json]:
    """Describe the errors of a route, one response per status."""
    from pi_voice.domain import errors  # noqa: PLC0415 (the environment comes first)

    raised = {*route.raises, errors.InternalError}
    if route.wants_key:
        raised |= {errors.MissingApiKey, errors.InvalidApiKey}
    if route.document[0]:
        raised |= {errors.InvalidRequest}
    if route.document[0] and route.method != "GET":
        raised |= {errors.UnsupportedMediaType, errors.RequestTooLarge}
    if route.once:
        raised |= {errors.IdempotencyInProgress, errors.IdempotencyKeyReused}
    ordered = sorted(raised, key=lambda error: (error.status, error.code))
    return {
        str(status): _failure(status, list(group)) for status, group in groupby(ordered, key=lambda error: error.status)
    }


def _failure(status: int, raised: list[Any]) -> Json:
    headers: Json = dict(_REQUEST_ID)
    if status == 401 and len(raised) > 1:  # noqa: PLR2004 (its name in HTTP says no more)
        headers["WWW-Authenticate"] = {"description": "The kind of key wanted.", "schema": {"const": "Bearer"}}
    if status == 503:  # noqa: PLR2004 (its name in HTTP says no more)
        headers["Retry-After"] = {"description": "Seconds to wait.", "schema": {"type": "integer"}}
    codes = [error.code for error in raised]
    return {
        "description": "; ".join(f"`{error.code}`: {inspect.getdoc(error)}" for error in raised),
        "headers": headers,
        "content": {
            "application/json": {
                "schema": {
                    "allOf": [
                        {"$ref": "#/components/schemas/Error"},
                        {"properties": {"error": {"properties": {"code": {"enum": codes}}}}},
                    ]
                }
            }
        },
    }


def _sample(folder: str) -> Json:
    event = json.loads((ROOT / "events" / f"{folder}.json").read_text())
    body = base64.b64decode(event["body"]) if event["isBase64Encoded"] else event["body"]
    return dict(json.loads(body))


def _opened(components: dict[str, Json], paths: dict[str, Json]) -> dict[str, Json]:
    """Let answers grow: what callers send is closed, and what they get may have more fields one day."""
    sent: set[str] = set()
    ahead = [
        json.dumps(operation.get("requestBody", {})) for methods in paths.values() for operation in methods.values()
    ]
    while ahead:
        found = set(re.findall(r"#/components/schemas/(\w+)", ahead.pop())) - sent
        sent |= found
        ahead += [json.dumps(components[name]) for name in found]
    return {
        name: schema if name in sent else {key: value for key, value in schema.items() if key != "additionalProperties"}
        for name, schema in components.items()
    }


class _Schemas:
    """The components that routes refer to."""

    def __init__(self) -> None:
        self.components: dict[str, Json] = {}

    def of(self, hint: Any, mode: Any) -> Json:
        """Return the schema of a type, and keep what it refers to."""
        schema = TypeAdapter(hint).json_schema(mode=mode, ref_template="#/components/schemas/{model}")
        for name, component in schema.pop("$defs", {}).items():
            self._keep(name, component)
        if not (inspect.isclass(hint) and issubclass(hint, BaseModel)):
            return dict(schema)
        name = re.sub(r"^Page\[(\w+)\]$", r"\1Page", hint.__name__)
        self._keep(name, schema)
        return {"$ref": f"#/components/schemas/{name}"}

    def has_required_fields(self, schema: Json) -> bool:
        """Tell whether an empty document, which an empty body is, would lack something."""
        component = self.components[schema["$ref"].rpartition("/")[2]] if "$ref" in schema else schema
        return bool(component.get("required"))

    def _keep(self, name: str, component: Json) -> None:
        for field, text in _field_descriptions(name).items():
            component["properties"][field]["description"] = text
        if self.components.setdefault(name, component) != component:
            message = f"two different schemas are called {name}"
            raise ValueError(message)


def _field_descriptions(model: str) -> dict[str, str]:
    """Read the docstrings that stand below a model's fields and below those that it inherits, by the names in JSON."""
    from pi_voice.domain.base import Document  # noqa: PLC0415 (the environment comes first)

    described: dict[str, str] = {}
    document = next((cls for cls in _subclasses(Document) if cls.__name__ == model), Document)
    for cls in document.__mro__:
        if cls is Document or not issubclass(cls, Document):
            continue
        [body] = [node.body for node in ast.parse(inspect.getsource(cls)).body if isinstance(node, ast.ClassDef)]
        for field, below in pairwise(body):
            match field, below:
                case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=str(text))):
                    described.setdefault(document.model_fields[name].alias or name, inspect.cleandoc(text))
    return described


def _subclasses(cls: type[Any]) -> Iterator[type[Any]]:
    for inner in cls.__subclasses__():
        yield inner
        yield from _subclasses(inner)


def main() -> None:
    """Write the document, or with --check tell whether it is what the functions say."""
    text = json.dumps(document(), indent=1, ensure_ascii=False) + "\n"
    if "--check" in sys.argv and TARGET.read_text() != text:
        sys.exit("docs/openapi.json is not what the functions say. Run `make openapi` and commit it.")
    TARGET.write_text(text)


if __name__ == "__main__":
    main()
