"""The edge: routes, callers, bodies, the envelope and errors, as the API contract has them.

Powertools injects the caller and builds the answer; pydantic reads bodies straight from their bytes. Powertools' own
validation stays off: it parses with `json.loads`, which lets lone surrogates and very deep nesting through to where
they break, and it writes answers with escapes (docs/adr/0002).
"""

import asyncio
import base64
import gc
import math
import re
import time
from collections.abc import Callable, Coroutine, Iterable
from dataclasses import dataclass
from functools import partial, wraps
from typing import Annotated, Any, Final, TypeVar, get_origin, get_type_hints

from aws_lambda_powertools.event_handler import APIGatewayHttpResolver, Response
from aws_lambda_powertools.event_handler.depends import Depends
from aws_lambda_powertools.event_handler.request import Request
from aws_lambda_powertools.utilities.data_classes import APIGatewayProxyEventV2
from aws_lambda_powertools.utilities.typing import LambdaContext
from pydantic import BaseModel, TypeAdapter
from pydantic_core import from_json, to_json

from pi_voice import api_keys, client_tokens, ports, wiring
from pi_voice.documents import Page, read
from pi_voice.errors import (
    CarriedOut,
    InternalError,
    InvalidApiKey,
    InvalidRequest,
    InvalidWebhookSignature,
    MissingApiKey,
    RequestTooLarge,
    UnsupportedMediaType,
    VoiceError,
)
from pi_voice.ids import WorkspaceId
from pi_voice.logs import logger, trace
from pi_voice.ports import Scope

MAX_BODY_BYTES: Final = 1_048_576
_RETRY_AFTER_SECONDS: Final = 2
_JSON: Final = "application/json"
_ANY_PATH: Final = "(?s:.*)"
"""Matches every path: the gateway has found the route, which is the function's only one, and read its parameters.

Powertools' own patterns know less of what may stand in a path than API Gateway does, and answer 404 for the rest.
"""
Answer = TypeVar("Answer")
Endpoint = Callable[..., Coroutine[Any, Any, BaseModel | None]]
Event = dict[str, Any]
Errors = tuple[type[VoiceError], ...]
"""What a route may raise beyond what every route of its kind does, for its documentation."""

_runner: Final = asyncio.Runner()


def run(work: Coroutine[Any, Any, Answer]) -> Answer:
    """Run a coroutine on this container's one event loop, to which the providers' connections belong."""
    if not gc.isenabled():  # the first one: what is there now stays, and need not be looked through
        gc.freeze()
        gc.enable()
    return _runner.run(work)


class _KeyHolder:
    """A caller with a well-formed key; whose it is, is looked up when a use case asks."""

    def __init__(self, secret: api_keys.Secret) -> None:
        self._secret = secret

    async def workspace(self) -> WorkspaceId:
        """Return the caller's workspace; raises InvalidApiKey."""
        return await wiring.key_ring().workspace_of(self._secret)

    async def scope(self) -> Scope:
        """Return what the caller may see: all of the workspace."""
        return Scope(workspace=await self.workspace())


class _TokenHolder:
    """A caller with a session's client token, which is checked when a use case asks."""

    def __init__(self, token: str) -> None:
        self._token = token

    async def scope(self) -> Scope:
        """Return what the caller may see: the one session; raises InvalidApiKey."""
        return Scope(session_id=wiring.client_tokens().session_of(self._token))


def _bearer(request: Request) -> str:
    scheme, _, key = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not key.strip():
        raise MissingApiKey
    return key.strip()


def _caller(request: Request) -> _KeyHolder:
    if (key := _bearer(request)).startswith(client_tokens.PREFIX):
        raise InvalidApiKey("A client token opens its own session alone. Use an API key for this route.")
    return _KeyHolder(api_keys.parse(key))


def _visitor(request: Request) -> _KeyHolder | _TokenHolder:
    key = _bearer(request)
    return _TokenHolder(key) if key.startswith(client_tokens.PREFIX) else _KeyHolder(api_keys.parse(key))


Caller = Annotated[ports.Caller, Depends(_caller)]
"""Who calls, for a handler's signature: it makes the route answer 401 without a well-formed key."""

SessionCaller = Annotated[ports.Visitor, Depends(_visitor)]
"""Who calls a route that a session's own client may call too, with its client token."""


