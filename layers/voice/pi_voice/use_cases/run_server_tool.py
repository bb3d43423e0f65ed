"""Run a tool on a server: ask its webhook endpoint, and record the answer before it is returned."""

import asyncio
import math
import time
from http import HTTPStatus
from typing import Final, NamedTuple

from pi_voice.deadline import seconds_left
from pi_voice.domain.base import JsonObject
from pi_voice.domain.errors import (
    ErrorDetail,
    InternalError,
    InvalidRequest,
    SchemaTooComplex,
    SessionNotActive,
    SessionNotFound,
    StorageError,
    ToolCallInProgress,
)
from pi_voice.domain.ids import Clock, EventId, uuid7
from pi_voice.domain.output_schema import violations
from pi_voice.domain.row_limits import size_of
from pi_voice.domain.sessions import Session
from pi_voice.domain.tool_call_events import json_object_in, tool_call_body
from pi_voice.domain.tool_calls import (
    MAX_BYTES,
    MAX_RESPONSE_BYTES,
    CallToolRequest,
    Run,
    StoredToolCall,
    ToolCall,
    ToolCallOutcome,
    ToolCallStatus,
    check_count,
    check_size,
)
from pi_voice.domain.tools import ServerRun, Tool
from pi_voice.domain.webhook_deliveries import Delivery, delivery_id
from pi_voice.domain.webhook_endpoints import WebhookEndpoint
from pi_voice.domain.webhook_events import TOOL_CALL
from pi_voice.domain.webhook_secrets import WebhookSecrets
from pi_voice.logs import exception_fields, logger
from pi_voice.metrics import count
from pi_voice.ports import Sent, SignedRequest, ToolCalls, ToolSender, WebhookDeliveries, WebhookEndpoints

RECORD_SECONDS: Final = 6.0
"""Time for recording an answer, after the time limit of its tool."""

_MAX_FAULTS: Final = 5
"""Maximum number of faults of arguments that the agent gets to know."""

_ANSWERED_FAILURE: Final = "refused"
"""Code of a failure that the endpoint itself described, with a status of 4xx and an object."""


class _Answer(NamedTuple):
    """What came of a call, and why it did not succeed: a code for the log of deliveries."""

    status: ToolCallOutcome
    response: JsonObject
    error: str | None = None


def _failed(message: str, error: str | None) -> _Answer:
    return _Answer("failed", {"error": message}, error)


_TOO_LATE: Final = _Answer("timeout", {"error": "This function did not answer in time."}, "timeout")
_UNAVAILABLE: Final = _failed("This function is not available.", None)
_BROKEN: Final = "This function did not work."
_TOO_LARGE: Final = _failed("The answer of this function is too large.", "response_too_large")


