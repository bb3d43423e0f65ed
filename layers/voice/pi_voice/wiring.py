"""The composition root: the one place that knows use cases and adapters, and gives each what it needs.

Adapters are imported where they are given out, because a function that only reads a row must not pay for two
SDKs at every cold start. Everything is made once per container.
"""

import os
from collections.abc import Mapping
from functools import cache
from typing import TYPE_CHECKING

from pi_voice import settings
from pi_voice.access import Access, KeyRing
from pi_voice.settings import (
    AwsSettings,
    ExtractionSettings,
    GeminiSettings,
    LiveKitSettings,
    TableNames,
    WebhookSettings,
)

if TYPE_CHECKING:
    from pi_voice.adapters import dynamodb
    from pi_voice.adapters.aws import AwsService
    from pi_voice.adapters.livekit import LiveKitRooms
    from pi_voice.adapters.livekit_webhook import WebhookSignature
    from pi_voice.adapters.sqs import SqsExtractionQueue
    from pi_voice.adapters.web import Web
    from pi_voice.admission import Admission
    from pi_voice.catalog import Catalog
    from pi_voice.checkpoints import CheckpointKeeping
    from pi_voice.client_tokens import ClientTokens
    from pi_voice.completion import Closing, Completion
    from pi_voice.connecting import Connecting
    from pi_voice.extracting_again import ExtractingAgain
    from pi_voice.extraction import Extractor
    from pi_voice.hanging_up import HangingUp
    from pi_voice.history import History
    from pi_voice.idempotency import Idempotency
    from pi_voice.provisioning import Provisioning
    from pi_voice.renewing import Renewing
    from pi_voice.results import Results
    from pi_voice.room_events import RoomEvents
    from pi_voice.sweeping import Sweeping

# ruff: noqa: PLC0415 (the reason is the module's)


@cache
def environment() -> Mapping[str, str]:
    """The settings of this container, with its secrets where they are kept elsewhere."""
    location = os.environ.get("PI_VOICE_SECRETS")
    if not location:
        return os.environ
    from pi_voice.adapters import secrets

    return {**os.environ, **secrets.read(location, AwsSettings.of(os.environ))}


@cache
def tables() -> TableNames:
    """The tables of this deployment."""
    return TableNames.of(os.environ)


@cache
def dynamodb_service() -> "AwsService":
    """DynamoDB, over the connections of this container."""
    from pi_voice.adapters.aws import DYNAMODB, AwsService

    return AwsService(AwsSettings.of(os.environ), DYNAMODB)


@cache
def api_keys() -> "dynamodb.DynamoApiKeys":
    """API keys in DynamoDB."""
    from pi_voice.adapters.dynamodb import DynamoApiKeys

    return DynamoApiKeys(dynamodb_service(), tables().api_keys)


@cache
def agents() -> "dynamodb.DynamoAgents":
    """Agents in DynamoDB."""
    from pi_voice.adapters.dynamodb import DynamoAgents

    return DynamoAgents(dynamodb_service(), tables().agents)


@cache
def sessions() -> "dynamodb.DynamoSessions":
    """Sessions in DynamoDB."""
    from pi_voice.adapters.dynamodb import DynamoSessions

    return DynamoSessions(dynamodb_service(), tables().sessions, tables().retention_days)


@cache
def transcripts() -> "dynamodb.DynamoTranscripts":
    """Transcripts in DynamoDB."""
    from pi_voice.adapters.dynamodb import DynamoTranscripts

    return DynamoTranscripts(dynamodb_service(), tables().transcripts, tables().retention_days)


@cache
def checkpoints() -> "dynamodb.DynamoCheckpoints":
    """What is kept of calls that are on, in DynamoDB."""
    from pi_voice.adapters.dynamodb import DynamoCheckpoints

    return DynamoCheckpoints(dynamodb_service(), tables().sessions, tables().transcripts, tables().retention_days)


@cache
def client_tokens() -> "ClientTokens":
    """What a session's client shows instead of an API key."""
    from pi_voice.client_tokens import ClientTokens

    return ClientTokens(settings.client_token_secret(environment()))


@cache
def extraction_queue() -> "SqsExtractionQueue":
    """Extractions to be done later, in SQS."""
    from pi_voice.adapters.aws import SQS, AwsService
    from pi_voice.adapters.sqs import PATIENCE_SECONDS, SqsExtractionQueue

    sqs = AwsService(AwsSettings.of(os.environ), SQS, patience_seconds=PATIENCE_SECONDS)
    return SqsExtractionQueue(sqs, settings.queue_url(os.environ))


