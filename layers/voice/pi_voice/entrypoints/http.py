"""HTTP routes: request parsing, response envelope, idempotency.

Powertools injects the caller and builds the response; pydantic parses bodies from their bytes. Powertools' own
validation stays off: it parses with `json.loads`, which accepts lone surrogates and very deep nesting, and it escapes
responses (docs/adr/0002).
"""

import re
import time
from collections.abc import Callable, Coroutine, Iterable
from functools import partial, wraps
from typing import Annotated, Any, Final, NamedTuple, get_origin, get_type_hints

from aws_lambda_powertools.event_handler import APIGatewayHttpResolver, Response
from aws_lambda_powertools.event_handler.depends import Depends
from aws_lambda_powertools.utilities.data_classes import APIGatewayProxyEventV2
from aws_lambda_powertools.utilities.typing import LambdaContext
from pydantic import BaseModel, TypeAdapter

from pi_voice.deadline import answer_within
from pi_voice.domain.base import BACKEND_FIELDS, Document, parse_request
from pi_voice.domain.errors import AlreadyProcessed, VoiceError
from pi_voice.domain.pagination import Page
from pi_voice.entrypoints.bodies import JSON, MAX_UNAUTHENTICATED_BYTES, is_larger, json_body, require_no_body
from pi_voice.entrypoints.callers import (
    IDEMPOTENCY_KEY,
    ApiKeyCaller,
    Authenticators,
    Caller,
    ClientTokenCaller,
    IfMatch,
    SessionCaller,
    idempotent_request,
)
from pi_voice.entrypoints.error_responses import error_response, not_found_response
from pi_voice.entrypoints.runner import run
from pi_voice.logs import logger
from pi_voice.ports import IdempotencyStore

MAX_BODY_BYTES: Final = 1_048_576
_SENDING_SECONDS: Final = 1.0
"""Time to build and send a response before Lambda ends the function."""

_QUERY: Final = "query"
"""Name of a handler's parameter for the query."""

_ANY_PATH: Final = "(?s:.*)"
"""Matches every path. API Gateway has already matched the function's only route and parsed its parameters.

Powertools' own patterns allow fewer characters in a path than API Gateway, and answer 404 for the rest.
"""
Endpoint = Callable[..., Coroutine[Any, Any, BaseModel | None]]
Event = dict[str, Any]
Errors = tuple[type[VoiceError], ...]
"""Errors of a route in addition to those every route has; for the API reference."""


class Idempotent(NamedTuple):
    """Makes a route support Idempotency-Key."""

    id_field: str
    """Field of the response with the id of the created resource."""
    repeat: Callable[..., Coroutine[Any, Any, BaseModel]] | None = None
    """Builds the response of a repeated request from the id and the caller.

    None runs the handler again, for handlers that change nothing.
    """


class Route(NamedTuple):
    """A route as declared by its handler; the API reference is built from it."""

    method: str
    path: str
    endpoint: Endpoint
    summary: str
    status_code: int
    raises: Errors
    enveloped: bool = True
    idempotent: Idempotent | None = None

    @property
    def request_model(self) -> tuple[str, Any]:
        """Name and type of the parameter for the body or, for GET, the query; an empty name if there is none."""
        beside = ("return",) if self.method == "GET" else ("return", _QUERY)
        for name, hint in get_type_hints(self.endpoint, include_extras=True).items():
            if name not in beside and f"{{{name}}}" not in self.path and not _is_injected(hint):
                return name, hint
        return "", None

    @property
    def query_model(self) -> Any:
        """Type of the parameter for the query; None if the route takes none."""
        return get_type_hints(self.endpoint, include_extras=True).get(_QUERY)

    @property
    def requires_credential(self) -> bool:
        """Whether the route requires an API key or a client token."""
        return self.accepts_client_token or Caller in get_type_hints(self.endpoint, include_extras=True).values()

    @property
    def accepts_client_token(self) -> bool:
        """Whether the route accepts a session's client token."""
        return SessionCaller in get_type_hints(self.endpoint, include_extras=True).values()

    @property
    def accepts_if_match(self) -> bool:
        """Whether the route changes only the version that the header If-Match names."""
        return IfMatch in get_type_hints(self.endpoint, include_extras=True).values()