class RunServerTool:
    """Runs tools on servers, each call at most once at a time."""

    def __init__(
        self,
        tool_calls: ToolCalls,
        endpoints: WebhookEndpoints,
        deliveries: WebhookDeliveries,
        secrets: WebhookSecrets,
        sender: ToolSender,
        clock: Clock = time.time,
    ) -> None:
        self._tool_calls = tool_calls
        self._endpoints = endpoints
        self._deliveries = deliveries
        self._secrets = secrets
        self._sender = sender
        self._clock = clock

    async def __call__(
        self, session: Session, tool: Tool, place: ServerRun, request: CallToolRequest, stored: StoredToolCall | None
    ) -> ToolCall | None:
        """Run a call without a recorded answer, and return it with its answer; None if the session has changed.

        Arguments that the tool's schema does not allow, and failures of the endpoint, are answers as well. Raises
        SessionNotActive, ToolCallInProgress, ToolCallsTooLarge, InvalidRequest, StorageError, and SessionNotFound if
        the session was deleted meanwhile.
        """
        now = int(self._clock())
        if not session.is_ongoing or now >= session.expires_at:
            raise SessionNotActive
        if request.response is not None:
            raise InvalidRequest(details=[ErrorDetail("response", "Leave it out, because your server runs this tool.")])
        if stored is None and (refusal := _refusal(tool, request)) is not None:
            return await self._record(session, request, refusal, now)
        seconds = min(place.timeout_seconds, seconds_left() - RECORD_SECONDS)
        if seconds <= 0:  # reading took too long
            raise StorageError
        ends_at = now + math.ceil(seconds + RECORD_SECONDS)
        endpoint, begun = await asyncio.gather(
            self._endpoint(session, place), self._begin(session, request, stored, now, ends_at)
        )
        if begun is None:
            return None
        call, run = begun
        if endpoint is None:
            return await self._finish(session, call, run, _UNAVAILABLE, milliseconds=0)
        sent, answer = await self._ask(session, endpoint, call, run, seconds)
        logged = asyncio.create_task(self._log(session, endpoint, call, run, sent, answer))
        try:
            return await self._finish(session, call, run, answer, sent.milliseconds)
        finally:
            await logged

    async def _begin(
        self, session: Session, request: CallToolRequest, stored: StoredToolCall | None, now: int, ends_at: int
    ) -> tuple[ToolCall, Run] | None:
        """Record that a call runs, and return it; None if the session has changed."""
        if stored is not None and stored.run is not None:
            again = None
            if now >= stored.run.ends_at:
                again = await self._tool_calls.run_again(session.session_id, request.call_id, stored.run, ends_at)
            if again is None:
                raise ToolCallInProgress
            return stored.call, again
        check_count(session.tool_calls)
        size = check_size(request, session.tool_call_bytes)
        call = _call(request, "running", {}, now)
        run = Run(EventId(uuid7(self._clock)), 1, ends_at)
        counted = await self._tool_calls.record(session, call, size, run)
        return None if counted is None else (call, run)

    async def _record(self, session: Session, request: CallToolRequest, answer: _Answer, now: int) -> ToolCall | None:
        """Record a call with its answer at once; None if the session has changed."""
        check_count(session.tool_calls)
        call = _call(request, answer.status, answer.response, now, milliseconds=0)
        size = check_size(request, session.tool_call_bytes) + size_of(call.response)
        return None if await self._tool_calls.record(session, call, size) is None else call

    async def _endpoint(self, session: Session, place: ServerRun) -> WebhookEndpoint | None:
        """Return the endpoint of a tool; None if it does not exist, is not active or cannot be read."""
        try:
            endpoint = await self._endpoints.find(session.workspace, place.endpoint_id)
        except StorageError:  # the call has begun: its failure is an answer
            logger.error("tool_endpoint_not_read", endpoint_id=place.endpoint_id)
            return None
        if endpoint is None or not endpoint.receives:
            logger.warning("tool_endpoint_not_available", endpoint_id=place.endpoint_id)
            return None
        return endpoint

    async def _ask(
        self, session: Session, endpoint: WebhookEndpoint, call: ToolCall, run: Run, seconds: float
    ) -> tuple[Sent, _Answer]:
        """Ask an endpoint for the answer to a call; never raises."""
        try:
            versions = endpoint.secrets_at(self._clock())
            secrets = tuple(self._secrets.reveal(endpoint.endpoint_id, version) for version in versions)
            request = SignedRequest(endpoint.url, run.event_id, tool_call_body(session, call), secrets)
            sent = await self._sender.send(request, seconds)
        except Exception as error:  # noqa: BLE001 (the agent waits for an answer)
            logger.error("tool_call_failed", endpoint_id=endpoint.endpoint_id, **exception_fields(error))
            return Sent(None, 0, None), _failed(_BROKEN, InternalError.code)
        return sent, _answer_of(sent)

    async def _log(
        self, session: Session, endpoint: WebhookEndpoint, call: ToolCall, run: Run, sent: Sent, answer: _Answer
    ) -> None:
        """Log a call that was asked for as a delivery; never raises."""
        logger.info(
            "tool_call_answered",
            session_id=session.session_id,
            endpoint_id=endpoint.endpoint_id,
            status=answer.status,
            http_status=sent.http_status,
            milliseconds=sent.milliseconds,
            error=answer.error,
        )
        delivery = Delivery(
            endpoint_id=endpoint.endpoint_id,
            delivery_id=delivery_id(run.event_id, endpoint.endpoint_id),
            workspace=endpoint.workspace,
            event_id=run.event_id,
            type=TOOL_CALL,
            event_at=call.called_at,
            created_at=call.called_at,
            session_id=session.session_id,
            status="succeeded" if answer.status == "succeeded" else "failed",
            tries=run.number,
            tried_at=int(self._clock()),
            http_status=sent.http_status,
            milliseconds=sent.milliseconds,
            error=answer.error,
        )
        try:
            await self._deliveries.put(delivery)
        except StorageError:
            logger.error("delivery_not_recorded", delivery_id=delivery.delivery_id)

    async def _finish(self, session: Session, call: ToolCall, run: Run, answer: _Answer, milliseconds: int) -> ToolCall:
        """Record the answer to a call, or one that is shorter if the session has no room for it, and return the call.

        Raises StorageError, ToolCallInProgress, and SessionNotFound if the session was deleted meanwhile.
        """
        for each, limit in ((answer, MAX_BYTES), (_TOO_LARGE, MAX_BYTES + MAX_RESPONSE_BYTES)):
            ended = call.model_copy(
                update={"status": each.status, "response": each.response, "milliseconds": milliseconds}
            )
            match await self._tool_calls.finish(session.session_id, ended, run, size_of(each.response), limit):
                case "recorded":
                    if each.status != "succeeded" and each.error != _ANSWERED_FAILURE:
                        count("ToolCallsFailed")
                    return ended
                case "deleted":
                    raise SessionNotFound
                case "superseded":
                    raise ToolCallInProgress
        raise StorageError


