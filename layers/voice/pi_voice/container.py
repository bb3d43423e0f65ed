"""Composition root: the only module that imports both use cases and adapters.

Adapters are imported inside the factories, so that a function loads only the SDKs it uses. Every object is created once
per container. Handlers import this module; nothing in `pi_voice` does.
"""

import os
from collections import ChainMap
from collections.abc import Callable, Mapping
from functools import cache
from typing import TYPE_CHECKING, TypeVar

from pi_voice import settings
from pi_voice.settings import (
    GeminiSettings,
    LiveKitSettings,
    RatedOperation,
    TableNames,
    WebhookSettings,
)

if TYPE_CHECKING:
    from pi_voice.adapters.aws import AwsClient
    from pi_voice.adapters.dynamodb.agents import DynamoAgents
    from pi_voice.adapters.dynamodb.api_keys import DynamoApiKeys
    from pi_voice.adapters.dynamodb.rates import DynamoRateLimiter
    from pi_voice.adapters.dynamodb.sessions import DynamoSessions
    from pi_voice.adapters.dynamodb.tool_calls import DynamoToolCalls
    from pi_voice.adapters.dynamodb.transcripts import DynamoCheckpoints, DynamoTranscripts
    from pi_voice.adapters.dynamodb.webhook_deliveries import DynamoWebhookDeliveries
    from pi_voice.adapters.dynamodb.webhook_endpoints import DynamoWebhookEndpoints
    from pi_voice.adapters.http_client import HttpClient
    from pi_voice.adapters.idempotency import Idempotency
    from pi_voice.adapters.livekit import LiveKitRooms
    from pi_voice.adapters.secrets import Secrets
    from pi_voice.adapters.sqs import SqsDeliveryQueue, SqsSessionQueue
    from pi_voice.adapters.tool_sender import ToolSender
    from pi_voice.adapters.webhook_targets import WebhookTargets
    from pi_voice.domain.client_tokens import ClientTokens
    from pi_voice.domain.webhook_secrets import WebhookSecrets
    from pi_voice.entrypoints.http import Api
    from pi_voice.ports import SessionQueues
    from pi_voice.use_cases.add_participant import AddParticipant
    from pi_voice.use_cases.authorization import ApiKeyVerifier
    from pi_voice.use_cases.call_content import CallContent
    from pi_voice.use_cases.call_tool import CallTool
    from pi_voice.use_cases.complete_session import CompleteSession
    from pi_voice.use_cases.create_session import CreateSession
    from pi_voice.use_cases.create_webhook_endpoint import CreateWebhookEndpoint
    from pi_voice.use_cases.delete_session import DeleteSession
    from pi_voice.use_cases.deliver_event import DeliverEvent
    from pi_voice.use_cases.dispatch_events import DispatchEvents
    from pi_voice.use_cases.end_session import EndSession
    from pi_voice.use_cases.extract_results import ExtractResults
    from pi_voice.use_cases.extractor import Extractor
    from pi_voice.use_cases.issue_connections import IssueConnections
    from pi_voice.use_cases.list_webhook_deliveries import ListWebhookDeliveries
    from pi_voice.use_cases.manage_agents import ManageAgents
    from pi_voice.use_cases.manage_api_keys import ManageApiKeys
    from pi_voice.use_cases.manage_webhook_endpoints import ManageWebhookEndpoints
    from pi_voice.use_cases.preview_extraction import PreviewExtraction
    from pi_voice.use_cases.read_sessions import ReadSessions
    from pi_voice.use_cases.receive_livekit_webhook import ReceiveLivekitWebhook
    from pi_voice.use_cases.redeliver_webhook import RedeliverWebhook
    from pi_voice.use_cases.renew_session import RenewSession
    from pi_voice.use_cases.report_usage import ReportUsage
    from pi_voice.use_cases.rerun_extraction import RerunExtraction
    from pi_voice.use_cases.rotate_webhook_secret import RotateWebhookSecret
    from pi_voice.use_cases.save_transcript import SaveTranscript
    from pi_voice.use_cases.stop_session import StopSession
    from pi_voice.use_cases.sweep_deliveries import SweepDeliveries
    from pi_voice.use_cases.sweep_sessions import SweepSessions
    from pi_voice.use_cases.test_webhook_endpoint import TestWebhookEndpoint
    from pi_voice.use_cases.update_webhook_endpoint import UpdateWebhookEndpoint