class _Replayed(NamedTuple):
    """Response to a repeated request."""

    document: BaseModel


class NoFields(Document):
    """Query of a route that takes none."""


class Api:
    """The single route of a function."""

    def __init__(
        self,
        authenticators: Authenticators,
        idempotency: Callable[[], IdempotencyStore],
        max_body_bytes: int = MAX_BODY_BYTES,
    ) -> None:
        self.routes: list[Route] = []
        self._authenticators = authenticators
        self._idempotency = idempotency
        self._max_body_bytes = max_body_bytes
        self._resolver = APIGatewayHttpResolver()
        self._resolver.exception_handler(Exception)(error_response)
        self._resolver.not_found(not_found_response)

    def get(self, path: str, *, summary: str, raises: Errors = ()) -> Callable[[Endpoint], Endpoint]:
        """Serve GET. A model in the handler's signature is parsed from the query."""
        return self._register(partial(Route, "GET", path, summary=summary, status_code=200, raises=raises))

    def post(
        self,
        path: str,
        *,
        summary: str,
        raises: Errors = (),
        status_code: int = 200,
        enveloped: bool = True,
        idempotent: Idempotent | None = None,
    ) -> Callable[[Endpoint], Endpoint]:
        """Serve POST. A model in the handler's signature is parsed from the body."""
        return self._register(
            partial(
                Route,
                "POST",
                path,
                summary=summary,
                status_code=status_code,
                raises=raises,
                enveloped=enveloped,
                idempotent=idempotent,
            )
        )

    def patch(self, path: str, *, summary: str, raises: Errors = ()) -> Callable[[Endpoint], Endpoint]:
        """Serve PATCH. A model in the handler's signature is parsed from the body."""
        return self._register(partial(Route, "PATCH", path, summary=summary, status_code=200, raises=raises))

    def delete(self, path: str, *, summary: str, raises: Errors = ()) -> Callable[[Endpoint], Endpoint]:
        """Serve DELETE, which responds 204 without a body."""
        return self._register(partial(Route, "DELETE", path, summary=summary, status_code=204, raises=raises))

    def handler(self, event: Event, context: LambdaContext) -> dict[str, Any]:
        """Lambda handler for events of an HTTP API or a function URL (payload 2.0)."""
        started = time.perf_counter()
        self._resolver.append_context(  # type: ignore[no-untyped-call]
            authenticators=self._authenticators, max_body_bytes=self._max_body_bytes
        )
        with answer_within(context.get_remaining_time_in_millis() / 1000 - _SENDING_SECONDS):
            response = self._resolver.resolve(event, context)
        request_id = event["requestContext"]["requestId"]
        response["headers"]["X-Request-Id"] = request_id
        logger.info(
            "request",
            route=event["routeKey"],
            ids=event.get("pathParameters"),
            status=response["statusCode"],
            milliseconds=round((time.perf_counter() - started) * 1000),
            request_id=request_id,
            lambda_request_id=context.aws_request_id,
        )
        return response

    def _register(self, route_of: Callable[[Endpoint], Route]) -> Callable[[Endpoint], Endpoint]:
        def register(endpoint: Endpoint) -> Endpoint:
            route = route_of(endpoint)
            self.routes.append(route)
            self._resolver.route(_ANY_PATH, route.method)(self._adapt(route))
            return endpoint

        return register

    def _adapt(self, route: Route) -> Callable[..., Response[str]]:
        """Wrap an endpoint: parse its request model, run it, serialize its response model."""
        name, hint = route.request_model
        requires_credential = route.requires_credential
        query = TypeAdapter(route.query_model or NoFields)
        body = TypeAdapter(hint) if name and route.method != "GET" else None
        for each in get_type_hints(route.endpoint).values():
            if isinstance(each, type) and issubclass(each, BaseModel):
                each.model_rebuild()  # build validators at the cold start, not in the first request

        @wraps(route.endpoint)
        def respond(**arguments: Any) -> Response[str]:
            event = self._resolver.current_event
            arguments |= {name: event.path_parameters[name] for name in re.findall(r"{(\w+)}", route.path)}
            if requires_credential:  # a webhook has neither: its sender decides what it sends
                if is_larger(event.raw_event, MAX_UNAUTHENTICATED_BYTES):
                    _authenticate(arguments.values())
                try:
                    arguments |= self._parsed(event, name, query, body)
                except VoiceError:
                    _authenticate(arguments.values())
                    raise
            result: BaseModel | _Replayed | None
            if route.idempotent is None or (key := event.headers.get(IDEMPOTENCY_KEY)) is None:
                result = run(route.endpoint(**arguments))
            else:
                result = self._once(route.endpoint, route.idempotent, arguments, key)
            if result is None:
                return Response(route.status_code, body=None)
            headers: dict[str, str | list[str]] = {}
            if isinstance(result, _Replayed):
                result, headers = result.document, {"Idempotent-Replayed": "true"}
            is_bare = isinstance(result, Page) or not route.enveloped
            is_client = any(isinstance(each, ClientTokenCaller) for each in arguments.values())
            document = result.model_dump_json(exclude=BACKEND_FIELDS if is_client else None)
            return Response(route.status_code, JSON, document if is_bare else f'{{"data":{document}}}', headers=headers)

        return respond

    def _once(
        self, endpoint: Endpoint, idempotent: Idempotent, arguments: dict[str, Any], key: str
    ) -> "BaseModel | _Replayed":
        """Run the endpoint, or repeat its response if the same request was processed before."""
        [caller] = [each for each in arguments.values() if isinstance(each, ApiKeyCaller | ClientTokenCaller)]
        results: list[BaseModel] = []

        def work() -> str:
            try:
                results.extend(filter(None, [run(endpoint(**arguments))]))
            except AlreadyProcessed as before:
                return before.resource_id
            return str(getattr(results[0], idempotent.id_field))

        event = self._resolver.current_event.raw_event
        request = idempotent_request(caller, event, key, self._max_body_bytes)
        resource_id = self._idempotency().once(request, self._resolver.lambda_context, work)
        if results:
            return results[0]
        if idempotent.repeat is None:
            work()
            return _Replayed(results[0])
        return _Replayed(run(idempotent.repeat(resource_id, caller)))

    def _parsed(
        self, event: APIGatewayProxyEventV2, name: str, query: TypeAdapter[Any], body: TypeAdapter[Any] | None
    ) -> dict[str, Any]:
        """Return the arguments for the body and the query, if the route has them; unknown fields of either are errors.

        Raises UnsupportedMediaType, RequestTooLarge, InvalidRequest.
        """
        in_query = parse_request(lambda: query.validate_python(event.query_string_parameters or {}))
        parsed = {} if isinstance(in_query, NoFields) else {_QUERY: in_query}
        if body is None:
            require_no_body(event.raw_event)
        else:
            document = json_body(event.raw_event, event.headers, self._max_body_bytes)
            parsed[name] = parse_request(lambda: body.validate_json(document))
        return parsed


def _is_injected(hint: object) -> bool:
    return get_origin(hint) is Annotated and isinstance(hint.__metadata__[0], Depends)  # type: ignore[attr-defined]


def _authenticate(arguments: Iterable[object]) -> None:
    """Authenticate before reporting validation errors, so that an unauthenticated caller always gets 401."""
    for argument in arguments:
        if isinstance(argument, ApiKeyCaller | ClientTokenCaller):
            run(argument.authenticate())
