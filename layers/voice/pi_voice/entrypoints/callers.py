"""Credentials of a request, for the signatures of handlers."""

from collections.abc import Awaitable, Callable
from functools import partial
from typing import Annotated, Any, Final, NamedTuple

from aws_lambda_powertools.event_handler.depends import Depends
from aws_lambda_powertools.event_handler.request import Request

from pi_voice import ports
from pi_voice.domain import api_keys, client_tokens
from pi_voice.domain.client_tokens import ClientTokens
from pi_voice.domain.errors import InvalidApiKey, InvalidWebhookSignature, MissingApiKey
from pi_voice.domain.idempotency import IdempotentRequest
from pi_voice.domain.ids import WorkspaceId
from pi_voice.entrypoints.bodies import bounded_body, raw_body
from pi_voice.entrypoints.runner import run
from pi_voice.ports import Scope
from pi_voice.ports import SignedWebhook as SignedWebhookBody

IDEMPOTENCY_KEY: Final = "idempotency-key"


class Authenticators(NamedTuple):
    """How credentials are checked. Client tokens come from a factory, because their secret is read on demand."""

    workspace_of: Callable[[api_keys.Secret], Awaitable[WorkspaceId]]
    client_tokens: Callable[[], ClientTokens]


class ApiKeyCaller:
    """Caller with a well-formed API key, which is looked up on demand."""

    def __init__(self, secret: api_keys.Secret, authenticators: Authenticators) -> None:
        self._secret = secret
        self._authenticators = authenticators

    async def authenticate(self) -> None:
        """Check the key; raises InvalidApiKey."""
        await self.workspace()

    async def workspace(self) -> WorkspaceId:
        """Return the key's workspace; raises InvalidApiKey."""
        return await self._authenticators.workspace_of(self._secret)

    async def scope(self) -> Scope:
        """Return the scope of the key, all sessions of its workspace; raises InvalidApiKey."""
        return Scope(workspace=await self.workspace())


class ClientTokenCaller:
    """Caller with a session's client token, which is verified on demand."""

    def __init__(self, token: str, authenticators: Authenticators) -> None:
        self._token = token
        self._authenticators = authenticators

    async def authenticate(self) -> None:
        """Verify the token; raises InvalidApiKey."""
        await self.scope()

    async def scope(self) -> Scope:
        """Return the scope of the token, its session; raises InvalidApiKey."""
        return Scope(session_id=self._authenticators.client_tokens().session_of(self._token))


def idempotent_request(
    caller: ports.SessionCaller, event: dict[str, Any], key: str, max_body_bytes: int
) -> IdempotentRequest:
    """Describe a request with an Idempotency-Key; raises InvalidApiKey, RequestTooLarge."""
    scope = run(caller.scope())
    route = f"{event['requestContext']['http']['method']} {event['rawPath']}"
    return IdempotentRequest(scope.owner, route, key, raw_body(event, max_body_bytes))


def _bearer(request: Request) -> str:
    scheme, _, credential = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not credential.strip():
        raise MissingApiKey
    return credential.strip()


def _caller(request: Request) -> ApiKeyCaller:
    if (credential := _bearer(request)).startswith(client_tokens.PREFIX):
        raise InvalidApiKey("A client token is valid for its own session only. Use an API key for this route.")
    return ApiKeyCaller(api_keys.parse(credential), request.context["authenticators"])


def _session_caller(request: Request) -> ApiKeyCaller | ClientTokenCaller:
    if (credential := _bearer(request)).startswith(client_tokens.PREFIX):
        return ClientTokenCaller(credential, request.context["authenticators"])
    return ApiKeyCaller(api_keys.parse(credential), request.context["authenticators"])


def _request_hash(request: Request) -> str | None:
    if (key := request.headers.get(IDEMPOTENCY_KEY)) is None:
        return None
    event, max_body_bytes = request.resolved_event.raw_event, request.context["max_body_bytes"]
    return idempotent_request(_session_caller(request), event, key, max_body_bytes).request_hash


def _if_match(request: Request) -> str | None:
    header: str | None = request.headers.get("if-match")
    return header


def _signed_webhook(request: Request) -> SignedWebhookBody:
    if not (token := request.headers.get("authorization", "")):
        raise InvalidWebhookSignature
    event, max_body_bytes = request.resolved_event.raw_event, request.context["max_body_bytes"]
    return SignedWebhookBody(token, partial(bounded_body, event, max_body_bytes))


Caller = Annotated[ports.Caller, Depends(_caller)]
"""Caller with an API key. The route answers 401 without a well-formed one."""

SessionCaller = Annotated[ports.SessionCaller, Depends(_session_caller)]
"""Caller with an API key or with the session's client token."""

RequestHash = Annotated[str | None, Depends(_request_hash)]
"""Hash of a request with an Idempotency-Key, to store with what the request creates.

It recognizes a repeat even if the function crashed before it wrote the record of the key.
"""

IfMatch = Annotated[str | None, Depends(_if_match)]
"""Header If-Match, which is parsed after the caller was authenticated."""

SignedWebhook = Annotated[SignedWebhookBody, Depends(_signed_webhook)]
"""Raw body of a webhook with its signature."""