# ruff: noqa: PLC0415 (see the module's docstring)

Settings = TypeVar("Settings")


# ---- Settings ----


@cache
def secrets() -> "Secrets | None":
    """Create the reader of the secrets; None if they are environment variables, as in the local stack."""
    location = os.environ.get("PI_VOICE_SECRETS")
    if not location:
        return None
    from pi_voice.adapters.secrets import Secrets

    return Secrets(location)


def with_secrets(read: Callable[[Mapping[str, str]], Settings], *groups: str) -> Callable[[], Settings]:
    """Return a reader of settings that hold secrets of some groups, for each request; secrets win over variables.

    The groups of a function are known when it has started, so its first request reads all of them at once.
    """
    store = secrets()
    if store is None:
        return lambda: read(os.environ)
    store.add(*groups)
    return lambda: read(ChainMap(dict(store.read()), os.environ))


@cache
def tables() -> TableNames:
    """Return the names of the tables."""
    return TableNames.of(os.environ)


# ---- Adapters ----


@cache
def dynamodb() -> "AwsClient":
    """Create the DynamoDB client."""
    from pi_voice.adapters.aws import AwsClient, client

    return AwsClient(client("dynamodb"))


@cache
def api_keys() -> "DynamoApiKeys":
    """Create the store of API keys."""
    from pi_voice.adapters.dynamodb.api_keys import DynamoApiKeys

    return DynamoApiKeys(dynamodb(), tables().api_keys)


@cache
def agents() -> "DynamoAgents":
    """Create the store of agents."""
    from pi_voice.adapters.dynamodb.agents import DynamoAgents

    return DynamoAgents(dynamodb(), tables().agents)


@cache
def sessions() -> "DynamoSessions":
    """Create the store of sessions."""
    from pi_voice.adapters.dynamodb.sessions import DynamoSessions

    return DynamoSessions(dynamodb(), tables().sessions, tables().retention_days)


@cache
def transcripts() -> "DynamoTranscripts":
    """Create the store of transcripts."""
    from pi_voice.adapters.dynamodb.transcripts import DynamoTranscripts

    return DynamoTranscripts(dynamodb(), tables().transcripts, tables().retention_days)


@cache
def checkpoints() -> "DynamoCheckpoints":
    """Create the store of checkpoints."""
    from pi_voice.adapters.dynamodb.transcripts import DynamoCheckpoints

    return DynamoCheckpoints(dynamodb(), tables().sessions, tables().transcripts, tables().retention_days)


@cache
def tool_calls() -> "DynamoToolCalls":
    """Create the store of tool calls."""
    from pi_voice.adapters.dynamodb.tool_calls import DynamoToolCalls

    return DynamoToolCalls(dynamodb(), tables().sessions, tables().transcripts, tables().retention_days)


@cache
def webhook_endpoints() -> "DynamoWebhookEndpoints":
    """Create the store of webhook endpoints."""
    from pi_voice.adapters.dynamodb.webhook_endpoints import DynamoWebhookEndpoints

    return DynamoWebhookEndpoints(dynamodb(), tables().webhook_endpoints)


@cache
def rate_limiter(operation: RatedOperation) -> "DynamoRateLimiter":
    """Create the rate limiter of an operation."""
    from pi_voice.adapters.dynamodb.rates import DynamoRateLimiter

    per_minute = settings.per_minute(os.environ, operation)
    return DynamoRateLimiter(dynamodb(), tables().idempotency, operation, per_minute)


@cache
def idempotency() -> "Idempotency":
    """Create the store of Idempotency-Keys."""
    from pi_voice.adapters.idempotency import Idempotency

    return Idempotency(dynamodb(), tables().idempotency)


@cache
def sqs() -> "AwsClient":
    """Create the SQS client."""
    from pi_voice.adapters.aws import AwsClient, client
    from pi_voice.adapters.sqs import DEADLINE_SECONDS

    return AwsClient(client("sqs"), DEADLINE_SECONDS)


@cache
def extraction_queue() -> "SqsSessionQueue":
    """Create the queue of extractions."""
    from pi_voice.adapters.sqs import SqsSessionQueue

    return SqsSessionQueue(sqs(), settings.extraction_queue_url(os.environ))


