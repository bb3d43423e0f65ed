"""LiveKit's access tokens: authenticate requests, and check whether a token may join a room.

The texts are those of livekit-server 1.13.5. Tokens without expiry are refused, which only later servers do.
"""

import base64
import binascii
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import jwt
from aiohttp import web
from google.protobuf.message import DecodeError
from livekit.protocol.rtc import WrappedJoinRequest

MAX_NAME_BYTES: Final = 256
"""Limit for names of rooms and for identities."""

_LEEWAY_SECONDS: Final = 60
_NO_PERMISSIONS: Final = "no permissions to access the room"
_TEXTS: Final = ("room", "destinationRoom")
_LISTS: Final = ("canPublishSources",)
_BOOLEANS: Final = (
    "roomCreate",
    "roomList",
    "roomRecord",
    "roomAdmin",
    "roomJoin",
    "canPublish",
    "canSubscribe",
    "canPublishData",
    "canUpdateOwnMetadata",
    "ingressAdmin",
    "hidden",
    "recorder",
    "agent",
    "canManageAgentSession",
    "canSubscribeMetrics",
)
_GO_TYPES: Final[Mapping[str, tuple[type, str]]] = {
    **dict.fromkeys(_TEXTS, (str, "string")),
    **dict.fromkeys(_LISTS, (list, "[]string")),
    **dict.fromkeys(_BOOLEANS, (bool, "bool")),
}


class TokenRefused(Exception):
    """A request is refused because of its token; the response is plain text."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status
        self.text = text


@dataclass(frozen=True, slots=True)
class Bearer:
    """A token's identity and video grants; None if the token has no video grants."""

    identity: str
    grants: Mapping[str, Any] | None

    def may(self, grant: str, room: str | None = None) -> bool:
        """Return whether a grant is given, for one room if a room is named."""
        grants = self.grants or {}
        return grants.get(grant) is True and (room is None or grants.get("room", "") == room)


ANONYMOUS: Final = Bearer("", None)


def bearer_of(request: web.Request, key: tuple[str, str]) -> Bearer:
    """Authenticate a request; return ANONYMOUS if it has no token. Raises TokenRefused."""
    header = request.headers.get("Authorization", "")
    if header and not header.startswith("Bearer "):
        raise TokenRefused(401, "invalid authorization header. Must start with Bearer ")
    token = header.removeprefix("Bearer ") or request.query.get("access_token", "")
    if not token:
        return ANONYMOUS
    try:
        issuer = jwt.decode(token, options={"verify_signature": False}).get("iss", "")
    except jwt.InvalidTokenError:
        raise TokenRefused(401, "invalid authorization token") from None
    if issuer != key[0]:
        raise TokenRefused(401, f"invalid API key: {issuer}")
    try:
        claims = jwt.decode(
            token,
            key[1],
            algorithms=["HS256"],
            leeway=_LEEWAY_SECONDS,
            options={"require": ["exp"], "verify_aud": False},
        )
        return Bearer(claims.get("sub", ""), _grants(claims.get("video")))
    except jwt.InvalidTokenError as error:
        raise TokenRefused(401, f"invalid token: {token}, error: {_in_words(error, token)}") from None


def check_join(request: web.Request, bearer: Bearer, *, needs_join_request: bool) -> None:
    """Check that a request may join a room; raises TokenRefused."""
    if bearer.grants is None:
        raise TokenRefused(401, _NO_PERMISSIONS)
    join_request = request.query.get("join_request", "")
    if join_request:
        _check_join_request(join_request)
    elif needs_join_request:
        raise TokenRefused(400, "join_request is required")
    if not bearer.may("roomJoin"):
        raise TokenRefused(401, "permissions denied")
    if not bearer.identity:
        raise TokenRefused(400, "identity cannot be empty")
    if len(bearer.identity.encode()) > MAX_NAME_BYTES:
        raise TokenRefused(400, f"participant identity length exceeds limits: max length {MAX_NAME_BYTES}")
    room = bearer.grants.get("room", "")
    if not room:
        raise TokenRefused(400, "no room name")
    if len(room.encode()) > MAX_NAME_BYTES:
        raise TokenRefused(400, f"room name length exceeds limits: max length {MAX_NAME_BYTES}")


def _check_join_request(text: str) -> None:
    try:
        wrapped = base64.b64decode(text, altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        raise TokenRefused(400, "cannot base64 decode wrapped join request") from None
    try:
        WrappedJoinRequest.FromString(wrapped)
    except DecodeError:
        raise TokenRefused(400, "cannot unmarshal wrapped join request") from None


def _grants(video: object) -> Mapping[str, Any] | None:
    """Read a token's video grants; raises jwt.DecodeError for values that Go cannot decode into its struct."""
    if video is None:
        return None
    if not isinstance(video, dict):
        raise jwt.DecodeError(_unreadable(video, "tokenClaims.ClaimGrants.video", "auth.VideoGrant"))
    for name, value in video.items():
        kind, go_type = _GO_TYPES.get(name, (object, ""))
        if value is not None and not isinstance(value, kind):
            raise jwt.DecodeError(_unreadable(value, f"VideoGrant.ClaimGrants.video.{name}", go_type))
    return {name: value for name, value in video.items() if value is not None}


def _unreadable(value: object, field: str, go_type: str) -> str:
    match value:
        case bool():
            kind = "bool"
        case str():
            kind = "string"
        case list():
            kind = "array"
        case dict():
            kind = "object"
        case _:
            kind = "number"
    return f"could not JSON decode claim: json: cannot unmarshal {kind} into Go struct field {field} of type {go_type}"


def _in_words(error: Exception, token: str) -> str:
    """Return the server library's message for an invalid token."""
    match error:
        case jwt.InvalidAlgorithmError():
            return f"token signature is invalid: signing method {jwt.get_unverified_header(token)['alg']} is invalid"
        case jwt.InvalidSignatureError():
            return "token signature is invalid: signature is invalid"
        case jwt.ExpiredSignatureError():
            return "token has invalid claims: token is expired"
        case jwt.ImmatureSignatureError():
            return "token has invalid claims: token is not valid yet"
        case jwt.MissingRequiredClaimError():
            return "token has invalid claims: token is missing required claim: exp claim is required"
    return f"token is malformed: {error}"