def _under_key(caller: ports.Visitor, event: Event, key: str) -> tuple[Scope, str, str, bytes]:
    """Return what a request with an Idempotency-Key is known by; raises InvalidApiKey."""
    return run(caller.scope()), f"{event['requestContext']['http']['method']} {event['rawPath']}", key, _body(event)


def _request_hash(request: Request) -> str | None:
    if (key := request.headers.get("idempotency-key")) is None:
        return None
    return wiring.idempotency().hash_of(*_under_key(_visitor(request), request.resolved_event.raw_event, key))


RequestHash = Annotated[str | None, Depends(_request_hash)]
"""What a request with an Idempotency-Key is known again by, for a handler that keeps it with what the request made.

That closes the gap of the keys' own records, which are written after the work: a function may die in between.
"""


@dataclass(frozen=True, slots=True)
class SignedBody:
    """A body exactly as it was sent, and the token in the Authorization header that vouches for it."""

    token: str
    body: bytes


def _signed_body(request: Request) -> SignedBody:
    if not (token := request.headers.get("authorization", "")):
        raise InvalidWebhookSignature
    return SignedBody(token, _body(request.resolved_event.raw_event))


Signed = Annotated[SignedBody, Depends(_signed_body)]
"""A signed webhook, for a handler's signature."""


@dataclass(frozen=True, slots=True)
class Once:
    """What makes a route heed an Idempotency-Key: where its answer has the id that it made, and how to answer again."""

    id_field: str
    again: Callable[..., Coroutine[Any, Any, BaseModel]] | None = None
    """Takes the id and the caller, and builds the answer of a request that was carried out before.

    None has the handler itself do it, where it changes nothing.
    """


@dataclass(frozen=True, slots=True)
class Route:
    """A route as its handler declares it; the reference is built from this."""

    method: str
    path: str
    endpoint: Endpoint
    summary: str
    status_code: int
    raises: Errors
    enveloped: bool = True
    once: Once | None = None

    @property
    def document(self) -> tuple[str, Any]:
        """The one parameter that is neither in the path nor injected, and its type; an empty name if there is none."""
        for name, hint in get_type_hints(self.endpoint, include_extras=True).items():
            if name != "return" and f"{{{name}}}" not in self.path and not _injected(hint):
                return name, hint
        return "", None

    @property
    def wants_key(self) -> bool:
        """Whether the caller has to show an API key, or what stands in for it."""
        return self.takes_client_token or Caller in get_type_hints(self.endpoint, include_extras=True).values()

    @property
    def takes_client_token(self) -> bool:
        """Whether a session's client token will do."""
        return SessionCaller in get_type_hints(self.endpoint, include_extras=True).values()


@dataclass(frozen=True, slots=True)
class _Replayed:
    """The answer to a request that was carried out before."""

    document: BaseModel