@cache
def event_queue() -> "SqsSessionQueue":
    """Create the queue of sessions that owe events."""
    from pi_voice.adapters.sqs import SqsSessionQueue

    return SqsSessionQueue(sqs(), settings.event_queue_url(os.environ))


@cache
def session_queues() -> "SessionQueues":
    """Create both queues of sessions."""
    from pi_voice.ports import SessionQueues

    return SessionQueues(extraction_queue(), event_queue())


@cache
def http_client() -> "HttpClient":
    """Create the HTTP client for LiveKit and Gemini."""
    from pi_voice.adapters.http_client import HttpClient

    return HttpClient()


@cache
def rooms() -> "LiveKitRooms":
    """Create the LiveKit client."""
    from pi_voice.adapters.livekit import LiveKitRooms

    return LiveKitRooms(with_secrets(LiveKitSettings.of, "livekit"), http_client())


@cache
def client_tokens() -> "ClientTokens":
    """Create the signer of client tokens."""
    from pi_voice.domain.client_tokens import ClientTokens

    return ClientTokens(with_secrets(settings.client_token_secrets, "client-token"))


@cache
def webhook_secrets() -> "WebhookSecrets":
    """Create the secrets of webhook endpoints."""
    from pi_voice.domain.webhook_secrets import WebhookSecrets

    return WebhookSecrets(with_secrets(settings.webhook_masters, "webhooks"))


@cache
def webhook_targets() -> "WebhookTargets":
    """Create the check of the URLs of webhook endpoints."""
    from pi_voice.adapters.webhook_targets import WebhookTargets

    return WebhookTargets(settings.webhook_url_policy(os.environ))


@cache
def webhook_deliveries() -> "DynamoWebhookDeliveries":
    """Create the store of deliveries to webhook endpoints."""
    from pi_voice.adapters.dynamodb.webhook_deliveries import DynamoWebhookDeliveries

    return DynamoWebhookDeliveries(dynamodb(), tables().webhook_deliveries)


@cache
def delivery_queue() -> "SqsDeliveryQueue":
    """Create the queue of deliveries to webhook endpoints."""
    from pi_voice.adapters.sqs import SqsDeliveryQueue

    return SqsDeliveryQueue(sqs(), settings.delivery_queue_url(os.environ))


@cache
def tool_sender() -> "ToolSender":
    """Create the sender of tool calls, with the connections that it keeps open."""
    from pi_voice.adapters.tool_sender import ToolSender

    return ToolSender(settings.webhook_url_policy(os.environ))


# ---- Use cases ----


@cache
def api_key_verifier() -> "ApiKeyVerifier":
    """Create the lookup of API keys, with its cache."""
    from pi_voice.use_cases.authorization import ApiKeyVerifier

    return ApiKeyVerifier(api_keys())


@cache
def manage_api_keys() -> "ManageApiKeys":
    """Build `ManageApiKeys` with its adapters."""
    from pi_voice.use_cases.manage_api_keys import ManageApiKeys

    return ManageApiKeys(api_keys())


@cache
def manage_agents() -> "ManageAgents":
    """Build `ManageAgents` with its adapters."""
    from pi_voice.use_cases.manage_agents import ManageAgents

    return ManageAgents(agents(), webhook_endpoints())


@cache
def create_webhook_endpoint() -> "CreateWebhookEndpoint":
    """Build `CreateWebhookEndpoint` with its adapters."""
    from pi_voice.use_cases.create_webhook_endpoint import CreateWebhookEndpoint

    return CreateWebhookEndpoint(webhook_endpoints(), agents(), webhook_targets(), webhook_secrets())


@cache
def update_webhook_endpoint() -> "UpdateWebhookEndpoint":
    """Build `UpdateWebhookEndpoint` with its adapters."""
    from pi_voice.use_cases.update_webhook_endpoint import UpdateWebhookEndpoint

    return UpdateWebhookEndpoint(webhook_endpoints(), agents(), webhook_targets())


@cache
def rotate_webhook_secret() -> "RotateWebhookSecret":
    """Build `RotateWebhookSecret` with its adapters."""
    from pi_voice.use_cases.rotate_webhook_secret import RotateWebhookSecret

    return RotateWebhookSecret(webhook_endpoints(), webhook_secrets())