@cache
def web() -> "Web":
    """The HTTP session to the providers."""
    from pi_voice.adapters.web import Web

    return Web()


@cache
def rooms() -> "LiveKitRooms":
    """LiveKit."""
    from pi_voice.adapters.livekit import LiveKitRooms

    return LiveKitRooms(LiveKitSettings.of(environment()), web())


@cache
def key_ring() -> KeyRing:
    """Who may call."""
    return KeyRing(api_keys())


@cache
def idempotency() -> "Idempotency":
    """What was done under which Idempotency-Key."""
    from pi_voice.adapters.aws import PATIENCE_SECONDS
    from pi_voice.idempotency import Idempotency

    return Idempotency(tables().idempotency, PATIENCE_SECONDS)


@cache
def access() -> Access:
    """Giving out and taking back API keys."""
    return Access(api_keys())


@cache
def catalog() -> "Catalog":
    """Agents."""
    from pi_voice.catalog import Catalog

    return Catalog(agents())


@cache
def history() -> "History":
    """Sessions, to look at and to remove."""
    from pi_voice.history import History

    return History(sessions(), transcripts(), checkpoints())


@cache
def connecting() -> "Connecting":
    """Rooms and tokens."""
    from pi_voice.adapters.gemini_live import GeminiLiveTokens
    from pi_voice.connecting import Connecting

    live_tokens = GeminiLiveTokens(GeminiSettings.of(environment()), web())
    return Connecting(rooms(), live_tokens, client_tokens())


@cache
def provisioning() -> "Provisioning":
    """Starting sessions."""
    from pi_voice.provisioning import Provisioning

    return Provisioning(agents(), sessions(), connecting(), settings.grace_seconds(os.environ))


@cache
def renewing() -> "Renewing":
    """Keeping calls going."""
    from pi_voice.renewing import Renewing

    return Renewing(agents(), sessions(), checkpoints(), connecting())


@cache
def admission() -> "Admission":
    """Letting people into running sessions."""
    from pi_voice.admission import Admission

    return Admission(sessions(), rooms())


@cache
def checkpoint_keeping() -> "CheckpointKeeping":
    """Keeping transcripts as they grow."""
    from pi_voice.checkpoints import CheckpointKeeping

    return CheckpointKeeping(sessions(), checkpoints())


@cache
def hanging_up() -> "HangingUp":
    """Ending calls at LiveKit."""
    from pi_voice.hanging_up import HangingUp

    return HangingUp(sessions(), rooms())


@cache
def extractor() -> "Extractor":
    """Reading transcripts."""
    from pi_voice.adapters.gemini_extraction import GeminiExtractionModel
    from pi_voice.extraction import Extractor, Price

    told = ExtractionSettings.of(os.environ)
    model = GeminiExtractionModel(GeminiSettings.of(environment()), web())
    return Extractor(model, told.window_characters, Price(*told.price) if told.price else None)


@cache
def results() -> "Results":
    """Getting the results of calls that ended."""
    from pi_voice.results import Results

    return Results(agents(), sessions(), transcripts(), extractor(), extraction_queue())


@cache
def extracting_again() -> "ExtractingAgain":
    """Extracting results by hand."""
    from pi_voice.adapters.dynamodb import DynamoRates
    from pi_voice.extracting_again import ExtractingAgain

    rates = DynamoRates(dynamodb_service(), tables().idempotency, ExtractionSettings.of(os.environ).per_minute)
    return ExtractingAgain(agents(), sessions(), transcripts(), extractor(), rates)


@cache
def closing() -> "Closing":
    """Ending sessions with their transcript."""
    from pi_voice.completion import Closing

    return Closing(sessions(), transcripts(), checkpoints())


@cache
def completion() -> "Completion":
    """Ending sessions and getting their results."""
    from pi_voice.completion import Completion

    return Completion(sessions(), closing(), results(), rooms)


@cache
def sweeping() -> "Sweeping":
    """Doing what nobody else has done."""
    from pi_voice.sweeping import Sweeping

    return Sweeping(sessions(), closing(), hanging_up(), extraction_queue())


@cache
def webhook_signature() -> "WebhookSignature":
    """Telling LiveKit's webhooks from everybody else's."""
    from pi_voice.adapters.livekit_webhook import WebhookSignature

    return WebhookSignature(WebhookSettings.of(environment()))


@cache
def room_events() -> "RoomEvents":
    """Merging LiveKit's webhooks into sessions."""
    from pi_voice.room_events import RoomEvents

    return RoomEvents(sessions(), sessions(), rooms)