def _call(
    request: CallToolRequest, status: ToolCallStatus, response: JsonObject, now: int, milliseconds: int | None = None
) -> ToolCall:
    return ToolCall.model_construct(
        call_id=request.call_id,
        name=request.name,
        arguments=request.arguments,
        status=status,
        response=response,
        milliseconds=milliseconds,
        called_at=now,
    )


def _refusal(tool: Tool, request: CallToolRequest) -> _Answer | None:
    """Return the answer to a call whose arguments the tool's schema does not allow; the agent can correct them."""
    if tool.parameters is None:
        return _failed("This function takes no arguments.", None) if request.arguments else None
    try:
        faults = violations(request.arguments, tool.parameters)[:_MAX_FAULTS]
    except SchemaTooComplex:
        return _failed("The arguments are too complex to be checked.", None)
    if not faults:
        return None
    listed = " ".join(f"{fault.path or 'arguments'}: {fault.message}" for fault in faults)
    return _failed(f"The arguments are not valid. {listed}", None)


def _answer_of(sent: Sent) -> _Answer:
    """Return what the agent gets of a response: an object, also with a status of 4xx, and else why there is none."""
    if sent.error == "timeout":
        return _TOO_LATE
    if sent.error == "response_too_large":
        return _TOO_LARGE
    is_refusal = sent.error == "http_error" and (sent.http_status or 0) < HTTPStatus.INTERNAL_SERVER_ERROR
    if sent.error is not None and not is_refusal:
        return _failed(_BROKEN, sent.error)
    answer = json_object_in(sent.response)
    if is_refusal:
        return _Answer("failed", answer, _ANSWERED_FAILURE) if answer else _failed(_BROKEN, "http_error")
    if answer is None:
        return _failed(_BROKEN, "invalid_response")
    return _TOO_LARGE if size_of(answer) > MAX_RESPONSE_BYTES else _Answer("succeeded", answer)