@cache
def manage_webhook_endpoints() -> "ManageWebhookEndpoints":
    """Build `ManageWebhookEndpoints` with its adapters."""
    from pi_voice.use_cases.manage_webhook_endpoints import ManageWebhookEndpoints

    return ManageWebhookEndpoints(webhook_endpoints())


@cache
def issue_connections() -> "IssueConnections":
    """Build `IssueConnections` with its adapters."""
    from pi_voice.adapters.gemini_live import GeminiLiveTokens
    from pi_voice.use_cases.issue_connections import IssueConnections

    live_tokens = GeminiLiveTokens(with_secrets(GeminiSettings.of, "gemini"), http_client())
    return IssueConnections(rooms(), live_tokens, client_tokens())


@cache
def create_session() -> "CreateSession":
    """Build `CreateSession` with its adapters."""
    from pi_voice.use_cases.create_session import CreateSession

    grace_seconds = settings.grace_seconds(os.environ)
    return CreateSession(agents(), sessions(), issue_connections(), rate_limiter("creates"), grace_seconds)


@cache
def renew_session() -> "RenewSession":
    """Build `RenewSession` with its adapters."""
    from pi_voice.use_cases.renew_session import RenewSession

    return RenewSession(agents(), sessions(), checkpoints(), tool_calls(), issue_connections())


@cache
def add_participant() -> "AddParticipant":
    """Build `AddParticipant` with its adapters."""
    from pi_voice.use_cases.add_participant import AddParticipant

    return AddParticipant(sessions(), rooms())


@cache
def save_transcript() -> "SaveTranscript":
    """Build `SaveTranscript` with its adapters."""
    from pi_voice.use_cases.save_transcript import SaveTranscript

    return SaveTranscript(sessions(), checkpoints())


@cache
def call_tool() -> "CallTool":
    """Build `CallTool` with its adapters."""
    from pi_voice.use_cases.call_tool import CallTool
    from pi_voice.use_cases.run_server_tool import RunServerTool

    run = RunServerTool(tool_calls(), webhook_endpoints(), webhook_deliveries(), webhook_secrets(), tool_sender())
    return CallTool(agents(), sessions(), tool_calls(), run)


@cache
def report_usage() -> "ReportUsage":
    """Build `ReportUsage` with its adapters."""
    from pi_voice.use_cases.report_usage import ReportUsage

    return ReportUsage(sessions())


@cache
def stop_session() -> "StopSession":
    """Build `StopSession` with its adapters."""
    from pi_voice.use_cases.stop_session import StopSession

    return StopSession(sessions(), tool_calls(), rooms())


@cache
def call_content() -> "CallContent":
    """Create the reads of what was said and done in a call."""
    from pi_voice.use_cases.call_content import CallContent

    return CallContent(transcripts(), tool_calls())


@cache
def read_sessions() -> "ReadSessions":
    """Build `ReadSessions` with its adapters."""
    from pi_voice.use_cases.read_sessions import ReadSessions

    return ReadSessions(sessions(), call_content())


@cache
def delete_session() -> "DeleteSession":
    """Build `DeleteSession` with its adapters."""
    from pi_voice.use_cases.delete_session import DeleteSession

    return DeleteSession(sessions(), transcripts())


@cache
def extractor() -> "Extractor":
    """Create the extractor, with the prices of its model."""
    from pi_voice.adapters.gemini_extraction import GeminiExtractionModel
    from pi_voice.use_cases.extractor import Extractor, TokenPrices

    price = settings.extraction_price(os.environ)
    name = settings.extraction_model(os.environ)
    model = GeminiExtractionModel(name, with_secrets(GeminiSettings.of, "gemini"), http_client())
    return Extractor(model, TokenPrices(*price) if price else None)


@cache
def extract_results() -> "ExtractResults":
    """Build `ExtractResults` with its adapters."""
    from pi_voice.use_cases.extract_results import ExtractResults

    return ExtractResults(agents(), sessions(), call_content(), extractor(), session_queues())


@cache
def rerun_extraction() -> "RerunExtraction":
    """Build `RerunExtraction` with its adapters."""
    from pi_voice.use_cases.rerun_extraction import RerunExtraction

    return RerunExtraction(agents(), sessions(), call_content(), extractor(), rate_limiter("extractions"))