class Api:
    """The one route of one function."""

    def __init__(self, max_body_bytes: int = MAX_BODY_BYTES) -> None:
        self.routes: list[Route] = []
        self._max_body_bytes = max_body_bytes
        self._resolver = APIGatewayHttpResolver()
        self._resolver.exception_handler(Exception)(_refusal)
        self._resolver.not_found(_no_route)

    def get(self, path: str, *, summary: str, raises: Errors = ()) -> Callable[[Endpoint], Endpoint]:
        """Serve GET; a document in the handler's signature is read from the query."""
        return self._serve(partial(Route, "GET", path, summary=summary, status_code=200, raises=raises))

    def post(
        self,
        path: str,
        *,
        summary: str,
        raises: Errors = (),
        status_code: int = 200,
        enveloped: bool = True,
        once: Once | None = None,
    ) -> Callable[[Endpoint], Endpoint]:
        """Serve POST; a document in the handler's signature is read from the body."""
        return self._serve(
            partial(
                Route,
                "POST",
                path,
                summary=summary,
                status_code=status_code,
                raises=raises,
                enveloped=enveloped,
                once=once,
            )
        )

    def patch(self, path: str, *, summary: str, raises: Errors = ()) -> Callable[[Endpoint], Endpoint]:
        """Serve PATCH; a document in the handler's signature is read from the body."""
        return self._serve(partial(Route, "PATCH", path, summary=summary, status_code=200, raises=raises))

    def delete(self, path: str, *, summary: str, raises: Errors = ()) -> Callable[[Endpoint], Endpoint]:
        """Serve DELETE, which answers without a body."""
        return self._serve(partial(Route, "DELETE", path, summary=summary, status_code=204, raises=raises))

    def handler(self, event: Event, context: LambdaContext) -> dict[str, Any]:
        """Answer one event of an HTTP API or a function URL (payload 2.0); this is what Lambda calls."""
        started = time.perf_counter()
        answer = self._resolver.resolve(event, context)
        request_id = event["requestContext"]["requestId"]
        answer["headers"]["X-Request-Id"] = request_id
        logger.info(
            "request",
            route=event["routeKey"],
            ids=event.get("pathParameters"),
            status=answer["statusCode"],
            milliseconds=round((time.perf_counter() - started) * 1000),
            request_id=request_id,
            lambda_request_id=context.aws_request_id,
        )
        return answer

    def _serve(self, route_of: Callable[[Endpoint], Route]) -> Callable[[Endpoint], Endpoint]:
        def register(endpoint: Endpoint) -> Endpoint:
            route = route_of(endpoint)
            self.routes.append(route)
            self._resolver.route(_ANY_PATH, route.method)(self._adapted(route))
            return endpoint

        return register

    def _adapted(self, route: Route) -> Callable[..., Response[str]]:
        """Wrap an endpoint: read the document it takes, run it, write the document it returns."""
        name, hint = route.document
        reader = TypeAdapter(hint) if name else None
        for each in get_type_hints(route.endpoint).values():
            if isinstance(each, type) and issubclass(each, BaseModel):
                each.model_rebuild()  # while the container starts, and not in its first request

        @wraps(route.endpoint)
        def answer(**arguments: Any) -> Response[str]:
            event = self._resolver.current_event
            arguments |= {name: event.path_parameters[name] for name in re.findall(r"{(\w+)}", route.path)}
            if reader is not None:
                try:
                    arguments[name] = (
                        read(lambda: reader.validate_python(event.query_string_parameters or {}))
                        if route.method == "GET"
                        else read(lambda: reader.validate_json(self._json_body(event)))
                    )
                except VoiceError:
                    _vouched(arguments.values())
                    raise
            key = event.headers.get("idempotency-key")
            result: BaseModel | _Replayed | None
            if route.once is None or key is None:
                result = run(route.endpoint(**arguments))
            else:
                result = self._once(route.endpoint, route.once, arguments, key)
            if result is None:
                return Response(route.status_code, body=None)
            headers: dict[str, str | list[str]] = {}
            if isinstance(result, _Replayed):
                result, headers = result.document, {"Idempotent-Replayed": "true"}
            bare = isinstance(result, Page) or not route.enveloped
            body = result.model_dump_json()
            return Response(route.status_code, _JSON, body if bare else f'{{"data":{body}}}', headers=headers)

        return answer

    def _once(self, endpoint: Endpoint, once: Once, arguments: dict[str, Any], key: str) -> "BaseModel | _Replayed":
        """Carry a request out if it was not before under its Idempotency-Key; else answer it again."""
        [caller] = [each for each in arguments.values() if isinstance(each, _KeyHolder | _TokenHolder)]
        done: list[BaseModel] = []

        def work() -> str:
            try:
                done.extend(filter(None, [run(endpoint(**arguments))]))
            except CarriedOut as before:
                return before.made_id
            return str(getattr(done[0], once.id_field))

        request = _under_key(caller, self._resolver.current_event.raw_event, key)
        made_id = wiring.idempotency().once(*request, self._resolver.lambda_context, work)
        if done:
            return done[0]
        if once.again is None:
            work()
            return _Replayed(done[0])
        return _Replayed(run(once.again(made_id, caller)))

    def _json_body(self, event: APIGatewayProxyEventV2) -> bytes:
        """Return the body, if it says that it is JSON in UTF-8; a body that says nothing is taken for it.

        One that is empty may say anything: clients name media types of their own where they send nothing.
        """
        if not (body := _body(event.raw_event)):
            return b"{}"
        media_type, _, parameters = event.headers.get("content-type", _JSON).lower().partition(";")
        charset = dict(pair.strip().partition("=")[::2] for pair in parameters.split(";")).get("charset", "utf-8")
        if not re.fullmatch(r"application/([\w.-]+\+)?json", media_type.strip()):
            raise UnsupportedMediaType
        if charset.strip('"') not in ("utf-8", "utf8"):
            raise UnsupportedMediaType
        if len(body) > self._max_body_bytes:
            raise RequestTooLarge(self._max_body_bytes)
        try:
            from_json(body, allow_inf_nan=False)  # models would let NaN through wherever any JSON may stand
        except ValueError as error:
            raise InvalidRequest(f"The body is not valid JSON: {error}.") from None
        return body


def api(max_body_bytes: int = MAX_BODY_BYTES) -> Api:
    """Make the route of a function; bodies over so many bytes are refused."""
    return Api(max_body_bytes)


def operation(function: Endpoint) -> Callable[[Event, LambdaContext], dict[str, Any]]:
    """Make the handler of a function that has no route: an operator invokes it with a document as the event."""
    [document, _] = get_type_hints(function).values()
    reader = TypeAdapter(document)

    def handler(event: Event, context: LambdaContext) -> dict[str, Any]:
        try:
            order = read(lambda: reader.validate_json(to_json(event)))
            result = run(function(order))
        except Exception as error:  # noqa: BLE001 (told to the operator in the contract's shape, and logged)
            refusal = _told_as(error)
            logger.info("operation", operation=function.__name__, code=refusal.code)
            return _error_document(refusal, context.aws_request_id)
        logger.info("operation", operation=function.__name__, code="ok")
        document = result.model_dump(mode="json") if result is not None else None
        return document if isinstance(result, Page) and document else {"data": document}

    return handler


def _injected(hint: object) -> bool:
    return get_origin(hint) is Annotated and isinstance(hint.__metadata__[0], Depends)  # type: ignore[attr-defined]


def _body(event: Event) -> bytes:
    """Return the raw body; API Gateway sends it base64-encoded for all but a few content types."""
    body = event.get("body") or ""
    if not event.get("isBase64Encoded"):
        return body.encode(errors="surrogatepass")  # a lone surrogate is told as invalid JSON, not as our fault
    try:
        return base64.b64decode(body, validate=True)
    except ValueError:
        raise InvalidRequest("The body is not valid base64.") from None


def _vouched(arguments: Iterable[object]) -> None:
    """Look the key up before a request is called invalid: who may not call hears 401, whatever they sent."""
    for argument in arguments:
        if isinstance(argument, _KeyHolder | _TokenHolder):
            run(argument.scope())


def _refusal(error: Exception) -> Response[str]:
    """Answer with an error of the contract; what is none of ours is logged without its message."""
    refusal = _told_as(error)
    headers: dict[str, str | list[str]] = {}
    if isinstance(refusal, MissingApiKey | InvalidApiKey):
        headers["WWW-Authenticate"] = "Bearer"
    if refusal.status in (429, 503):
        headers["Retry-After"] = str(math.ceil(refusal.retry_after_seconds or _RETRY_AFTER_SECONDS))
    event: APIGatewayProxyEventV2 = APIGatewayHttpResolver.current_event
    request_id = event.raw_event["requestContext"]["requestId"]
    logger.info("refused", code=refusal.code, request_id=request_id)
    document = _error_document(refusal, request_id)
    return Response(refusal.status, _JSON, to_json(document).decode(), headers=headers)


def _told_as(error: Exception) -> VoiceError:
    if isinstance(error, VoiceError):
        return error
    logger.error("unexpected", **trace(error))
    return InternalError()


def _error_document(error: VoiceError, request_id: str) -> dict[str, Any]:
    document: dict[str, Any] = {
        "code": error.code,
        "message": error.message,
        "request_id": request_id,
        "retryable": error.retryable,
    }
    if error.next is not None:
        document["next"] = error.next
    if error.faults:
        document["details"] = [{"path": fault.path, "message": fault.message} for fault in error.faults]
    return {"error": document}


def _no_route(_: Exception) -> Response[str]:
    """Answer as API Gateway itself does; only a function URL or a stray method gets here."""
    return Response(404, _JSON, '{"message":"Not Found"}')