@cache
def preview_extraction() -> "PreviewExtraction":
    """Build `PreviewExtraction` with its adapters."""
    from pi_voice.use_cases.preview_extraction import PreviewExtraction

    return PreviewExtraction(extractor(), rate_limiter("extractions"))


@cache
def end_session() -> "EndSession":
    """Build `EndSession` with its adapters."""
    from pi_voice.use_cases.end_session import EndSession

    return EndSession(sessions(), transcripts(), checkpoints())


@cache
def complete_session() -> "CompleteSession":
    """Build `CompleteSession` with its adapters."""
    from pi_voice.use_cases.complete_session import CompleteSession

    with_secrets(LiveKitSettings.of, "livekit")  # `rooms` is created later, but its secrets are read with the others
    return CompleteSession(
        sessions(), end_session(), extract_results(), rooms, rate_limiter("completes"), event_queue()
    )


@cache
def sweep_sessions() -> "SweepSessions":
    """Build `SweepSessions` with its adapters."""
    from pi_voice.use_cases.sweep_sessions import SweepSessions

    return SweepSessions(sessions(), transcripts(), end_session(), stop_session(), rooms(), session_queues())


@cache
def receive_livekit_webhook() -> "ReceiveLivekitWebhook":
    """Build `ReceiveLivekitWebhook` with its adapters."""
    from pi_voice.adapters.livekit_webhook import LiveKitWebhookVerifier
    from pi_voice.use_cases.receive_livekit_webhook import ReceiveLivekitWebhook

    verifier = LiveKitWebhookVerifier(with_secrets(WebhookSettings.of, "livekit-webhook"))
    return ReceiveLivekitWebhook(verifier, sessions(), rooms, event_queue)


@cache
def test_webhook_endpoint() -> "TestWebhookEndpoint":
    """Build `TestWebhookEndpoint` with its adapters."""
    from pi_voice.use_cases.test_webhook_endpoint import TestWebhookEndpoint

    return TestWebhookEndpoint(webhook_endpoints(), webhook_deliveries(), delivery_queue())


@cache
def dispatch_events() -> "DispatchEvents":
    """Build `DispatchEvents` with its adapters."""
    from pi_voice.use_cases.dispatch_events import DispatchEvents

    return DispatchEvents(sessions(), webhook_endpoints(), webhook_deliveries(), delivery_queue())


@cache
def list_webhook_deliveries() -> "ListWebhookDeliveries":
    """Build `ListWebhookDeliveries` with its adapters."""
    from pi_voice.use_cases.list_webhook_deliveries import ListWebhookDeliveries

    return ListWebhookDeliveries(webhook_endpoints(), webhook_deliveries())


@cache
def redeliver_webhook() -> "RedeliverWebhook":
    """Build `RedeliverWebhook` with its adapters."""
    from pi_voice.use_cases.redeliver_webhook import RedeliverWebhook

    return RedeliverWebhook(webhook_endpoints(), webhook_deliveries(), delivery_queue())


@cache
def deliver_event() -> "DeliverEvent":
    """Build `DeliverEvent` with its adapters."""
    from pi_voice.adapters.webhook_sender import WebhookSender
    from pi_voice.use_cases.deliver_event import DeliverEvent
    from pi_voice.use_cases.event_bodies import EventBodies

    bodies = EventBodies(sessions(), call_content())
    sender = WebhookSender(settings.webhook_url_policy(os.environ))
    return DeliverEvent(webhook_deliveries(), webhook_endpoints(), webhook_secrets(), bodies, sender)


@cache
def sweep_deliveries() -> "SweepDeliveries":
    """Build `SweepDeliveries` with its adapters."""
    from pi_voice.use_cases.sweep_deliveries import SweepDeliveries

    return SweepDeliveries(webhook_deliveries(), webhook_endpoints(), delivery_queue())


# ---- Entrypoints ----


def api(max_body_bytes: int | None = None) -> "Api":
    """Create the route of a function; larger bodies than `max_body_bytes` are refused."""
    from pi_voice.entrypoints.callers import Authenticators
    from pi_voice.entrypoints.http import MAX_BODY_BYTES, Api

    authenticators = Authenticators(api_key_verifier().workspace_of, client_tokens)
    return Api(authenticators, idempotency, MAX_BODY_BYTES if max_body_bytes is None else max_body_bytes)
